//! System calls that no crate wraps safely.

use std::mem::MaybeUninit;

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

/// Now, as RFC 3339 has it, in UTC with milliseconds.
pub fn utc_now() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = now.as_secs() as libc::time_t;
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both addresses are valid; all zeroes is a valid `struct tm`, so that it may be read even if the call failed.
    let time = unsafe {
        libc::gmtime_r(&raw const seconds, time.as_mut_ptr());
        time.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.tm_year + 1900,
        time.tm_mon + 1,
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec,
        now.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_has_memory() {
        assert!(super::host_memory() > 64 << 20);
    }

    #[test]
    fn time_has_the_form_that_log_readers_expect() {
        let time = super::utc_now();
        assert_eq!(time.len(), "2026-01-02T03:04:05.678Z".len(), "{time}");
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T');
    }
}
