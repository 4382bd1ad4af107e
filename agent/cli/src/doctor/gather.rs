//! Looks at the host. No judgement here: `checks` has it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::statvfs;
use secovia_agent_api::client::{Client, ClientError};
use serde::Deserialize;

use tokio::process::Command;
use tokio::time::timeout;

use super::facts::{
    Access, Config, Dir, Facts, FileState, Forwarding, NamedFile, NoAnswer, Probe, Socket, Tool, UserRange,
    Weakness,
};
use super::paths::{Paths, Uids};

/// How long the probe guest may take.
const PROBE: Duration = Duration::from_secs(20);

/// Where programs of the system are, also for a user whose PATH leaves the last two out.
const TOOL_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Looks at all of it.
pub(super) async fn gather(client: &Client, config_path: &Path) -> Facts {
    let (config, paths) = config(config_path);
    Facts {
        root: rustix::process::geteuid().is_root(),
        config,
        kvm: open("/dev/kvm"),
        cpu_flag: cpu_flag(),
        probe: probe(&paths.vmm).await,
        cgroup_controllers: cgroup_controllers(),
        tun: open("/dev/net/tun"),
        tools: tools(paths.network.is_some()),
        files: [
            file("vmm", &paths.vmm, true),
            file("jailer", &paths.jailer, true),
            file("kernel", &paths.kernel, false),
            file("initrd", &paths.initrd, false),
        ],
        state_dir: dir(&paths.state_dir),
        socket: socket(client).await,
        memory: memory(),
        ksm: flag("/sys/kernel/mm/ksm/run"),
        smt: flag("/sys/devices/system/cpu/smt/active"),
        core_scheduling: paths.core_scheduling,
        weaknesses: weaknesses(Path::new("/sys/devices/system/cpu/vulnerabilities")),
        users: users(paths.vm_uids),
        forwarding: paths.network.map(|_| Forwarding {
            v4: flag("/proc/sys/net/ipv4/ip_forward"),
            v6: flag("/proc/sys/net/ipv6/conf/all/forwarding"),
        }),
    }
}

fn tools(network: bool) -> Vec<Tool> {
    let mut tools = vec![tool("mkfs.ext4", "formats the disk of `run --disk`", "e2fsprogs")];
    if network {
        tools.push(tool(
            "nft",
            "puts the rules of the microVMs' network in force",
            "nftables",
        ));
    }
    tools
}

fn weaknesses(dir: &Path) -> Vec<Weakness> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut weaknesses: Vec<Weakness> = entries
        .filter_map(|entry| {
            Some(Weakness {
                name: entry.file_name().into_string().ok()?,
                state: fs::read_to_string(entry.path()).ok()?.trim().to_string(),
            })
        })
        .collect();
    weaknesses.sort_by(|one, other| one.name.cmp(&other.name));
    weaknesses
}

fn users(range: Uids) -> UserRange {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    UserRange {
        first: range.first,
        count: range.count,
        taken: others_in(range, &read("/etc/passwd"), &read("/etc/subuid")),
    }
}

/// Who has ids of the range: users (passwd(5)), and those to whom ids were given for containers (subuid(5)).
fn others_in(range: Uids, passwd: &str, subuid: &str) -> Vec<String> {
    let ours = u64::from(range.first)..u64::from(range.first) + u64::from(range.count);
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?.parse::<u64>().ok()?);
        ours.contains(&uid).then(|| format!("user {name} ({uid})"))
    });
    let given = subuid.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (first, count): (u64, u64) = (first.parse().ok()?, count.trim().parse().ok()?);
        let last = first.checked_add(count)?;
        (first < ours.end && ours.start < last).then(|| format!("containers of {name} ({first} on)"))
    });
    users.chain(given).collect()
}

