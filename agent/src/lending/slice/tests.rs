use super::*;
use crate::capacity::policy::{Measure, Schedule};

const HOST: Amounts = Amounts {
    cpu: 4_000,
    memory: 8 << 30,
    disk: 1 << 40,
};

/// A hierarchy as files.
fn hierarchy() -> (tempfile::TempDir, Slice) {
    let dir = tempfile::tempdir().unwrap();
    for group in ["secovia.slice", "system.slice", "user.slice", "bare.slice"] {
        fs::create_dir(dir.path().join(group)).unwrap();
    }
    fs::write(dir.path().join("cgroup.procs"), "").unwrap();
    fs::write(dir.path().join("system.slice/memory.low"), "0\n").unwrap();
    fs::write(dir.path().join("user.slice/memory.low"), "max\n").unwrap();
    fs::write(dir.path().join("secovia.slice/io.max"), "").unwrap();
    let slice = Slice::new(&dir.path().join("secovia.slice"), Some("8:0".into()));
    (dir, slice)
}

fn read(dir: &tempfile::TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap()
}

#[test]
fn the_owners_groups_are_all_others_and_keep_their_memory() {
    let (dir, mut slice) = hierarchy();
    let names: Vec<_> = slice
        .owners()
        .iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["bare.slice", "system.slice", "user.slice"]);
    let lending = Lending {
        reserve: Amounts {
            memory: 2 << 30,
            ..Amounts::NONE
        },
        cap: Amounts::UNLIMITED,
        schedule: Schedule::always(),
        measure: Measure {
            window_ms: 1,
            warm_up_ms: 1,
            margin_percent: 1,
        },
    };
    slice.protect(Some(&lending), HOST);
    assert_eq!(read(&dir, "secovia.slice/memory.max"), (6u64 << 30).to_string());
    assert_eq!(read(&dir, "system.slice/memory.low"), (2u64 << 30).to_string());
    assert_eq!(
        read(&dir, "user.slice/memory.low"),
        "max\n",
        "more was protected already"
    );
    slice.protect(None, HOST);
    assert_eq!(read(&dir, "secovia.slice/memory.max"), "max");
    assert_eq!(read(&dir, "system.slice/memory.low"), "0", "it was ours to lower");
}

#[test]
fn vms_get_the_share_of_the_cpus_that_is_said() {
    let (dir, slice) = hierarchy();
    for (share, idle, weight) in [
        (CpuShare::Least, "0", "1"),
        (CpuShare::Spare, "1", "1"),
        (CpuShare::Fair, "0", "100"),
        (CpuShare::First, "0", "10000"),
    ] {
        slice.share_cpu(share);
        assert_eq!(read(&dir, "secovia.slice/cpu.idle"), idle, "{share:?}");
        assert_eq!(read(&dir, "secovia.slice/cpu.weight"), weight, "{share:?}");
    }
}

#[test]
fn a_squeeze_is_taken_back_whole() {
    let (dir, slice) = hierarchy();
    assert!(slice.squeezes_io());
    slice.squeeze_io(true, 4096);
    assert_eq!(read(&dir, "secovia.slice/io.max"), "8:0 rbps=4096 wbps=4096");
    slice.squeeze_io(false, 4096);
    assert_eq!(read(&dir, "secovia.slice/io.max"), "8:0 rbps=max wbps=max");
    let without = Slice::new(&dir.path().join("user.slice"), Some("8:0".into()));
    assert!(!without.squeezes_io());
}
