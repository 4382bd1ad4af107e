//! Why there is no plan.

/// Why there is no plan: the host has not what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A device is not there.
    #[error("/dev/{0}: not on this host; load the kernel module that provides it, or do without")]
    NoDevice(&'static str),
    /// There are no cgroups of this version.
    #[error(
        "--cgroup-version 2: no cgroup2 file system is mounted; mount one on /sys/fs/cgroup, or give --cgroup-version 1"
    )]
    NoUnified,
    /// A controller has no hierarchy.
    #[error(
        "--cgroup {0}: no hierarchy of version 1 has its controller; mount one, or give --cgroup-version 2 where the host has that"
    )]
    NoController(String),
    /// In version 1 a controller's files say which hierarchies are meant.
    #[error(
        "--parent-cgroup: with cgroups of version 1 it means nothing without --cgroup; give both or none"
    )]
    NothingToSet,
}
