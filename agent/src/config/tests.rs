use std::os::unix::fs::symlink;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("agent.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let shipped = include_str!("../../agent.toml");
    assert_eq!(parse(shipped).unwrap(), parse("").unwrap());
    for line in shipped.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.is_empty()
                || line.contains(" = ")
                || ["[restart]", "[images]", "[measure]", "[reclaim]"].contains(&line),
            "{line}"
        );
    }
    let keys = shipped
        .lines()
        .filter(|line| !line.starts_with("# ") && line.contains(" = "))
        .count();
    assert_eq!(
        keys, 52,
        "a key was added or removed: the shipped file lists every one"
    );
    let room = SOCKET_PATH_MAX - "secovia-vmm".len();
    assert!(shipped.contains(&format!("At most {room} characters")), "{room}");
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_a_remedy() {
    let long = format!("runtime_dir = \"/{}\"", "x".repeat(90));
    let table = [
        (
            "state_dir = \"/a\"\n\nsate_dir = \"/b\"",
            "line 3: unknown field `sate_dir`",
        ),
        (
            "log_max_bytes = \"many\"",
            "line 1: invalid type: string \"many\"",
        ),
        ("a = [", "line 1"),
        ("state_dir = \"/a\"\nstate_dir = \"/b\"", "line 2"),
        (
            "vmm = \"secovia-vmm\"",
            "`vmm` is `secovia-vmm`; give an absolute path",
        ),
        (&long, "`runtime_dir` is 91 bytes long"),
        ("runtime_dir = \"/var/lib/secovia\"", "use two directories"),
        (
            "log_level = \"loud\"",
            "use off, error, warn, info, debug or trace",
        ),
        (
            "vm_uids = { first = 5, count = 9 }",
            "`vm_uids` is 5 and the 9 ids",
        ),
        ("vm_uids = { first = 5 }", "missing field `count`"),
        ("log_max_bytes = 1", "at least 4096"),
        ("boot_timeout_s = 0", "use 1 to 86400"),
        ("[restart]\nfirst_delay_ms = 0", "`restart.first_delay_ms` is 0"),
        (
            "[restart]\nfirst_delay = 1",
            "line 2: unknown field `first_delay`",
        ),
    ];
    for (text, expected) in table {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.starts_with("configuration agent.toml"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn files_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = format!(
        "vmm = {:?}\njailer = {:?}\nkernel = {:?}\ninitrd = {:?}",
        at("vmm"),
        at("jailer"),
        at("kernel"),
        at("initrd")
    );
    let config = parse(&text).unwrap();
    let check = || {
        config
            .check_files(Path::new("agent.toml"))
            .map_err(|error| error.to_string())
    };
    assert!(check().unwrap_err().contains("`vmm` names"));
    fs::write(at("vmm"), "").unwrap();
    assert!(check().unwrap_err().contains("not executable"));
    let mode = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("vmm", 0o700);
    assert!(check().unwrap_err().contains("not executable for all"));
    mode("vmm", 0o755);
    symlink(at("vmm"), at("jailer")).unwrap();
    assert!(check().unwrap_err().contains("a symbolic link"));
    fs::remove_file(at("jailer")).unwrap();
    fs::hard_link(at("vmm"), at("jailer")).unwrap();
    fs::create_dir(at("kernel")).unwrap();
    assert!(check().unwrap_err().contains("not a regular file"));
    fs::remove_dir(at("kernel")).unwrap();
    fs::write(at("kernel"), "").unwrap();
    fs::write(at("the-initrd"), "").unwrap();
    symlink(at("the-initrd"), at("initrd")).unwrap();
    mode("kernel", 0o600);
    assert!(check().unwrap_err().contains("not all may read"));
    mode("kernel", 0o644);
    mode("the-initrd", 0o644);
    check().unwrap();
}

/// What the shipped file offers as an example, switched on by taking `#` away, is right.
#[test]
fn the_shipped_files_examples_are_right() {
    let shipped = include_str!("../../agent.toml");
    let example: String = shipped
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let example = parse(&example).unwrap();
    let defaults = crate::network::NetworkSpec::default().check().unwrap();
    assert_eq!(example.network, Some(defaults), "the examples are the defaults");
    let policy = example.policy;
    let lending = policy.lending.unwrap();
    assert_eq!((lending.reserve.cpu, lending.reserve.memory), (1_000, 2 << 30));
    assert_eq!(lending.schedule.windows.len(), 2);
    assert_eq!(policy.labels.country.as_deref(), Some("IT"));
    assert!(
        parse("").unwrap().policy.lending.is_none(),
        "nothing is lent unasked"
    );
    assert_eq!(parse("").unwrap().network, None, "nobody gets a network unasked");
}
