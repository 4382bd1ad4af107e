//! Where the agent's configuration says that things are, and what keeps microVMs apart. All else is the agent's to judge.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Paths of the agent, the usual ones where the configuration has none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Paths {
    pub state_dir: PathBuf,
    pub vmm: PathBuf,
    pub jailer: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub vm_uids: Uids,
    pub core_scheduling: bool,
    /// There is one; what is in it is the agent's to judge.
    pub network: Option<IgnoredAny>,
}

/// Whom microVMs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Uids {
    pub first: u32,
    pub count: u32,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/secovia".into(),
            vmm: "/usr/bin/secovia-vmm".into(),
            jailer: "/usr/bin/secovia-jailer".into(),
            kernel: "/usr/lib/secovia/vmlinux".into(),
            initrd: "/usr/lib/secovia/initrd.cpio".into(),
            vm_uids: Uids {
                first: 900_000,
                count: 1_000,
            },
            core_scheduling: false,
            network: None,
        }
    }
}

impl Paths {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.message().replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_paths_win_over_the_usual_ones_and_other_keys_are_the_agents() {
        let paths = Paths::parse("kernel = \"/k\"\nlog_max_bytes = 5\n").unwrap();
        assert_eq!(paths.kernel, PathBuf::from("/k"));
        assert_eq!(paths.vmm, Paths::default().vmm);
        assert!(Paths::parse("kernel = 5").is_err());
        let uids = Paths::parse("vm_uids = { first = 7, count = 2 }")
            .unwrap()
            .vm_uids;
        assert_eq!((uids.first, uids.count), (7, 2));
        assert!(Paths::parse("kernel =").is_err());
        assert_eq!(paths.network, None);
        assert!(
            Paths::parse("[network]\negress = \"none\"")
                .unwrap()
                .network
                .is_some()
        );
    }
}
