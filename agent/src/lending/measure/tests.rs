use super::*;

/// A host in a directory.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for name in ["proc", "slice", "state/vms/0000000000000001"] {
            fs::create_dir_all(host.dir.path().join(name)).unwrap();
        }
        host
    }

    fn set(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Busy ticks of the host, CPU time of the slice, kibibytes available, memory of the slice in all and as cache.
    fn show(&self, ticks: u64, slice_us: u64, available_kib: u64, slice: (u64, u64)) {
        self.set(
            "proc/stat",
            &format!("cpu  {ticks} 0 0 77777 5 0 0 0 0 0\ncpu0 1 1\n"),
        );
        self.set("slice/cpu.stat", &format!("usage_usec {slice_us}\nuser_usec 1\n"));
        self.set(
            "proc/meminfo",
            &format!("MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB\n"),
        );
        self.set("slice/memory.current", &format!("{}\n", slice.0));
        let half = slice.1 / 2;
        self.set(
            "slice/memory.stat",
            &format!("anon 5\nactive_file {half}\ninactive_file {half}\n"),
        );
    }

    fn meter(&self, with_slice: bool) -> Meter {
        let path = |name: &str| self.dir.path().join(name);
        Meter {
            proc: path("proc"),
            ..Meter::new(with_slice.then(|| path("slice")), &path("state/vms"))
        }
    }
}

#[test]
fn the_owners_use_is_all_use_less_ours() {
    let host = Host::new();
    let mut meter = host.meter(true);
    host.show(1_000, 3_000_000, 3 << 20, (300 << 20, 100 << 20));
    assert_eq!(
        meter.sample(10_000, &[]).unwrap(),
        None,
        "CPU time needs two looks"
    );
    // In 2 s the host was busy for 3 s of CPU time, of which 1 s was ours.
    host.show(1_300, 4_000_000, 3 << 20, (300 << 20, 100 << 20));
    let sample = meter.sample(12_000, &[]).unwrap().unwrap();
    assert_eq!((sample.owner.cpu, sample.elapsed_ms), (1_000, 2_000));
    assert_eq!(sample.owner.memory, (1 << 30) - (200 << 20));
    // A clock that stands still, or counters that went back, are no use.
    assert_eq!(meter.sample(12_000, &[]).unwrap(), None);
    host.show(10, 0, 5 << 20, (1, 0));
    assert_eq!(meter.sample(13_000, &[]).unwrap().unwrap().owner.cpu, 0);
}

#[test]
fn without_control_groups_processes_are_added_up() {
    let host = Host::new();
    let mut meter = host.meter(false);
    host.show(1_000, 0, 3 << 20, (0, 0));
    let ours = std::process::id();
    meter.sample(1_000, &[ours, u32::MAX >> 1]).unwrap();
    host.show(1_100, 0, 3 << 20, (0, 0));
    let sample = meter.sample(2_000, &[ours]).unwrap().unwrap();
    assert!(
        sample.owner.memory < 1 << 30,
        "this process is not the owner's: {sample:?}"
    );
    assert!(sample.owner.cpu <= 1_000, "{sample:?}");
}

#[test]
fn disks_of_vms_are_not_the_owners_use() {
    let host = Host::new();
    host.show(1, 1, 1, (1, 0));
    let mut meter = host.meter(true);
    meter.sample(1, &[]).unwrap();
    let before = meter.sample(2, &[]).unwrap().unwrap().owner.disk;
    host.set("state/vms/0000000000000001/disk.ext4", &"x".repeat(64 << 20));
    assert_eq!(meter.vm_disks(), 64 << 20);
    let after = meter.sample(3, &[]).unwrap().unwrap().owner.disk;
    // Others write to this file system too, but hardly as much.
    assert!(after < before + (48 << 20), "{before} {after}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let host = Host::new();
    let mut meter = host.meter(true);
    assert!(
        meter
            .sample(1, &[])
            .unwrap_err()
            .to_string()
            .contains("proc/stat")
    );
    host.show(1, 1, 1, (1, 0));
    host.set("proc/meminfo", "MemTotal: 5 kB\n");
    let error = meter.sample(1, &[]).unwrap_err().to_string();
    assert!(error.contains("meminfo: it has no `MemAvailable:`"), "{error}");
}

#[test]
fn this_host_can_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut meter = Meter::new(None, dir.path());
    let capacity = meter.capacity().unwrap();
    assert!(
        capacity.cpu >= 1_000 && capacity.memory > 1 << 27 && capacity.disk > 0,
        "{capacity}"
    );
    meter.sample(1, &[]).unwrap();
    let sample = meter.sample(1_000, &[]).unwrap().unwrap();
    assert!(
        sample.owner.memory > 0 && sample.owner.memory < capacity.memory,
        "{sample:?}"
    );
}
