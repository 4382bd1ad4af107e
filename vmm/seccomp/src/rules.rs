//! Rules that hold together, and what they say of a call.

use std::fmt;

use serde::Deserialize;

use crate::Sysno;

/// Stands in a condition, and in a compiled filter, where the process's own number belongs, which is not known before it
/// runs. No process has this number: Linux's go up to 2^22.
pub const OWN_PID: u32 = 0x5ec0_71a5;

/// Which filter a rule is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum List {
    /// Any thread, from the process's first own act on: what the others may do, and what makes a machine.
    Start,
    /// The main thread once the machine runs: the event loop.
    Main,
    /// A vCPU's thread.
    Vcpu,
    /// A thread that asks KVM something while the machine is made.
    Worker,
    /// The API's thread.
    Api,
}

impl List {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Start, Self::Main, Self::Vcpu, Self::Worker, Self::Api];

    /// Its name, as in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Worker => "worker",
            Self::Api => "api",
        }
    }
}

/// What becomes of a call that a rule covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Answer {
    /// The kernel does it.
    #[default]
    #[serde(rename = "allow")]
    Allow,
    /// Error ENOSYS, as on a kernel that does not have the call: the caller has another way.
    ENOSYS,
}

/// What one argument must be. Its low 32 bits count: all that is tested here are numbers of 32 bits to the kernel, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub(crate) arg: u8,
    pub(crate) test: Test,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    /// Exactly this; [`OWN_PID`] stands for the process's own number.
    Is(u32),
    /// None of these bits.
    Lacks(u32),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) group: String,
    pub(crate) call: Sysno,
    pub(crate) on: Vec<List>,
    pub(crate) args: Vec<Condition>,
    pub(crate) answer: Answer,
    pub(crate) rare: Vec<List>,
    pub(crate) why: String,
}

impl Rule {
    /// Its group, call and conditions: names it, and changes when what it covers does.
    pub fn name(&self) -> String {
        let conditions: String = self
            .args
            .iter()
            .map(|condition| format!(", argument {} {}", condition.arg, condition.text))
            .collect();
        format!("{}: {}{conditions}", self.group, self.call)
    }

    /// The threads that need it.
    pub fn on(&self) -> &[List] {
        &self.on
    }

    /// Why.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The threads on which no test machine can be made to need it at will: tests make the call there themselves.
    pub fn rare(&self) -> &[List] {
        &self.rare
    }

    /// A call of the process `pid` that it covers; arguments without a condition are of no use to the kernel.
    pub fn example(&self, pid: u32) -> Call {
        let mut args = [u64::MAX; 6];
        for condition in &self.args {
            if let Some(arg) = args.get_mut(usize::from(condition.arg)) {
                *arg = match condition.test {
                    Test::Is(OWN_PID) => pid.into(),
                    Test::Is(value) => value.into(),
                    Test::Lacks(_) => 0,
                };
            }
        }
        Call {
            number: self.call.id().into(),
            args,
        }
    }

    /// Whether it is part of a filter.
    pub fn is_in(&self, list: List) -> bool {
        list == List::Start || self.on.contains(&list)
    }

    /// Whether it covers a call of the process `pid`.
    fn covers(&self, call: &Call, pid: u32) -> bool {
        let holds = |condition: &Condition| {
            let value = call.args.get(usize::from(condition.arg));
            value.is_some_and(|value| condition.test.holds(*value as u32, pid))
        };
        i64::from(self.call.id()) == call.number && self.args.iter().all(holds)
    }
}

impl Test {
    fn holds(self, value: u32, pid: u32) -> bool {
        match self {
            Self::Is(OWN_PID) => value == pid,
            Self::Is(wanted) => value == wanted,
            Self::Lacks(bits) => value & bits == 0,
        }
    }
}

/// A system call, as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.args;
        match usize::try_from(self.number).ok().and_then(Sysno::new) {
            Some(call) => write!(f, "{}({a:#x}, {b:#x}, {c:#x}, {d:#x})", call.name()),
            None => write!(f, "number {}({a:#x}, {b:#x}, {c:#x}, {d:#x})", self.number),
        }
    }
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
}

impl Rules {
    /// All of them, in the file's order.
    pub fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules of a list that cover a call of the process `pid`; none means that the call ends the process.
    pub fn covering(&self, list: List, call: &Call, pid: u32) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.is_in(list) && rule.covers(call, pid))
    }
}
