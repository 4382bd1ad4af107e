//! Judges what was seen. Pure: the same facts give the same report.

mod isolation;
mod network;
#[cfg(test)]
mod tests;

use super::check::Check;
use super::facts::{Access, Config, Facts, FileState, NamedFile, Probe};
use crate::output::human;

const MIB: u64 = 1024 * 1024;
/// Less memory than this starts no microVM; less than the other, few.
const MEMORY_NEEDED: u64 = 128 * MIB;
const MEMORY_ADVISED: u64 = 512 * MIB;
/// Less disk space than this keeps no records; less than the other, few images.
const DISK_NEEDED: u64 = 64 * MIB;
const DISK_ADVISED: u64 = 2048 * MIB;
/// The controllers that hold a microVM in its bounds.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];

/// All checks, in the order in which a person would repair things.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kvm_device(facts), kvm_speed(facts), memory(facts), config(facts)];
    checks.extend(facts.files.iter().map(file));
    checks.extend([state_dir(facts), disk_space(facts), cgroups(facts), tun(facts)]);
    checks.extend(facts.tools.iter().map(tool));
    checks.extend(facts.forwarding.map(network::forwarding));
    checks.extend([socket(facts), agent(facts)]);
    checks.extend(isolation::all(facts));
    checks
}

fn kvm_device(facts: &Facts) -> Check {
    let id = "kvm_device";
    match (&facts.kvm, facts.cpu_flag) {
        (Access::Opened, _) => Check::ok(id, "/dev/kvm opens"),
        (Access::Missing, Some(flag)) => Check::fail(
            id,
            format!("/dev/kvm is missing, though the processor has {flag}"),
            format!(
                "load the module: `modprobe {}`; where that fails, switch virtualization on in the firmware",
                if flag == "svm" { "kvm_amd" } else { "kvm_intel" }
            ),
        ),
        (Access::Missing, None) => Check::fail(
            id,
            "/dev/kvm is missing, and the processor shows neither vmx nor svm",
            "switch virtualization (VT-x, AMD-V) on in the firmware; in a virtual machine, nested virtualization on its host",
        ),
        (Access::Denied, _) if !facts.root => Check::warn(
            id,
            "/dev/kvm may not be opened by this user; the agent opens it as root",
            "run `sudo secovia doctor` for the whole picture",
        ),
        (Access::Denied, _) => Check::fail(
            id,
            "/dev/kvm may not be opened, not even by root",
            "allow the device in the container or sandbox that this runs in",
        ),
        (Access::Failed(reason), _) => Check::fail(
            id,
            format!("open /dev/kvm: {reason}"),
            "see `dmesg | grep -i kvm`",
        ),
    }
}

fn kvm_speed(facts: &Facts) -> Check {
    let id = "kvm_speed";
    match (&facts.probe, &facts.kvm) {
        (
            Probe::Ran {
                hardware_speed: true,
                figures,
            },
            _,
        ) => Check::ok(id, format!("guests run at hardware speed ({figures})")),
        (
            Probe::Ran {
                hardware_speed: false,
                figures,
            },
            _,
        ) => Check::fail(
            id,
            format!("this host's KVM emulates guests in software ({figures}): Linux does not come up on it"),
            "use a host with VT-x or AMD-V; in a virtual machine, switch nested virtualization on on its host",
        ),
        (_, Access::Denied) if !facts.root => Check::warn(
            id,
            "not measured: /dev/kvm may not be opened by this user",
            "run `sudo secovia doctor`",
        ),
        (Probe::NoVmm, _) => Check::fail(
            id,
            "not measured: secovia-vmm, which runs the probe guest, is not there",
            "install it, or correct `vmm` in the agent's configuration",
        ),
        (Probe::Failed(reason), _) => Check::fail(
            id,
            format!("the probe guest did not run: {reason}"),
            "repair what the lines above say, then run `secovia-vmm --probe` to see more",
        ),
    }
}

fn memory(facts: &Facts) -> Check {
    let id = "memory";
    let Some((total, available)) = facts.memory else {
        return Check::warn(id, "/proc/meminfo cannot be read", "mount /proc");
    };
    let seen = format!(
        "{} of {} memory available",
        human::bytes(available),
        human::bytes(total)
    );
    match available {
        0..MEMORY_NEEDED => Check::fail(
            id,
            seen,
            "end other programs, or add memory: a microVM needs 64 MiB at least",
        ),
        MEMORY_NEEDED..MEMORY_ADVISED => {
            Check::warn(id, seen, "few microVMs fit: end other programs, or add memory")
        }
        _ => Check::ok(id, seen),
    }
}

fn config(facts: &Facts) -> Check {
    let id = "config";
    match &facts.config {
        Config::Read(path) => Check::ok(id, format!("configuration {} is read", path.display())),
        Config::Absent(path) => Check::warn(
            id,
            format!(
                "no configuration at {}; the usual paths are looked at",
                path.display()
            ),
            "install the package, which brings one, or name yours with --config",
        ),
        Config::Bad(path, reason) => Check::fail(
            id,
            format!("configuration {}: {reason}", path.display()),
            "correct it; the agent does not start with it",
        ),
    }
}

