//! Steps for this process, while it has one thread.

use rustix::fs::Mode;

use super::error::Problem;
use crate::plan::Step;
use crate::sys;

/// The first descriptor that is no standard stream.
const FIRST: i32 = 3;

pub(super) fn apply(step: &Step) -> Result<(), Problem> {
    match step {
        Step::HoldSignals => sys::hold_signals(true).map_err(Problem::os("report this")),
        Step::SetUmask => {
            rustix::process::umask(Mode::RWXG | Mode::RWXO);
            Ok(())
        }
        Step::CloseDescriptors { keep } => close(keep.iter().copied()),
        _ => Err(Problem::new("this is no step of the process", "report this")),
    }
}

/// Closes all but the standard streams and `keep`, which is in order.
fn close(keep: impl Iterator<Item = i32>) -> Result<(), Problem> {
    let old = "Linux 5.14 or newer is needed";
    let mut next = FIRST;
    for fd in keep {
        if !sys::is_open(fd) {
            return Err(Problem::new(
                format_args!("descriptor {fd} is not open"),
                "hand it to the jailer open, or leave --keep-fd away",
            ));
        }
        sys::close_descriptors(next, fd - 1).map_err(Problem::os(old))?;
        next = fd.saturating_add(1);
    }
    sys::close_descriptors(next, i32::MAX).map_err(Problem::os(old))
}
