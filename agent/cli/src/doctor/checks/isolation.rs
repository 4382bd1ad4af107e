//! What keeps microVMs apart from each other and from the host's users: whom they run as, and what they share.

use crate::doctor::check::Check;
use crate::doctor::facts::{Facts, UserRange, Weakness};

/// More users than this are not listed one by one.
const NAMED: usize = 3;

pub(super) fn all(facts: &Facts) -> Vec<Check> {
    [
        Some(users(&facts.users)),
        side_channels(&facts.weaknesses),
        smt(facts),
        ksm(facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Each microVM runs as a user of its own: nobody else may be that user.
fn users(users: &UserRange) -> Check {
    let id = "vm_users";
    let UserRange { first, count, taken } = users;
    let range = format!(
        "user ids {first} to {}",
        u64::from(*first) + u64::from(*count).max(1) - 1
    );
    if taken.is_empty() {
        return Check::ok(id, format!("{range} are microVMs' alone"));
    }
    let mut names = taken.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if taken.len() > NAMED {
        names += &format!(" and {} more", taken.len() - NAMED);
    }
    Check::fail(
        id,
        format!("{range} are for microVMs, but also belong to {names}"),
        "choose a range without users for `vm_uids` in the agent's configuration",
    )
}

/// What the kernel knows of the processor's weaknesses (sysfs, devices/system/cpu/vulnerabilities).
fn side_channels(weaknesses: &[Weakness]) -> Option<Check> {
    let id = "side_channels";
    if weaknesses.is_empty() {
        return None;
    }
    let open: Vec<String> = weaknesses
        .iter()
        .filter(|weakness| weakness.state.starts_with("Vulnerable"))
        .map(|weakness| weakness.name.replace('_', " "))
        .collect();
    Some(if open.is_empty() {
        let met = weaknesses
            .iter()
            .filter(|weakness| weakness.state.starts_with("Mitigation"));
        Check::ok(
            id,
            format!(
                "of {} known weaknesses of processors none is open ({} of them mitigated)",
                weaknesses.len(),
                met.count()
            ),
        )
    } else {
        Check::warn(
            id,
            format!("a guest may read memory that is not its own: {}", open.join(", ")),
            "update kernel and microcode (`apt-get install intel-microcode` or `amd64-microcode`), and start without \
             `mitigations=off`",
        )
    })
}

/// Two threads of a core share its caches and buffers.
fn smt(facts: &Facts) -> Option<Check> {
    let id = "smt";
    let exposed = facts
        .weaknesses
        .iter()
        .any(|weakness| weakness.state.to_lowercase().contains("smt vulnerable"));
    match (facts.smt?, facts.core_scheduling) {
        (false, _) => Some(Check::info(id, "no two threads share a core")),
        (true, true) => Some(Check::ok(
            id,
            "two threads share each core, and core scheduling keeps microVMs off each other's",
        )),
        (true, false) if exposed => Some(Check::warn(
            id,
            "two threads share each core, and this processor lets one watch the other",
            "set `core_scheduling = true` in the agent's configuration, or start with `nosmt`",
        )),
        (true, false) => Some(Check::info(
            id,
            "two threads share each core: for owners that do not trust each other set `core_scheduling = true` in the \
             agent's configuration, or start with `nosmt`",
        )),
    }
}

/// The VMM asks for no merging of its memory, but some programs switch it on for everybody.
fn ksm(facts: &Facts) -> Option<Check> {
    let id = "ksm";
    Some(if facts.ksm? {
        Check::warn(
            id,
            "same-page merging runs: where it takes in a guest's memory, another can tell what that holds",
            "`echo 2 > /sys/kernel/mm/ksm/run`, and switch off what started it (ksmtuned, for one)",
        )
    } else {
        Check::ok(id, "same-page merging is off")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Status;

    fn weakness(name: &str, state: &str) -> Weakness {
        Weakness {
            name: name.into(),
            state: state.into(),
        }
    }

    #[test]
    fn users_in_the_range_are_named() {
        let mut range = UserRange {
            first: 900_000,
            count: 1_000,
            taken: Vec::new(),
        };
        let check = users(&range);
        assert_eq!(check.status, Status::Ok);
        assert!(check.message.contains("900000 to 900999"), "{}", check.message);
        range.taken = ["a", "b", "c", "d", "e"].map(String::from).into();
        let check = users(&range);
        assert_eq!(check.status, Status::Fail);
        assert!(check.message.ends_with("a, b, c and 2 more"), "{}", check.message);
    }

    #[test]
    fn open_weaknesses_are_told_from_met_ones() {
        assert_eq!(side_channels(&[]), None);
        let met = [
            weakness("meltdown", "Not affected"),
            weakness("mds", "Mitigation: Clear CPU buffers; SMT vulnerable"),
        ];
        let check = side_channels(&met).unwrap();
        assert_eq!(check.status, Status::Ok);
        assert!(
            check.message.contains("of 2") && check.message.contains("(1 "),
            "{}",
            check.message
        );
        let open = [weakness("spec_store_bypass", "Vulnerable"), met[0].clone()];
        let check = side_channels(&open).unwrap();
        assert_eq!(check.status, Status::Warn);
        assert!(
            check.message.ends_with(": spec store bypass"),
            "{}",
            check.message
        );
    }
}
