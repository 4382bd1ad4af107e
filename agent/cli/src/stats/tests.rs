use super::*;

/// Figures of a microVM, for tests.
pub(crate) fn figures(id: &str, at_ms: u64, cpu_time_us: u64) -> VmStats {
    VmStats {
        id: id.into(),
        name: format!("vm-{id}"),
        at_ms,
        cpu_time_us,
        memory_bytes: 64 << 20,
        memory_limit_bytes: 256 << 20,
        read_bytes: cpu_time_us * 2,
        written_bytes: 0,
        uptime_s: 61,
    }
}

#[test]
fn a_share_is_time_over_time() {
    let usage = usage(Some(&figures("a", 1_000, 0)), &figures("a", 3_000, 1_000_000));
    assert_eq!(usage.cpu_percent, 50.0);
    assert_eq!(usage.read_bytes_per_s, 1_000_000);
    assert_eq!(usage.written_bytes_per_s, 0);
}

#[test]
fn without_a_first_look_or_after_a_restart_there_is_no_share() {
    for before in [None, Some(figures("a", 1_000, 5)), Some(figures("a", 2_000, 1))] {
        let usage = usage(before.as_ref(), &figures("a", 2_000, 4));
        assert_eq!(
            (usage.cpu_percent, usage.read_bytes_per_s),
            (0.0, 0),
            "{before:?}"
        );
    }
}

#[test]
fn looks_are_paired_by_identifier() {
    let usages = pair(
        &[figures("a", 0, 0), figures("b", 0, 0)],
        &[figures("b", 1_000, 100_000), figures("c", 1_000, 7)],
    );
    assert_eq!(usages.len(), 2);
    assert_eq!(usages[0].cpu_percent, 10.0);
    assert_eq!(usages[1].cpu_percent, 0.0);
    assert_eq!(
        listing(&usages[..1]),
        "NAME  CPU    MEMORY             READ/S   WRITTEN/S  UP\n\
         vm-b  10.0%  64 MiB of 256 MiB  195 KiB  0 B        61 s\n"
    );
}
