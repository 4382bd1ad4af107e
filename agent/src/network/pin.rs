//! The way to the host's network for an agent that has none itself.
//!
//! As a service the agent, the jailers that it starts and all that they start are in a network namespace with nothing in it
//! (`PrivateNetwork=`). Only the threads that make links and rules enter the host's, by a file that the unit's first command
//! pins to it, with rights that the agent has not: to look at process 1.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The file's name in `runtime_dir`.
pub const HOST_NETWORK: &str = "host.net";

/// The host's network namespace is that of its first process.
const FIRST_PROCESS: &str = "/proc/1/ns/net";

/// Pins the host's network namespace to its file in `runtime_dir`.
pub fn pin_host(runtime_dir: &Path) -> io::Result<()> {
    let path = runtime_dir.join(HOST_NETWORK);
    fs::create_dir_all(runtime_dir)?;
    // An earlier start's; nothing is mounted there at the first.
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    File::create(&path)?;
    let plain = None::<&str>;
    Ok(mount(Some(FIRST_PROCESS), &path, plain, MsFlags::MS_BIND, plain)?)
}
