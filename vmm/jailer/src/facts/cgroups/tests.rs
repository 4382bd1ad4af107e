use super::*;

const MIXED: &str = "\
21 26 0:20 / /proc rw,nosuid - proc proc rw
30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /here /sys/fs/cgroup/me\\040mory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";

#[test]
fn every_hierarchy_is_found_with_where_this_process_is() {
    let memberships = "9:memory:/here/sub\n4:cpu,cpuacct:/\n1:name=systemd:/x\n0::/a:b/c\n";
    let (unified, controllers) = hierarchies(MIXED, memberships);
    let hierarchy = |mount: &str, home: &str| Hierarchy {
        mount: mount.into(),
        home: home.into(),
    };
    assert_eq!(
        unified,
        Some(hierarchy(
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/unified/a:b/c"
        ))
    );
    let cpu = || hierarchy("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct");
    let memory = hierarchy("/sys/fs/cgroup/me mory", "/sys/fs/cgroup/me mory/sub");
    assert_eq!(
        controllers,
        BTreeMap::from([
            ("cpu".into(), cpu()),
            ("cpuacct".into(), cpu()),
            ("memory".into(), memory)
        ])
    );
}

#[test]
fn a_mount_that_shows_another_part_does_not_count() {
    let (unified, controllers) = hierarchies(MIXED, "9:memory:/elsewhere\n");
    assert_eq!((unified, controllers), (None, BTreeMap::new()));
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let (unified, controllers) = hierarchies("no such line\n1 2 3 - x\n\n", "nothing\n0::\n::\n");
    assert_eq!((unified, controllers), (None, BTreeMap::new()));
}
