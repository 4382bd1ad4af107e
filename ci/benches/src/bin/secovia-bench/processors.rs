//! One processor for what is measured, the others for who measures.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::job::Error;

/// This program, as a thread of which only the first lives.
const THIS: Pid = Pid::from_raw(0);

/// Where this program may run, in two parts.
pub(super) struct Processors {
    measured: CpuSet,
    rest: CpuSet,
}

impl Processors {
    /// Both parts are the same where there is only one.
    pub(super) fn divide() -> Result<Self, Error> {
        let all = sched_getaffinity(THIS).map_err(failed("ask for this program's processors"))?;
        let mut divided = Self {
            measured: all,
            rest: all,
        };
        let used: Vec<_> = (0..CpuSet::count())
            .filter(|processor| all.is_set(*processor) == Ok(true))
            .collect();
        if let [rest @ .., last] = used.as_slice()
            && !rest.is_empty()
        {
            let part = |processors: &[usize]| {
                let mut part = CpuSet::new();
                processors.iter().try_for_each(|processor| part.set(*processor))?;
                Ok(part)
            };
            divided.measured = part(&[*last]).map_err(failed("choose a processor"))?;
            divided.rest = part(rest).map_err(failed("choose processors"))?;
        }
        Ok(divided)
    }

    /// Does `start`, so that whatever processes it starts stay on the processor for what is measured.
    pub(super) fn start<T>(&self, start: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let go = |part| sched_setaffinity(THIS, part).map_err(failed("change processors"));
        go(&self.measured)?;
        let started = start();
        go(&self.rest)?;
        started
    }
}

fn failed(operation: &'static str) -> impl FnOnce(nix::Error) -> Error {
    move |error| Error::host(operation)(error.into())
}
