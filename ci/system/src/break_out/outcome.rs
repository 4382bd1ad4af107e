//! What came of an attempt.

use std::fmt;

use nix::errno::Errno;
use secovia_vmm_api::Exit;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its last call did what it was for.
    Success,
    /// The VMM ended over this call, with the status for forbidden calls.
    Forbidden(String),
    /// The kernel refused this call.
    Refused(String, Errno),
    /// The process was killed.
    Killed(i32),
    /// Something that is no answer.
    Unclear(String),
}

impl Outcome {
    /// Reads it from the VMM's log and end. `executes`: what succeeds does not come back, but ends with this status.
    pub(super) fn read(log: &str, end: &End, calls: usize, executes: Option<i32>) -> Self {
        // A process that a call made says of the same call that it gave 0.
        let made: Vec<_> = log
            .lines()
            .filter_map(call)
            .filter(|(name, result)| !(name == "clone" && *result == 0))
            .collect();
        let refused = made.iter().find(|(_, result)| *result < 0);
        let named = log
            .lines()
            .find_map(|line| line.split_once("forbidden system call ")?.1.split_once('('));
        match (end, refused) {
            (End::Exited(code), _) if *code == i32::from(Exit::ForbiddenCall.code()) => match named {
                Some((name, _)) => Self::Forbidden(name.into()),
                None => Self::Unclear(format!("status {code} and no call named: {log}")),
            },
            (_, Some((name, result))) => Self::Refused(name.clone(), Errno::from_raw(-*result as i32)),
            (End::Exited(code), None) if executes == Some(*code) => Self::Success,
            (End::Exited(code), None)
                if *code == i32::from(Exit::GuestReset.code()) && made.len() == calls =>
            {
                Self::Success
            }
            (End::Killed(signal), None) => Self::Killed(*signal),
            (End::Exited(code), None) => Self::Unclear(format!("status {code}: {log}")),
        }
    }
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Killed(i32),
}

/// The call and result that a line of the log tells of: `... back door: NAME(ARGUMENTS) is RESULT`.
fn call(line: &str) -> Option<(String, i64)> {
    let (_, told) = line.split_once("back door: ")?;
    let (name, _) = told.split_once('(')?;
    let (_, result) = told.rsplit_once(" is ")?;
    Some((name.into(), result.parse().ok()?))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => write!(f, "SUCCEEDS"),
            Self::Forbidden(call) => write!(f, "seccomp: {call}"),
            Self::Refused(call, errno) => write!(f, "{call}: {errno:?}"),
            Self::Killed(9) => write!(f, "killed: out of memory"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Unclear(what) => write!(f, "UNCLEAR: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: &str = "T [a] ERROR back door: openat(0xffffff9c, 0x1, 0x0, 0x0) is 7\n";
    const REFUSED: &str = "T [a] ERROR back door: read(0x7, 0x1, 0x0, 0x0) is -13\n";

    #[test]
    fn what_came_of_it_is_read_from_log_and_end() {
        let forbidden =
            "T [a] ERROR forbidden system call ptrace(0x1, 0x2) on a thread under the filter vcpu: the end\n";
        let read = |log: &str, end, calls| Outcome::read(log, &end, calls, None);
        assert_eq!(read(OPENED, End::Exited(3), 1), Outcome::Success);
        assert_eq!(
            read(forbidden, End::Exited(6), 1),
            Outcome::Forbidden("ptrace".into())
        );
        assert_eq!(
            read(&(OPENED.to_owned() + REFUSED), End::Exited(3), 2),
            Outcome::Refused("read".into(), Errno::EACCES)
        );
        assert_eq!(read(OPENED, End::Killed(9), 2), Outcome::Killed(9));
        // A call that never came back, a VMM that failed: no answer at all.
        for (log, end) in [
            (OPENED, End::Exited(3)),
            ("", End::Exited(1)),
            ("", End::Exited(6)),
        ] {
            assert!(matches!(read(log, end, 2), Outcome::Unclear(_)), "{log}");
        }
        let forked = "T [a] ERROR back door: clone(0x11, 0x0, 0x0, 0x0) is 0\n\
                      T [a] ERROR back door: clone(0x11, 0x0, 0x0, 0x0) is 5\n";
        assert_eq!(read(forked, End::Exited(3), 1), Outcome::Success);
        assert_eq!(Outcome::read("", &End::Exited(0), 1, Some(0)), Outcome::Success);
    }
}
