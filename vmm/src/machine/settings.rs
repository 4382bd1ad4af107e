//! How a machine is run, which its configuration does not say.

use std::time::Duration;

use crate::mmds::SharedMmds;

/// How a machine is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the guest gets to power off after SIGTERM.
    pub grace: Duration,
    /// What a file that the console goes to holds of what the guest writes, in bytes.
    pub console_limit: Option<u64>,
    /// Whether the guest can say that it has booted.
    pub boot_timer: bool,
    /// Whether devices are on a PCI bus.
    pub pci: bool,
    /// What the guest can be told.
    pub mmds: SharedMmds,
}
