//! The guest's PID 1: prepares the machine, then serves the host until it powers the machine off.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod boot;
mod console;
mod power;
mod rooms;

use std::error::Error;
use std::time::Duration;

use console::say;
use nix::time::{ClockId, clock_gettime};
use secovia_guest_protocol::PORT;
use secovia_init::children::Reaping;
use secovia_init::listen::VsockListener;
use secovia_init::server::Server;

fn main() {
    let started_after = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    if std::process::id() != 1 {
        say("this is the PID 1 of a guest and does nothing elsewhere");
        std::process::exit(2);
    }
    // Should PID 1 return, the kernel would panic: the reason is told and the machine goes off in good order.
    if let Err(error) = run(started_after) {
        say(error);
    }
    power::off(None);
}

fn run(started_after: Duration) -> Result<(), Box<dyn Error>> {
    // Before there is a second thread, because threads inherit what is blocked.
    let signals = power::Signals::block()?;
    // What the kernel finds on its command line and has no use for, the first process has in its environment.
    let for_containers = std::env::var_os("secovia_pod").is_some();
    let roots = match for_containers {
        true => boot::stay()?,
        false => boot::enter_image()?,
    };
    for trouble in boot::furnish() {
        say(trouble);
    }
    let server = Server::new(
        power::Guest::new(started_after, roots, for_containers),
        Reaping::All,
    )?;
    signals.watch(server.clone())?;
    let listener = VsockListener::bind(PORT).map_err(|e| format!("listening on vsock port {PORT}: {e}"))?;
    Err(format!("accepting on vsock port {PORT}: {}", server.serve(&listener)).into())
}
