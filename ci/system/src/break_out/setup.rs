//! Which layers hold the process in a run, and what has to come of it.

use super::attempts::Attempt;
use super::outcome::Outcome;

/// One thing that holds the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Filters of system calls.
    Seccomp,
    /// Rights to files, given up.
    Landlock,
    /// Root folder, namespaces, devices of its own: what the jailer makes.
    Jail,
    /// A user of its own, without capabilities: the jailer does this too.
    User,
    /// A cgroup with limits.
    Cgroup,
}

impl Layer {
    const ALL: [Self; 5] = [
        Self::Seccomp,
        Self::Landlock,
        Self::Jail,
        Self::User,
        Self::Cgroup,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "Landlock",
            Self::Jail => "jail",
            Self::User => "user",
            Self::Cgroup => "cgroup",
        }
    }
}

/// The layers that are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    off: Vec<Layer>,
}

impl Setup {
    /// Everything on, each layer alone off, what jail and Landlock do alone, and nothing on. Without a jail there are two:
    /// the process as a user of its own, and as root.
    pub(super) fn all() -> Vec<Self> {
        use Layer::{Cgroup, Jail, Landlock, Seccomp, User};
        let off: [&[Layer]; 9] = [
            &[],
            &[Seccomp],
            &[Landlock],
            &[Jail],
            &[Jail, User],
            &[Cgroup],
            &[Seccomp, Landlock],
            &[Seccomp, Jail, User],
            &Layer::ALL,
        ];
        off.into_iter().map(|off| Self { off: off.into() }).collect()
    }

    /// Whether a layer is on.
    pub(super) fn has(&self, layer: Layer) -> bool {
        !self.off.contains(&layer)
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        if self.off.is_empty() {
            return "all on".into();
        }
        if self.off == Layer::ALL {
            return "all off".into();
        }
        let names: Vec<_> = self.off.iter().map(|layer| layer.name()).collect();
        format!("no {}", names.join(", no "))
    }

    /// What an attempt has to come to here.
    pub(super) fn expected(&self, attempt: &Attempt) -> Expected {
        use Layer::{Cgroup, Jail, Seccomp, User};
        if self.off == Layer::ALL {
            return Expected::Success;
        }
        match attempt.name {
            // Memory has this one bound.
            "memory past the limit" => Expected::success_if(!self.has(Cgroup)),
            // As many threads as the start needs, less those that have ended.
            "one process more" => Expected::success_if(!self.has(Seccomp)),
            // A machine with a vsock device may connect to sockets of the host's services. Which, the jail's root and the
            // sockets' permissions say; Landlock can from Linux 7.1 on. That is why a VMM is never run as root.
            "the agent's socket" if !self.has(User) => Expected::Either,
            // Where neither seccomp nor a jail is, Landlock still holds files; the rest it learnt later, or never.
            _ if !self.has(Seccomp) && !self.has(Jail) && !attempt.on_files => Expected::Either,
            _ => Expected::Failure,
        }
    }
}

/// What an attempt has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Success,
    Failure,
    /// It depends on how new the kernel is.
    Either,
}

impl Expected {
    fn success_if(yes: bool) -> Self {
        if yes { Self::Success } else { Self::Failure }
    }

    /// Whether this came of it.
    pub(super) fn holds(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (_, Outcome::Unclear(_)) => false,
            (Self::Success, outcome) => *outcome == Outcome::Success,
            (Self::Failure, outcome) => *outcome != Outcome::Success,
            (Self::Either, _) => true,
        }
    }
}
