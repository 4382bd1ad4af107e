//! What a network interface is, and why it cannot be one.

use std::io;

use crate::limiter::LimiterConfig;

/// A network interface's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Its name, for messages.
    pub id: String,
    /// The tap interface of the host, which must be there.
    pub tap: String,
    /// The guest's Ethernet address; where there is none, its driver makes one up.
    pub mac: Option<[u8; 6]>,
    /// The largest packet without Ethernet's header, that the driver is told; 68 or more.
    pub mtu: Option<u16>,
    /// Limits of what the guest receives.
    pub rx_limit: LimiterConfig,
    /// Limits of what the guest sends.
    pub tx_limit: LimiterConfig,
}

impl NetConfig {
    /// The host's file by which tap interfaces are used.
    pub const DRIVER: &str = "/dev/net/tun";
}

/// Why a network interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Nothing has that name.
    #[error(
        "tap {tap}: there is no such network interface; create it with `ip tuntap add dev {tap} mode tap user UID`"
    )]
    Missing {
        /// The tap's name.
        tap: String,
    },
    /// The host's tun driver is not to be had.
    #[error("open {driver} for tap {tap}: {source}", driver = NetConfig::DRIVER)]
    Driver {
        /// The tap's name.
        tap: String,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("tap {tap}: in use by another process; stop that machine or use another tap")]
    InUse {
        /// The tap's name.
        tap: String,
    },
    /// It belongs to another user.
    #[error("tap {tap}: not ours to use ({source}); give it to this user with `ip tuntap add ... user UID`")]
    Denied {
        /// The tap's name.
        tap: String,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "tap {tap}: not a tap interface with one queue ({source}); create one with `ip tuntap add ... mode tap`"
    )]
    Kind {
        /// The tap's name.
        tap: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused one of the settings.
    #[error("tap {tap}: {operation}: {source}")]
    SetUp {
        /// The tap's name.
        tap: String,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}
