//! How `secovia-vmm` ends.

/// The exit status of `secovia-vmm`, one for each way that a machine's life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off.
    GuestShutdown,
    /// The VMM or the host failed it; standard error says how.
    Internal,
    /// The command line or the configuration is wrong; nothing was started.
    BadConfiguration,
    /// The guest reset itself.
    GuestReset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// Asked to end (SIGTERM), the guest did not power off in time and was ended.
    Forced,
    /// One of its threads made a system call that it must not: the guest may have taken it over, or it has a fault. The
    /// log names the call.
    ForbiddenCall,
}

impl Exit {
    /// The process's exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::GuestShutdown => 0,
            Self::Internal => 1,
            Self::BadConfiguration => 2,
            Self::GuestReset => 3,
            Self::GuestPanic => 4,
            Self::Forced => 5,
            Self::ForbiddenCall => 6,
        }
    }

    /// The other way round; `None` for a status that is none of ours (a VMM that was killed or aborted).
    pub fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::GuestShutdown,
            1 => Self::Internal,
            2 => Self::BadConfiguration,
            3 => Self::GuestReset,
            4 => Self::GuestPanic,
            5 => Self::Forced,
            6 => Self::ForbiddenCall,
            _ => return None,
        })
    }
}
