//! Network interfaces for a test, where nobody else sees them.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::{kvm, skip};

/// Runs `test` in a network namespace of its own with `count` taps and nothing else in it: `tap0` is 10.77.0.1, with the
/// guest's 10.77.0.2 behind it, `tap1` is 10.77.1.1, and so on.
pub(crate) fn with_taps(count: usize, test: impl FnOnce() + Send + 'static) {
    if !kvm() {
        return;
    }
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let run = move || match set_up(count) {
        Ok(()) => test(),
        Err(reason) => skip(&reason),
    };
    let thread = std::thread::Builder::new().name(name).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn set_up(count: usize) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace of its own: {error}"))?;
    for number in 0..count {
        for words in [
            "tuntap add dev tapN mode tap",
            "addr add 10.77.N.1/24 dev tapN",
            "link set dev tapN addrgenmode none",
            "link set dev tapN up",
            "neigh replace 10.77.N.2 lladdr 06:00:00:00:0N:02 dev tapN",
        ] {
            let words = words.replace('N', &number.to_string());
            let status = Command::new("ip").args(words.split(' ')).status();
            if !status.is_ok_and(|status| status.success()) {
                return Err(format!("ip {words} fails"));
            }
        }
    }
    Ok(())
}
