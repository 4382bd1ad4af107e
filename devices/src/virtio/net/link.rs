//! The other end of the cable.

use std::os::fd::AsFd;
use std::{fmt, io};

/// The other end of the cable: each read gives one packet after its header, each write takes one.
pub trait Link: AsFd + Send + fmt::Debug {
    /// What packets may be like that are read from now on (TUN_F_*).
    fn set_offloads(&self, offloads: u32) -> io::Result<()>;
}
