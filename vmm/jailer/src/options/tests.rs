use super::*;

fn os(text: &str) -> &OsStr {
    OsStr::new(text)
}

#[test]
fn an_id_is_as_firecracker_has_it() {
    let longest = "x".repeat(64);
    for good in ["a", "A-9", "-", "0", &longest] {
        assert_eq!(
            Id::parse(os(good)).map(|id| id.as_str().to_owned()),
            Ok(good.into())
        );
    }
    let long = "x".repeat(65);
    for bad in ["", "a_b", "a/b", "..", "a b", "a\n", "ä", "a\0", "a.b", &long] {
        assert!(Id::parse(os(bad)).is_err(), "{bad:?}");
    }
    assert!(Id::parse(OsStr::from_bytes(b"\xff")).is_err());
}

#[test]
fn no_byte_but_letters_digits_and_dashes_makes_an_id() {
    for byte in 0..=255u8 {
        let parsed = Id::parse(OsStr::from_bytes(&[b'a', byte]));
        assert_eq!(
            parsed.is_ok(),
            byte.is_ascii_alphanumeric() || byte == b'-',
            "{byte}"
        );
    }
}

#[test]
fn a_name_stays_in_its_folder() {
    for good in ["vm.json", "root.erofs", "a", "disk_1-x"] {
        assert!(Name::parse(os(good)).is_ok(), "{good}");
    }
    let long = "x".repeat(256);
    for bad in [
        "", ".", "..", ".hidden", "-rf", "a/b", "/a", "a b", "dev", "ä", "a\n", &long,
    ] {
        assert!(Name::parse(os(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_path_is_full() {
    for (text, path) in [("/", "/"), ("/a//b/", "/a/b"), ("/a/./b", "/a/b")] {
        assert_eq!(full_path(os(text)), Ok(path.into()), "{text}");
    }
    for bad in ["", "a", "./a", "/a/../b", "..", "/a\0b"] {
        assert!(full_path(os(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_user_is_never_root_and_never_none() {
    assert_eq!(own_id(os("1")), Ok(1));
    assert_eq!(own_id(os("4294967294")), Ok(u32::MAX - 1));
    for bad in [
        "0",
        "00",
        "-1",
        "+1",
        "4294967295",
        "4294967296",
        "18446744073709551617",
        "",
        "0x1",
        " 1",
        "root",
    ] {
        assert!(own_id(os(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_file_may_have_colons() {
    let read = |text| FileGrant::parse(os(text)).map(|f| (f.source, f.name.as_str().to_owned(), f.access));
    assert_eq!(read("/a:b"), Ok(("/a".into(), "b".into(), Access::Read)));
    assert_eq!(read("/a:b:rw"), Ok(("/a".into(), "b".into(), Access::Write)));
    assert_eq!(read("/a:b:c"), Ok(("/a:b".into(), "c".into(), Access::Read)));
    assert_eq!(read("/a:b:c:rw"), Ok(("/a:b".into(), "c".into(), Access::Write)));
    // `rw` is what may be done, never a name.
    for bad in [
        "",
        "/a",
        "/a:rw",
        "/a:",
        ":b",
        "a:b",
        "/a:b/c",
        "/a:..",
        "/a:b:rw:rw:rw/",
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_cgroup_setting_names_its_controller() {
    let read = |text| CgroupSetting::parse(os(text)).map(|s| (s.controller, s.file, s.value));
    let setting = |controller: Option<&str>, file: &str, value: &str| {
        Ok((controller.map(String::from), file.into(), value.into()))
    };
    assert_eq!(read("memory.max=1"), setting(Some("memory"), "memory.max", "1"));
    assert_eq!(
        read("io.max=8:0 rbps=1"),
        setting(Some("io"), "io.max", "8:0 rbps=1")
    );
    assert_eq!(
        read("hugetlb.2MB.max=0"),
        setting(Some("hugetlb"), "hugetlb.2MB.max", "0")
    );
    assert_eq!(read("cgroup.max.depth=0"), setting(None, "cgroup.max.depth", "0"));
    for bad in [
        "",
        "=",
        "memory.max",
        "memory.max=",
        "=1",
        "max=1",
        ".max=1",
        "memory.=1",
        "../x.y=1",
        "a/b.c=1",
        "memory.max=1\n2",
        "cgroup.procs=1",
        "cgroup.kill=1",
        "cgroup.freeze=1",
        "cgroup.subtree_control=+io",
        "a-b.c=1",
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_parent_cgroup_stays_below_the_mount() {
    assert_eq!(cgroup_path(os("a.slice/b/")), Ok("a.slice/b".into()));
    for bad in ["", "/", "/a", "..", "a/../b", "a/..", "a\nb", "./a"] {
        assert!(cgroup_path(os(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_limit_is_a_name_and_a_number() {
    for (name, limit) in Limit::NAMES {
        assert_eq!(Limit::parse(os(&format!("{name}=7"))), Ok((limit, 7)));
        assert_eq!(limit.name(), name);
    }
    for bad in [
        "",
        "fsize",
        "fsize=",
        "fsize=-1",
        "fsize=1k",
        "no_file=1",
        "=1",
        "cpu=1",
    ] {
        assert!(Limit::parse(os(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_kept_descriptor_is_no_standard_stream() {
    assert_eq!(descriptor(os("3")), Ok(3));
    for bad in ["0", "1", "2", "-1", "2147483648", "x", ""] {
        assert!(descriptor(os(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn an_argument_has_no_zero_byte() {
    assert_eq!(argument("--x=ä".into()), Ok("--x=ä".into()));
    assert!(argument("a\0b".into()).is_err());
}