fn config(path: &Path) -> (Config, Paths) {
    match fs::read_to_string(path) {
        Ok(text) => match Paths::parse(&text) {
            Ok(paths) => (Config::Read(path.into()), paths),
            Err(reason) => (Config::Bad(path.into(), reason), Paths::default()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (Config::Absent(path.into()), Paths::default())
        }
        Err(error) => (Config::Bad(path.into(), error.to_string()), Paths::default()),
    }
}

fn open(path: &str) -> Access {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Access::Opened,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Access::Missing,
            io::ErrorKind::PermissionDenied => Access::Denied,
            _ => Access::Failed(error.to_string()),
        },
    }
}

fn cpu_flag() -> Option<&'static str> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    ["vmx", "svm"]
        .into_iter()
        .find(|flag| flags.split_whitespace().any(|word| word == *flag))
}

/// What `secovia-vmm --probe` prints.
#[derive(Debug, Deserialize)]
struct ProbeAnswer {
    missing: Vec<String>,
    instructions_per_second: u64,
    exits_per_second: u64,
    hardware_speed: bool,
}

impl ProbeAnswer {
    fn judged(self) -> Probe {
        if !self.missing.is_empty() {
            return Probe::Failed(format!("this KVM lacks {}", self.missing.join(", ")));
        }
        Probe::Ran {
            hardware_speed: self.hardware_speed,
            figures: format!(
                "{:.1} million instructions and {} exits a second",
                self.instructions_per_second as f64 / 1e6,
                self.exits_per_second
            ),
        }
    }
}

/// Runs the probe guest. It takes milliseconds; a KVM that never comes back must not hold the person.
async fn probe(vmm: &Path) -> Probe {
    let output = Command::new(vmm)
        .arg("--probe")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match timeout(PROBE, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Probe::NoVmm,
        Ok(Err(error)) => return Probe::Failed(format!("run {}: {error}", vmm.display())),
        Err(_) => return Probe::Failed(format!("it did not end within {} s", PROBE.as_secs())),
    };
    match serde_json::from_slice::<ProbeAnswer>(&output.stdout) {
        Ok(answer) => answer.judged(),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().replace('\n', "; ");
            Probe::Failed(if said.is_empty() {
                output.status.to_string()
            } else {
                said
            })
        }
    }
}

fn cgroup_controllers() -> Option<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let root = cgroup2_root(&mounts)?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    Some(controllers.split_whitespace().map(str::to_string).collect())
}

/// The mount point of the cgroup v2 tree: fifth field; the type comes after a lone dash.
fn cgroup2_root(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        (source.split(' ').next() == Some("cgroup2"))
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))
            .flatten()
    })
}

fn tool(name: &'static str, purpose: &'static str, package: &'static str) -> Tool {
    let found = TOOL_DIRS.iter().any(|dir| Path::new(dir).join(name).is_file());
    Tool {
        name,
        purpose,
        package,
        found,
    }
}

fn file(key: &'static str, path: &Path, executable: bool) -> NamedFile {
    let state = match fs::metadata(path) {
        Err(error) => FileState::Unreadable(error.to_string()),
        Ok(metadata) if !metadata.is_file() => FileState::NotAFile,
        Ok(_) if executable && path.is_symlink() => FileState::ALink,
        Ok(metadata) if executable && metadata.permissions().mode() & 0o001 == 0 => FileState::NotExecutable,
        Ok(metadata) if !executable && metadata.permissions().mode() & 0o004 == 0 => FileState::NotReadable,
        Ok(_) => FileState::Good,
    };
    NamedFile {
        key,
        path: path.into(),
        state,
    }
}

fn dir(path: &Path) -> Dir {
    let existing = path.ancestors().find(|ancestor| ancestor.is_dir());
    Dir {
        path: path.into(),
        mode: fs::metadata(path)
            .ok()
            .map(|metadata| metadata.permissions().mode()),
        free: existing
            .and_then(|dir| File::open(dir).ok())
            .and_then(|dir| rustix::fs::fstatvfs(dir).ok())
            .or_else(|| existing.and_then(|dir| statvfs(dir).ok()))
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
    }
}

