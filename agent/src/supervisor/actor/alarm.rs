//! A time that a VM waits for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::clock::now_ms;

/// As good as never.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// It rings after as long as the time was away when it was set, whatever becomes of the wall clock meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alarm {
    at: Instant,
    /// Unix time in milliseconds.
    at_ms: u64,
}

impl Alarm {
    /// For this time (Unix time in milliseconds).
    pub(super) fn at(at_ms: u64) -> Self {
        let away = Duration::from_millis(at_ms.saturating_sub(now_ms()));
        Self {
            at: Instant::now() + away.min(NEVER),
            at_ms,
        }
    }

    /// Waits for it.
    pub(super) async fn rings(self) {
        sleep_until(self.at).await;
    }

    /// What time it is when it rings: its own at least. A wall clock that was set back shows less.
    pub(super) fn time_ms(self) -> u64 {
        now_ms().max(self.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As one whose time has come, by a wall clock that was set back by an hour since it was set.
    #[tokio::test]
    async fn its_time_has_come_when_it_rings_whatever_the_wall_clock_says() {
        let at_ms = now_ms() + 3_600_000;
        let alarm = Alarm {
            at: Instant::now() + Duration::from_millis(10),
            at_ms,
        };
        alarm.rings().await;
        assert_eq!(alarm.time_ms(), at_ms);
    }

    #[tokio::test]
    async fn a_time_that_is_over_rings_at_once_and_one_without_end_is_no_fault() {
        let begun = Instant::now();
        let alarm = Alarm::at(5);
        assert!(alarm.at <= Instant::now() && alarm.at >= begun);
        alarm.rings().await;
        assert!(alarm.time_ms() > 5);
        assert!(Alarm::at(u64::MAX).at > begun + NEVER / 2);
    }
}
