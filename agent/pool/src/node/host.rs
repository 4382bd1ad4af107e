//! What the kernel and the distribution say of this machine.

use std::fs;
use std::net::IpAddr;

use super::object::Machine;

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_string()
}

/// This machine's host name.
pub fn hostname() -> String {
    read("/proc/sys/kernel/hostname")
}

/// This machine. What cannot be read stays empty: nothing depends on it.
pub fn machine(name: &str, address: IpAddr, port: u16) -> Machine {
    Machine {
        name: name.into(),
        hostname: hostname(),
        address,
        port,
        machine_id: read("/etc/machine-id"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel: read("/proc/sys/kernel/osrelease"),
        os: distribution(&read("/etc/os-release")),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
    }
}

fn distribution(text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_named() {
        assert_eq!(
            distribution("ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
        assert_eq!(distribution(""), "Linux");
    }
}
