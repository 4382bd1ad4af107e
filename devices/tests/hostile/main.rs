//! A hostile driver against each device and the transport: a million operations each, from a seed that is printed.
//!
//! `HOSTILE_SEED=n` starts from another seed, `HOSTILE_EPISODES=1` runs the first episode alone.
//! The same driver, led by a fuzzer instead of a seed, is in `devices/fuzz`.

mod harness;
mod registers;

use secovia_devices::virtio::block::Engine;

use harness::{Target, Totals, attack};

/// Runs the attack, and sees to it that the driver got through to the device and that the device fought back.
fn run(name: &'static str, target: &mut dyn Target) -> Totals {
    let totals = attack(name, target);
    if totals.steps >= 1_000_000 {
        assert!(totals.notifications > 200_000, "{totals:?}");
        assert!(totals.answered > 50_000, "{totals:?}");
        assert!(totals.needs_reset > 10_000, "{totals:?}");
        assert!(totals.ignored > 10_000, "{totals:?}");
    }
    totals
}

#[test]
fn transport() {
    run("transport", &mut harness::transport::TransportTarget::new());
}

#[test]
fn block() {
    run("block", &mut harness::block::BlockTarget::new(Engine::Sync));
}

#[test]
fn block_async() {
    run(
        "block_async",
        &mut harness::block::BlockTarget::new(Engine::Async),
    );
}

#[test]
fn rng() {
    run("rng", &mut harness::rng::RngTarget);
}

#[test]
fn balloon() {
    run("balloon", &mut harness::balloon::BalloonTarget::default());
}

#[test]
fn mem() {
    run("mem", &mut harness::mem::MemTarget::default());
}

#[test]
fn net() {
    let mut target = harness::net::NetTarget::default();
    let totals = run("net", &mut target);
    let (received, offloaded) = (target.received, target.offloaded);
    eprintln!("{received} packets from the guest, {offloaded} of them with work left to the host");
    if totals.steps >= 1_000_000 {
        assert!(received > 20_000 && offloaded > 2_000);
    }
}

/// The bus is what is under attack, and so are its functions' registers; messages are what comes out of it.
#[test]
fn pci() {
    let arena = harness::arena::Arena::new();
    let mut totals = Totals::default();
    harness::each_episode("pci", |source, steps| {
        let one = harness::pci::episode(arena.clear(), source, steps);
        arena.check();
        totals.steps += one.steps;
        totals.notifications += one.notifications;
        totals.needs_reset += one.needs_reset;
        totals.ignored += one.ignored;
        totals.answered += one.answered;
    });
    eprintln!("{totals:?}; answered are messages");
    if totals.steps >= 1_000_000 {
        assert!(
            totals.notifications > 10_000 && totals.answered > 10_000,
            "{totals:?}"
        );
        assert!(totals.needs_reset > 1000 && totals.ignored > 10_000, "{totals:?}");
    }
}

#[test]
fn pmem() {
    run("pmem", &mut harness::pmem::PmemTarget::new());
}

#[test]
fn vsock() {
    let mut target = harness::vsock::VsockTarget::new();
    let totals = run("vsock", &mut target);
    let (accepted, greeted, received) = (target.accepted, target.greeted, target.received);
    eprintln!("{accepted} streams from the guest, {greeted} to it, {received} bytes");
    if totals.steps >= 1_000_000 {
        assert!(accepted > 1000 && greeted > 1000 && received > 1_000_000);
    }
}
