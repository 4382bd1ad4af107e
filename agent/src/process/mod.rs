//! VMM processes as the host sees them: where their files lie, how one is started, known again, watched and ended.

mod cgroup;
mod identity;
mod launch;
mod place;
#[cfg(test)]
mod tests;
mod usage;
mod vmm;

pub use cgroup::{Cgroups, Limits};
pub use identity::{Found, find_by_pid_files, find_by_scan, is_vmm, take};
pub use launch::{LaunchError, launch};
pub use place::Place;
pub(crate) use place::{entries, make_private_dir};
pub use usage::Usage;
pub use vmm::{Ended, Vmm};
