//! A network namespace with nothing but a tap in it, for one test.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// The tap's name.
pub const TAP: &str = "tap0";
/// The host's address, on the tap.
pub const HOST: &str = "10.77.0.1";
/// The guest's address, which it has to give itself.
pub const GUEST: &str = "10.77.0.2";

/// Runs `test` on a thread in a network namespace of its own, with the tap; what it starts is in there too.
pub fn with_tap(test: impl FnOnce() + Send + 'static) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        let address = format!("addr add {HOST}/24 dev {TAP}");
        for words in [
            "link set dev lo up",
            "tuntap add dev tap0 mode tap",
            &address,
            "link set dev tap0 up",
        ] {
            let status = Command::new("ip")
                .args(words.split(' '))
                .status()
                .expect("run ip");
            assert!(status.success(), "ip {words}");
        }
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}
