use super::*;
use crate::rules::CrateRule;

/// A workspace of `name: [dependency]`, where `dev:NAME` is a dependency of tests alone.
fn workspace(packages: &[(&str, &[&str])], members: &[&str]) -> Metadata {
    let list: Vec<_> = packages
        .iter()
        .map(|(name, _)| serde_json::json!({"id": format!("{name} 1"), "name": name, "targets": []}))
        .collect();
    let nodes: Vec<_> = packages
        .iter()
        .map(|(name, deps)| {
            let deps: Vec<_> = deps
                .iter()
                .map(|dep| match dep.strip_prefix("dev:") {
                    Some(dep) => {
                        serde_json::json!({"pkg": format!("{dep} 1"), "dep_kinds": [{"kind": "dev"}]})
                    }
                    None => serde_json::json!({"pkg": format!("{dep} 1"), "dep_kinds": [{"kind": null}]}),
                })
                .collect();
            serde_json::json!({"id": format!("{name} 1"), "deps": deps})
        })
        .collect();
    let members: Vec<_> = members.iter().map(|name| format!("{name} 1")).collect();
    serde_json::from_value(serde_json::json!({
        "packages": list, "workspace_members": members, "resolve": {"nodes": nodes}
    }))
    .unwrap()
}

fn rules(crates: &[(&str, &[&str], &[&str])]) -> Rules {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Rules {
        crates: crates
            .iter()
            .map(|(name, ours, never)| {
                let rule = CrateRule {
                    ours: owned(ours),
                    never: owned(never),
                };
                (name.to_string(), rule)
            })
            .collect(),
        unsafe_files: vec![],
        full_room: 500,
    }
}

#[test]
fn an_allowed_arrow_is_no_finding() {
    let metadata = workspace(&[("vmm", &["devices"]), ("devices", &[])], &["vmm", "devices"]);
    let rules = rules(&[("vmm", &["devices"], &[]), ("devices", &[], &["kvm"])]);
    assert_eq!(check(&metadata, &rules), []);
}

#[test]
fn an_arrow_up_is_found() {
    let metadata = workspace(&[("vmm", &[]), ("devices", &["vmm"])], &["vmm", "devices"]);
    let rules = rules(&[("vmm", &["devices"], &[]), ("devices", &[], &[])]);
    let findings = check(&metadata, &rules);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].to_string().contains("devices depends on vmm"));
}

#[test]
fn a_forbidden_crate_is_found_behind_another() {
    let metadata = workspace(
        &[("devices", &["helper"]), ("helper", &["kvm"]), ("kvm", &[])],
        &["devices"],
    );
    let findings = check(&metadata, &rules(&[("devices", &[], &["kvm"])]));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].to_string().contains("devices reaches kvm"));
}

#[test]
fn tests_may_depend_on_what_the_product_may_not() {
    let metadata = workspace(&[("devices", &["dev:kvm"]), ("kvm", &[])], &["devices"]);
    assert_eq!(check(&metadata, &rules(&[("devices", &[], &["kvm"])])), []);
}

#[test]
fn a_crate_without_a_rule_is_found() {
    let metadata = workspace(&[("new", &[])], &["new"]);
    assert_eq!(check(&metadata, &rules(&[])).len(), 1);
}

#[test]
fn the_projects_own_rules_can_be_read() {
    Rules::ours().unwrap();
}
