//! Whether what is asked for can be.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::statvfs::statvfs;
use secovia_agent_api::{ErrorCode, VmCreate};

use super::error::NodeError;

const CPUS_MAX: u8 = 32;
const CPU_MIN_MILLIS: u32 = 10;
const MEMORY_MIN_MIB: u64 = 64;
const DISK_MIN_MIB: u64 = 16;
const NAME_MAX: usize = 63;
const LABELS_MAX: usize = 64;
const LABELS_BYTES_MAX: usize = 4096;

/// Checks a request against what a VM may be and what the host has.
pub(super) fn create(create: &VmCreate, state_dir: &Path) -> Result<(), NodeError> {
    if let Some(name) = create.name.as_deref().filter(|name| !is_vm_name(name)) {
        return Err(bad(format!(
            "`name` is {name:?}; use 1 to {NAME_MAX} of a-z, 0-9 and `-`, no `-` at an end, not 16 hexadecimal digits"
        )));
    }
    if let Some(name) = create.hostname.as_deref().filter(|name| !is_host_name(name)) {
        return Err(bad(format!(
            "`hostname` is {name:?}; use 1 to {NAME_MAX} of a-z, 0-9 and `-`, no `-` at an end"
        )));
    }
    let label_bytes: usize = create
        .labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if create.labels.len() > LABELS_MAX || label_bytes > LABELS_BYTES_MAX {
        return Err(bad(format!(
            "`labels` are {} of {label_bytes} bytes; use at most {LABELS_MAX} of {LABELS_BYTES_MAX} bytes in all",
            create.labels.len()
        )));
    }
    if !(1..=CPUS_MAX).contains(&create.cpus) {
        return Err(bad(format!("`cpus` is {}; use 1 to {CPUS_MAX}", create.cpus)));
    }
    let cpu_most = u32::from(create.cpus) * 1_000;
    if let Some(millis) = create
        .cpu_millis
        .filter(|millis| !(CPU_MIN_MILLIS..=cpu_most).contains(millis))
    {
        return Err(bad(format!(
            "`cpu_millis` is {millis}; use {CPU_MIN_MILLIS} to {cpu_most}, a thousand for each of `cpus`"
        )));
    }
    if create.memory_mib < MEMORY_MIN_MIB {
        return Err(bad(format!(
            "`memory_mib` is {}; use at least {MEMORY_MIN_MIB}",
            create.memory_mib
        )));
    }
    if let Some(disk) = create.disk_mib.filter(|disk| *disk < DISK_MIN_MIB) {
        return Err(bad(format!("`disk_mib` is {disk}; use at least {DISK_MIN_MIB}")));
    }
    let entrypoint = create.entrypoint.as_deref().unwrap_or_default();
    if entrypoint
        .iter()
        .chain(&create.command)
        .next()
        .is_some_and(String::is_empty)
    {
        return Err(bad("`command` begins with an empty word; name a program".into()));
    }
    let words = entrypoint.iter().chain(&create.command);
    if words.chain(create.env.values()).any(|text| text.contains('\0')) {
        return Err(bad(
            "`entrypoint`, `command` or `env` has a zero byte; no program can get that".into(),
        ));
    }
    if let Some(key) = create
        .env
        .keys()
        .find(|key| key.is_empty() || key.contains(['=', '\0']))
    {
        return Err(bad(format!(
            "`env` has the key {key:?}; a key is not empty and has no `=` or zero byte"
        )));
    }
    if let Some(dir) = create.working_dir.as_deref().filter(|dir| !dir.starts_with('/')) {
        return Err(bad(format!("`working_dir` is {dir:?}; give an absolute path")));
    }
    host_has(create, state_dir)
}

