//! The page by which a guest says that it has booted, where it was asked for (Firecracker's `--boot-timer`).

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::bus::{BusDevice, Effect};

/// A page of registers, of which one does something: a guest that writes 123 to its first byte has its boot time logged,
/// once. The line is Firecracker's, which tools look for.
#[derive(Debug)]
pub struct BootTimer {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// It was begun then, and nothing was said yet.
    Running(Start),
    /// The guest has said it.
    Told,
}

#[derive(Debug, Clone, Copy)]
struct Start {
    time: Instant,
    /// What the process had used of the processors.
    processors: Duration,
}

impl BootTimer {
    /// Where Firecracker's guests look for it.
    pub const BASE: u64 = 0xd000_0000;
    /// A page.
    pub const LEN: u64 = 0x1000;

    const BOOTED: u8 = 123;

    /// A timer that begins now.
    pub fn begin() -> Self {
        Self {
            state: State::Running(Start {
                time: Instant::now(),
                processors: processors(),
            }),
        }
    }
}

/// Processor time of this process.
fn processors() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

impl BusDevice for BootTimer {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (State::Running(start), 0, &[Self::BOOTED]) = (self.state, offset, data) {
            self.state = State::Told;
            let time = start.time.elapsed();
            let processors = processors().saturating_sub(start.processors);
            log::info!(
                "Guest-boot-time = {:>6} us {} ms, {:>6} CPU us {} CPU ms",
                time.as_micros(),
                time.as_millis(),
                processors.as_micros(),
                processors.as_millis()
            );
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_it_counts_and_nothing_else_does() {
        let mut timer = BootTimer::begin();
        for (offset, data) in [(0, &[122][..]), (1, &[123]), (0, &[123, 0]), (0, &[])] {
            assert_eq!(timer.write(offset, data), Effect::None);
            assert!(matches!(timer.state, State::Running(_)));
        }
        let mut data = [7; 4];
        timer.read(0, &mut data);
        assert_eq!(data, [0; 4]);
        assert_eq!(timer.write(0, &[123]), Effect::None);
        assert!(matches!(timer.state, State::Told));
        assert_eq!(timer.write(0, &[123]), Effect::None);
    }
}