fn file(file: &NamedFile) -> Check {
    let NamedFile { key, path, state } = file;
    let path = path.display();
    let remedy = format!("install it, or correct `{key}` in the agent's configuration");
    match state {
        FileState::Good => Check::ok(key, format!("{path} is there")),
        FileState::NotExecutable => Check::fail(
            key,
            format!("{path} is not executable for all users, and each microVM is one of its own"),
            format!("`chmod 755 {path}`"),
        ),
        FileState::NotReadable => Check::fail(
            key,
            format!("{path} may not be read by all users, and each microVM is one of its own"),
            format!("`chmod 644 {path}`"),
        ),
        FileState::ALink => Check::fail(
            key,
            format!("{path} is a symbolic link, which the jailer does not follow"),
            format!("name the program itself as `{key}` in the agent's configuration"),
        ),
        FileState::NotAFile => Check::fail(key, format!("{path} is no regular file"), remedy),
        FileState::Unreadable(reason) => Check::fail(key, format!("{path}: {reason}"), remedy),
    }
}

fn state_dir(facts: &Facts) -> Check {
    let id = "state_dir";
    let path = facts.state_dir.path.display();
    match facts.state_dir.mode {
        None => Check::info(
            id,
            format!("{path} does not exist yet; the agent makes it when it starts"),
        ),
        Some(mode) if mode & 0o022 != 0 => Check::fail(
            id,
            format!(
                "{path} can be written by others than its owner (mode {:o})",
                mode & 0o7777
            ),
            format!("`chmod go-w {path}`: who writes there decides what runs"),
        ),
        Some(_) => Check::ok(id, format!("{path} is written by its owner alone")),
    }
}

fn disk_space(facts: &Facts) -> Check {
    let id = "disk_space";
    let path = facts.state_dir.path.display();
    let Some(free) = facts.state_dir.free else {
        return Check::warn(
            id,
            format!("free space below {path} cannot be told"),
            "run `sudo secovia doctor`",
        );
    };
    let seen = format!("{} free for {path}", human::bytes(free));
    let remedy = format!("make room, or move `state_dir` ({path}) to a larger disk");
    match free {
        0..DISK_NEEDED => Check::fail(id, seen, remedy),
        DISK_NEEDED..DISK_ADVISED => Check::warn(id, seen, remedy),
        _ => Check::ok(id, seen),
    }
}

fn cgroups(facts: &Facts) -> Check {
    let id = "cgroups";
    let remedy = "boot with systemd.unified_cgroup_hierarchy=1 (with other inits: cgroup_no_v1=all)";
    let Some(controllers) = &facts.cgroup_controllers else {
        return Check::warn(
            id,
            "no cgroup v2 tree: what a microVM uses is not bounded by the host",
            remedy,
        );
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !controllers.iter().any(|controller| controller == name))
        .collect();
    if missing.is_empty() {
        Check::ok(id, format!("cgroup v2 with {}", CONTROLLERS.join(", ")))
    } else {
        Check::warn(id, format!("cgroup v2 without {}", missing.join(", ")), remedy)
    }
}

fn tun(facts: &Facts) -> Check {
    let id = "tun";
    match &facts.tun {
        Access::Opened => Check::ok(id, "/dev/net/tun opens"),
        Access::Missing => Check::warn(
            id,
            "/dev/net/tun is missing: microVMs get no network",
            "load the module: `modprobe tun`",
        ),
        Access::Denied => Check::warn(
            id,
            "/dev/net/tun may not be opened by this user",
            "run `sudo secovia doctor`; in a container, allow the device",
        ),
        Access::Failed(reason) => Check::warn(
            id,
            format!("open /dev/net/tun: {reason}: microVMs get no network"),
            "load the module: `modprobe tun`",
        ),
    }
}

fn tool(tool: &super::facts::Tool) -> Check {
    let id = "tool";
    if tool.found {
        Check::ok(id, format!("{} ({})", tool.name, tool.purpose))
    } else {
        Check::warn(
            id,
            format!("{} is missing ({})", tool.name, tool.purpose),
            format!("`apt-get install {}`", tool.package),
        )
    }
}

fn socket(facts: &Facts) -> Check {
    let id = "socket";
    let path = facts.socket.path.display();
    match facts.socket.mode {
        None => Check::info(
            id,
            format!("{path} does not exist: the agent makes it when it starts"),
        ),
        Some(mode) if mode & 0o002 != 0 => Check::fail(
            id,
            format!("{path} can be used by everybody (mode {:o})", mode & 0o7777),
            "restart the agent, which sets the mode: `systemctl restart secovia-agent`",
        ),
        Some(_) => Check::ok(id, format!("{path} is for root and its group alone")),
    }
}

fn agent(facts: &Facts) -> Check {
    let id = "agent";
    match &facts.socket.answer {
        Ok((version, health)) if health.problems.is_empty() => {
            Check::ok(id, format!("agent {version} answers, {} running", health.running))
        }
        Ok((version, health)) => Check::warn(
            id,
            format!(
                "agent {version} answers, and says: {}",
                health.problems.join("; ")
            ),
            "see `journalctl -u secovia-agent`",
        ),
        Err(no_answer) if no_answer.denied => Check::warn(
            id,
            "this user may not use the agent",
            "join the group: `sudo usermod -aG secovia $USER`, then log in again",
        ),
        Err(no_answer) => Check::warn(
            id,
            format!("the agent does not answer: {}", no_answer.message),
            "start it: `systemctl start secovia-agent`",
        ),
    }
}
