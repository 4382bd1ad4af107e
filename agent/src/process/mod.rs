//! VMM processes as the host sees them: where their files lie, how one is started in its jail, known again, watched and
//! ended.

mod cgroup;
mod identity;
mod launch;
mod place;
#[cfg(test)]
mod tests;
mod usage;
mod vmm;

pub use cgroup::{CgroupError, Cgroups, IoLimits, Limits};
pub(crate) use cgroup::{OVERHEAD_BYTES, whole_disk};
pub use identity::{Found, find, is_vmm, settle, take};
pub use launch::{JailFile, LaunchError, Launcher, Machine};
pub use place::{DISK, Dirs, Place, SOCKET};
pub(crate) use place::{entries, make_private_dir};
pub use usage::Usage;
pub use vmm::{Ended, Vmm};
