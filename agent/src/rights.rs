//! What the daemon keeps of root's rights.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// One more than the highest capability that there can be.
const CAPABILITIES: u32 = 64;

/// What agent and jailer need; the unit file says for what.
pub const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::MKNOD);

/// What they need beyond that for microVMs with a network; secovia-agent-network.conf gives it.
pub const FOR_NETWORK: CapabilitySet = CapabilitySet::NET_ADMIN;

/// Drops all other capabilities for good, also for what is started from here on. Rights are a thread's own: call this while
/// there is one.
///
/// `network`: the configuration has one.
///
/// Who is not root has none to drop; what needs them fails later and says so.
pub fn keep_what_is_needed(network: bool) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let needed = if network { NEEDED | FOR_NETWORK } else { NEEDED };
    for bit in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if needed.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            // Whoever started us without the right to do so has restricted us by himself.
            Err(Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let held = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: held.effective & needed,
            permitted: held.permitted & needed,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(clear_ambient_capability_set()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit file's list is this one.
    #[test]
    fn the_unit_gives_what_is_needed_and_no_more() {
        let given = |unit: &str| {
            let mut lines = unit.lines();
            let line = lines.find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
            let names = line
                .unwrap()
                .split(' ')
                .map(|word| word.strip_prefix("CAP_").unwrap());
            names.fold(CapabilitySet::empty(), |given, name| {
                given | CapabilitySet::from_name(name).unwrap()
            })
        };
        assert_eq!(given(include_str!("../secovia-agent.service")), NEEDED);
        assert_eq!(given(include_str!("../secovia-agent-network.conf")), FOR_NETWORK);
    }

    #[test]
    fn a_thread_is_left_with_what_is_needed() {
        // In a thread of its own: there is no way back.
        let rest = std::thread::spawn(|| {
            keep_what_is_needed(false).unwrap();
            capabilities(None).unwrap()
        });
        let rest = rest.join().unwrap();
        assert!(
            NEEDED.contains(rest.effective) && NEEDED.contains(rest.permitted),
            "{rest:?}"
        );
        assert_eq!(rest.inheritable, CapabilitySet::empty());
        if rustix::process::geteuid().is_root() {
            let all = capabilities(None).unwrap().permitted;
            assert_eq!(rest.permitted, all & NEEDED);
        }
    }
}