fn host_has(create: &VmCreate, state_dir: &Path) -> Result<(), NodeError> {
    let cpus = thread::available_parallelism().map_or(usize::MAX, usize::from);
    if usize::from(create.cpus) > cpus {
        return Err(scarce(
            "cpu",
            format!("`cpus` is {}; the host has {cpus}", create.cpus),
        ));
    }
    if let Some(memory) = memory_mib().filter(|memory| create.memory_mib > *memory) {
        return Err(scarce(
            "memory",
            format!("`memory_mib` is {}; the host has {memory}", create.memory_mib),
        ));
    }
    let free = statvfs(state_dir).map(|fs| (fs.blocks_available() * fs.fragment_size()) >> 20);
    if let (Some(disk), Ok(free)) = (create.disk_mib, free)
        && disk > free
    {
        return Err(scarce(
            "disk",
            format!("`disk_mib` is {disk}; {} has {free} free", state_dir.display()),
        ));
    }
    Ok(())
}

fn memory_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// Names are host names, and never look like an identifier.
fn is_vm_name(name: &str) -> bool {
    let looks_like_id = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
    is_host_name(name) && !looks_like_id
}

pub(super) fn is_host_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A name for a VM that was given none: its image's, and a number.
pub(super) fn made_up_name(image: &str, number: u32) -> String {
    let stem: String = image
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(NAME_MAX - 7)
        .collect();
    let stem = stem.trim_matches('-');
    format!(
        "{}-{:06x}",
        if stem.is_empty() { "vm" } else { stem },
        number & 0xff_ffff
    )
}

fn bad(message: String) -> NodeError {
    NodeError::new(ErrorCode::BadRequest, message)
}

fn scarce(what: &'static str, message: String) -> NodeError {
    NodeError::scarce(vec![what], message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_guest_can_be_called_and_no_record_should_hold_is_refused() {
        type Change<'a> = dyn Fn(&mut VmCreate) + 'a;
        let dir = std::env::temp_dir();
        let refused = |change: &Change<'_>| {
            let mut asked = VmCreate::new("base");
            asked.memory_mib = MEMORY_MIN_MIB;
            change(&mut asked);
            create(&asked, &dir).err().map(|error| error.message)
        };
        assert_eq!(refused(&|_| ()), None);
        assert_eq!(
            refused(&|asked| asked.hostname = Some("0123456789abcdef".into())),
            None
        );
        assert_eq!(
            refused(&|asked| asked.labels = [("a".into(), "b".repeat(4_095))].into()),
            None
        );
        let entrypoint = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
        assert_eq!(refused(&|asked| asked.entrypoint = entrypoint(&["a", ""])), None);
        let wrong: [(&str, &Change<'_>); 5] = [
            ("`hostname`", &|asked| asked.hostname = Some("Web.local".into())),
            ("`labels`", &|asked| {
                asked.labels = [("a".into(), "b".repeat(4_096))].into()
            }),
            ("`labels`", &|asked| {
                asked.labels = (0..65).map(|n| (n.to_string(), String::new())).collect()
            }),
            ("empty word", &|asked| asked.entrypoint = entrypoint(&[""])),
            ("`entrypoint`", &|asked| asked.entrypoint = entrypoint(&["a\0"])),
        ];
        for (field, change) in wrong {
            let message = refused(change).unwrap_or_default();
            assert!(message.contains(field), "{field}: {message}");
        }
    }

    #[test]
    fn names_are_host_names_and_no_identifiers() {
        let long = "a".repeat(63);
        for name in ["a", "web-1", "0123456789abcdeg", "0123456789abcde", long.as_str()] {
            assert!(is_vm_name(name), "{name}");
        }
        let longer = "a".repeat(64);
        for name in [
            "",
            "-a",
            "a-",
            "a.b",
            "A",
            "a_b",
            "é",
            "0123456789abcdef",
            longer.as_str(),
        ] {
            assert!(!is_vm_name(name), "{name}");
        }
    }

    #[test]
    fn made_up_names_are_names() {
        for image in [
            "base",
            "debian-12.web_x",
            "..",
            "a",
            &"x".repeat(63),
            "1.",
            "0123456789",
        ] {
            for number in [0, 0xab_cdef, u32::MAX] {
                let name = made_up_name(image, number);
                assert!(is_vm_name(&name), "{image}: {name}");
            }
        }
        assert_eq!(made_up_name("web.v2", 0xff00_0001), "web-v2-000001");
    }
}