async fn socket(client: &Client) -> Socket {
    let answer = match client.version().await {
        Ok(version) => client.health().await.map(|health| (version.version, health)),
        Err(error) => Err(error),
    };
    Socket {
        path: client.socket().into(),
        mode: fs::metadata(client.socket()).ok().map(|metadata| metadata.permissions().mode()),
        answer: answer.map_err(|error| NoAnswer {
            denied: matches!(&error, ClientError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied),
            // The remedy is the check's to say.
            message: match &error {
                ClientError::Connect { source, .. } => source.to_string(),
                _ => error.to_string(),
            },
        }),
    }
}

fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some((meminfo(&text, "MemTotal")?, meminfo(&text, "MemAvailable")?))
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A file that holds 1 for yes and another number for no.
fn flag(path: &str) -> Option<bool> {
    fs::read_to_string(path).ok().map(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_tree_is_found_among_the_mounts() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
            30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup2_root(mounts), Some("/sys/fs/cgroup".into()));
        assert_eq!(
            cgroup2_root("30 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n"),
            None
        );
    }

    #[test]
    fn others_in_the_range_are_found() {
        let range = Uids {
            first: 900_000,
            count: 1_000,
        };
        let passwd =
            "root:x:0:0::/:\na:x:899999:1::/:\nb:x:900000:1::/:\nc:x:900999:1::/:\nd:x:901000:1::/:\nbad\n";
        let subuid = "e:100000:65536\nf:886432:65536\ng:901000:5\nh:899990:10\n";
        assert_eq!(
            others_in(range, passwd, subuid),
            [
                "user b (900000)",
                "user c (900999)",
                "containers of f (886432 on)"
            ]
        );
    }

    #[test]
    fn weaknesses_are_read_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mds"), "Vulnerable\n").unwrap();
        fs::write(dir.path().join("l1tf"), "Not affected\n").unwrap();
        let found: Vec<_> = weaknesses(dir.path())
            .into_iter()
            .map(|weakness| (weakness.name, weakness.state))
            .collect();
        let expected = [("l1tf", "Not affected"), ("mds", "Vulnerable")];
        assert_eq!(found, expected.map(|(name, state)| (name.into(), state.into())));
        assert!(weaknesses(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn meminfo_is_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   100 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(102_400));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(meminfo("MemTotal: x kB", "MemTotal"), None);
    }

    #[test]
    fn files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "x").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(file("kernel", &plain, false).state, FileState::Good);
        assert_eq!(file("vmm", &plain, true).state, FileState::NotExecutable);
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file("kernel", &plain, false).state, FileState::NotReadable);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&plain, &link).unwrap();
        assert_eq!(file("vmm", &link, true).state, FileState::ALink);
        assert_eq!(file("vmm", dir.path(), true).state, FileState::NotAFile);
        assert!(matches!(
            file("vmm", &dir.path().join("no"), true).state,
            FileState::Unreadable(_)
        ));
        assert_eq!(open(dir.path().join("no").to_str().unwrap()), Access::Missing);
        assert!(super::dir(&dir.path().join("a/b")).free.is_some());
    }

    #[tokio::test]
    async fn the_probes_answer_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let answer = r#"{"api_version":12,"missing":[],"instructions_per_second":2000000,"exits_per_second":9,
            "hardware_speed":false}"#;
        let script = async |text: &str| {
            let vmm = dir.path().join("vmm");
            fs::write(&vmm, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
            probe(&vmm).await
        };
        assert_eq!(
            script(&format!("echo '{answer}'")).await,
            Probe::Ran {
                hardware_speed: false,
                figures: "2.0 million instructions and 9 exits a second".into()
            }
        );
        let lacking = answer.replace("[]", "[\"KVM_CAP_X\"]");
        assert_eq!(
            script(&format!("echo '{lacking}'")).await,
            Probe::Failed("this KVM lacks KVM_CAP_X".into())
        );
        assert_eq!(
            script("echo 'open /dev/kvm: no' >&2; exit 1").await,
            Probe::Failed("open /dev/kvm: no".into())
        );
        assert_eq!(probe(&dir.path().join("no")).await, Probe::NoVmm);
        assert!(matches!(probe(dir.path()).await, Probe::Failed(_)));
    }
}
