//! System calls that no crate wraps safely, and the time as the log has it.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Keeps the allocator to one heap for all threads. vCPUs allocate next to nothing, and a heap of their own would cost
/// each of them four system calls and some pages.
pub fn one_heap() {
    // SAFETY: sets a number in the allocator. A refusal (0) changes nothing.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// The host's memory in bytes.
pub fn host_memory() -> u64 {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: `info` is a writable `struct sysinfo`; all zeroes is a valid value of it, so that it may be read even if
    // the call failed, which it cannot with a valid address.
    let info = unsafe {
        libc::sysinfo(info.as_mut_ptr());
        info.assume_init()
    };
    info.totalram * u64::from(info.mem_unit)
}

/// Ends the process at once: nothing is dropped, flushed or told. For signal handlers.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: takes a number and does not come back.
    unsafe { libc::_exit(status.into()) }
}

/// Writes what `fd` takes of `bytes` by one call, without a lock. For signal handlers.
pub fn write_raw(fd: BorrowedFd<'_>, bytes: &[u8]) {
    // SAFETY: `bytes` is readable for its length. There is nobody to tell of an error.
    unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
}

/// A time as RFC 3339 has it, in UTC with milliseconds. Written without memory or locks, so that a signal handler can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcTime(Duration);

impl UtcTime {
    /// Milliseconds since the beginning of 1970.
    pub fn milliseconds(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Now.
pub fn utc_now() -> UtcTime {
    UtcTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
            self.0.subsec_millis()
        )
    }
}

/// The date so many days after 1 January 1970, in the Gregorian calendar.
///
/// Years are counted from 1 March, so that a leap day is the last of its year; 400 of them have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    /// From 1 March of the year 0 to the beginning of 1970.
    const TO_1970: u64 = 719_468;
    const ERA: u64 = 146_097;
    let days = days + TO_1970;
    let day_of_era = days % ERA;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in five.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (days / ERA * 400 + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{UtcTime, date, utc_now};

    #[test]
    fn the_host_has_memory() {
        assert!(super::host_memory() > 64 << 20);
    }

    #[test]
    fn time_has_the_form_that_log_readers_expect() {
        let time = utc_now().to_string();
        assert_eq!(time.len(), "2026-01-02T03:04:05.678Z".len(), "{time}");
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T');
        let time = UtcTime(Duration::from_millis(1_709_210_096_007));
        assert_eq!(time.to_string(), "2024-02-29T12:34:56.007Z");
    }

    #[test]
    fn the_calendar_has_every_day_once_and_in_order() {
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut day = 0;
        for year in 1970..2500 {
            let february = if leap(year) { 29 } else { 28 };
            for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for expected in 1..=length {
                    assert_eq!(date(day), (year, month, expected));
                    day += 1;
                }
            }
        }
    }
}
