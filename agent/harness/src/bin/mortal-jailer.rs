//! The jailer, which dies by SIGKILL after as many microseconds as the file `mortal` beside its base's parent says.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

fn main() -> ExitCode {
    if let Some(time) = time_to_live() {
        std::thread::spawn(move || {
            std::thread::sleep(time);
            let _ = kill(getpid(), Signal::SIGKILL);
        });
    }
    secovia_jailer::program::main()
}

fn time_to_live() -> Option<Duration> {
    let mut words = std::env::args().skip_while(|word| word != "--chroot-base-dir");
    let base = words.nth(1)?;
    let world = Path::new(&base).parent()?.parent()?;
    let text = std::fs::read_to_string(world.join("mortal")).ok()?;
    Some(Duration::from_micros(text.trim().parse().ok()?))
}
