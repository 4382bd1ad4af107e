//! A tap for the machine's network interface.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use rustix::process::geteuid;

use super::job::Error;

/// The tap's name.
pub(super) const TAP: &str = "tap0";

/// Makes the tap, in a network namespace of this program's own that goes when it does. `false` where only root could.
pub(super) fn make_tap(bench: &str) -> Result<bool, Error> {
    if !geteuid().is_root() {
        eprintln!(
            "secovia-bench: {bench}: no figures with a network interface, since only root can make a tap"
        );
        return Ok(false);
    }
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| Error::host("make a network namespace")(error.into()))?;
    let status = Command::new("ip")
        .args(["tuntap", "add", "dev", TAP, "mode", "tap"])
        .status()
        .map_err(Error::host("run ip"))?;
    match status.success() {
        true => Ok(true),
        false => Err(Error::Program {
            program: "ip".into(),
            reason: format!("{status} where a tap was asked for"),
        }),
    }
}
