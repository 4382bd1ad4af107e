//! A driver that means harm, for the tests and for the fuzzers.
//!
//! An episode brings a device up and then does a number of steps: accesses of registers at any width and in any order,
//! chains that are nearly right or not at all, rings that jump, resets in the middle, and events on the host's
//! side. After the episode a driver that behaves must find the device in working order.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the fuzzers, each of which uses its own device's part"
)]

pub mod arena;
pub mod balloon;
pub mod block;
pub mod chain;
pub mod driver;
pub mod mem;
pub mod net;
pub mod pci;
pub mod pmem;
pub mod rng;
pub mod source;
pub mod transport;
pub mod vsock;

use std::cell::RefCell;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use secovia_devices::GuestMemory;
use secovia_devices::limiter::{BucketConfig, LimiterConfig};
use secovia_devices::virtio::device::VirtioDevice;

use arena::Arena;
use chain::Descriptor;
use driver::Driver;
use source::Source;

/// A device under attack.
pub trait Target {
    /// A new device, and whatever it needs on the host.
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice>;

    /// A request for queue `queue` that the device could serve, its bytes in memory; where its descriptors lead
    /// may be spoiled afterwards.
    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, queue: u16) -> Vec<Descriptor>;

    /// The queue of `count` that the next request is for.
    fn queue(&mut self, source: &mut Source<'_>, count: usize) -> usize {
        source.below(count as u64) as usize
    }

    /// Something happens on the host's side; the event loop is called afterwards.
    fn host(&mut self, _source: &mut Source<'_>) {}

    /// The episode is over: the host's side stops what it was at.
    fn calm(&mut self) {}

    /// After an episode: a driver that behaves finds the device in working order. The driver has reset it.
    fn check(&mut self, driver: &mut Driver);
}

/// What came of a run; the tests look at it, lest they knock at a door that never opens.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Steps of the driver's.
    pub steps: u64,
    /// Notifications that reached the device.
    pub notifications: u64,
    /// Requests that the device answered.
    pub answered: u64,
    /// How often the device asked for a reset.
    pub needs_reset: u64,
    /// Accesses that the transport ignored.
    pub ignored: u64,
}

/// The limits of a device: none, or such as often hold it up for a moment.
pub fn limits(source: &mut Source<'_>) -> LimiterConfig {
    let mut bucket = |size: u64| {
        source.one_in(4).then(|| BucketConfig {
            size,
            one_time_burst: source.below(2) * size,
            refill_time: 1,
        })
    };
    LimiterConfig {
        bandwidth: bucket(100_000),
        operations: bucket(100),
    }
}

/// One episode: up to `steps` steps, or until the source is empty.
pub fn episode(target: &mut dyn Target, arena: &Arena, source: &mut Source<'_>, steps: u64) -> Totals {
    let mut driver = Driver::new(target.open(source), arena.clear());
    driver.set_temper(source);
    driver.bring_up(source, true);
    let mut totals = Totals::default();
    while totals.steps < steps && !source.is_empty() {
        driver.step(target, source);
        totals.steps += 1;
    }
    let counters = driver.counters();
    totals.notifications = counters.notifications;
    totals.needs_reset = counters.needs_reset;
    totals.ignored = counters.ignored;
    totals.answered = driver.answered();
    target.calm();
    driver.recover();
    target.check(&mut driver);
    arena.check();
    totals
}

/// One episode from a fuzzer's bytes. What the host lends is made once: a fuzzer calls this thousands of times a second.
pub fn fuzz<T: Target + 'static>(data: &[u8], make: impl FnOnce() -> T) {
    thread_local! {
        static WORLD: RefCell<Option<(Box<dyn Target>, Arena)>> = const { RefCell::new(None) };
    }
    WORLD.with_borrow_mut(|world| {
        let (target, arena) = world.get_or_insert_with(|| (Box::new(make()), Arena::new()));
        episode(target.as_mut(), arena, &mut Source::Bytes(data), u64::MAX);
    });
}

/// Steps of one episode in the tests.
const EPISODE: u64 = 4000;

/// The operations that each device must stand.
const OPERATIONS: u64 = 1_000_000;

/// Says how to repeat an episode that fails.
struct Told(&'static str, u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&format!(
                "hostile driver of {}: the failing episode again: HOSTILE_SEED={} HOSTILE_EPISODES=1",
                self.0, self.1
            ));
        }
    }
}

/// Writes past the test harness, which would lose the line if the process ends.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Calls `episode` with a source and a number of steps until a million operations are done, from a seed:
/// `HOSTILE_SEED`, or one that is new each time. `HOSTILE_EPISODES` limits how many episodes are run, to repeat one.
pub fn each_episode(name: &'static str, mut episode: impl FnMut(&mut Source<'_>, u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let base = number("HOSTILE_SEED").unwrap_or_else(fresh_seed);
    let episodes = number("HOSTILE_EPISODES").unwrap_or(OPERATIONS.div_ceil(EPISODE));
    tell(&format!(
        "hostile driver of {name}: HOSTILE_SEED={base}, {episodes} episodes of {EPISODE} operations"
    ));
    for seed in (0..episodes).map(|index| base.wrapping_add(index)) {
        let _told = Told(name, seed);
        episode(&mut Source::Seed(seed), EPISODE);
    }
}

/// All episodes against one device.
pub fn attack(name: &'static str, target: &mut dyn Target) -> Totals {
    let arena = Arena::new();
    let mut totals = Totals::default();
    each_episode(name, |source, steps| {
        let one = episode(target, &arena, source, steps);
        totals.steps += one.steps;
        totals.notifications += one.notifications;
        totals.answered += one.answered;
        totals.needs_reset += one.needs_reset;
        totals.ignored += one.ignored;
    });
    tell(&format!("hostile driver of {name}: {totals:?}"));
    totals
}

fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Short enough to be typed.
    since.map_or(1, |since| since.as_millis() as u64 % 1_000_000_000)
}

/// A directory of this process's own, gone with the value.
pub struct Directory(std::path::PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("secovia-hostile-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
