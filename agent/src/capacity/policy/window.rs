//! Weekly windows: when may be lent, and how much then.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::quantity::DAY_MINUTES;
use crate::capacity::resources::{Amounts, Resource};

/// A part of the week, the same every week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins.
    pub days: Vec<Weekday>,
    /// When it begins, in minutes since midnight on the wall's clock.
    pub from: u16,
    /// When it ends; at or before `from` this is on the day after.
    pub to: u16,
    /// What may be lent in it at most.
    pub cap: Amounts,
}

/// When may be lent.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Whose wall clock the windows mean.
    pub zone: TimeZone,
    /// None at all means: always.
    pub windows: Vec<Window>,
}

impl Schedule {
    /// Lend at any time.
    pub fn always() -> Self {
        Self {
            zone: TimeZone::UTC,
            windows: Vec::new(),
        }
    }

    /// What may be lent at this moment (Unix time in milliseconds): without windows anything, outside of all windows
    /// nothing, inside of several the most that one of them allows.
    ///
    /// A window is compared with what the clock on the wall shows. In the night in which that clock is set forward or
    /// back, a window that holds the missing or the doubled hour is shorter or longer by it.
    pub fn cap(&self, now_ms: u64) -> Amounts {
        if self.windows.is_empty() {
            return Amounts::UNLIMITED;
        }
        let Some((day, minute)) = self.wall(now_ms) else {
            return Amounts::NONE;
        };
        self.windows
            .iter()
            .filter(|window| window.contains(day, minute))
            .fold(Amounts::NONE, |most, window| most.max(window.cap))
    }

    /// Whether the schedule wants everything back: nothing can run without CPU and memory.
    pub fn is_closed(&self, now_ms: u64) -> bool {
        let cap = self.cap(now_ms);
        [Resource::Cpu, Resource::Memory]
            .iter()
            .any(|resource| *cap.get(*resource) == 0)
    }

    fn wall(&self, now_ms: u64) -> Option<(Weekday, u16)> {
        let at = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let wall = self.zone.to_datetime(at);
        let minute = u16::try_from(i16::from(wall.hour()) * 60 + i16::from(wall.minute())).ok()?;
        Some((wall.weekday(), minute))
    }
}

impl Window {
    fn contains(&self, day: Weekday, minute: u16) -> bool {
        let today = self.days.contains(&day);
        if self.from < self.to {
            return today && (self.from..self.to).contains(&minute);
        }
        // It passes midnight: the evening of its day, and the morning after.
        let yesterday = self.days.contains(&day.previous());
        (today && (self.from..DAY_MINUTES).contains(&minute)) || (yesterday && minute < self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let at: Timestamp = text.parse().unwrap();
        at.as_millisecond() as u64
    }

    fn cap(cpu: u64) -> Amounts {
        Amounts {
            cpu,
            ..Amounts::UNLIMITED
        }
    }

    fn nights() -> Schedule {
        Schedule {
            zone: TimeZone::get("Europe/Rome").unwrap(),
            windows: vec![
                Window {
                    days: vec![Weekday::Monday, Weekday::Friday],
                    from: 18 * 60,
                    to: 7 * 60,
                    cap: cap(1_000),
                },
                Window {
                    days: vec![Weekday::Saturday],
                    from: 0,
                    to: DAY_MINUTES,
                    cap: cap(4_000),
                },
            ],
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let schedule = nights();
        // 2030-01-07 is a Monday; Rome is an hour ahead of UTC in winter.
        for (time, expected) in [
            ("2030-01-07T16:59:59Z", 0),
            ("2030-01-07T17:00:00Z", 1_000),
            ("2030-01-08T05:59:59Z", 1_000),
            ("2030-01-08T06:00:00Z", 0),
            ("2030-01-08T20:00:00Z", 0),
            // Friday's night and Saturday overlap: the most counts.
            ("2030-01-11T22:59:00Z", 1_000),
            ("2030-01-11T23:00:00Z", 4_000),
            ("2030-01-12T22:59:00Z", 4_000),
            ("2030-01-12T23:00:00Z", 0),
            // Two hours ahead in summer (2030-07-01 is a Monday).
            ("2030-07-01T16:00:00Z", 1_000),
            ("2030-07-02T05:00:00Z", 0),
        ] {
            assert_eq!(schedule.cap(at(time)).cpu, expected, "{time}");
            assert_eq!(schedule.is_closed(at(time)), expected == 0, "{time}");
        }
    }

    #[test]
    fn the_day_that_has_an_hour_less_follows_the_wall() {
        let schedule = Schedule {
            windows: vec![Window {
                days: vec![Weekday::Sunday],
                from: 60,
                to: 240,
                cap: cap(1),
            }],
            ..nights()
        };
        // 2030-03-31: 02:00 to 03:00 does not exist in Rome; 01:00 to 04:00 is two hours long.
        for (time, open) in [
            ("2030-03-30T23:59:00Z", false),
            ("2030-03-31T00:00:00Z", true),
            ("2030-03-31T01:59:00Z", true),
            ("2030-03-31T02:00:00Z", false),
        ] {
            assert_eq!(!schedule.is_closed(at(time)), open, "{time}");
        }
    }

    #[test]
    fn no_windows_mean_always_and_a_clock_gone_mad_means_never() {
        assert_eq!(Schedule::always().cap(0), Amounts::UNLIMITED);
        assert_eq!(Schedule::always().cap(u64::MAX), Amounts::UNLIMITED);
        assert_eq!(nights().cap(u64::MAX), Amounts::NONE);
    }
}
