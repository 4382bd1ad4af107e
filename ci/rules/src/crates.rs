//! The arrows between crates, from cargo's metadata.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::rules::{Finding, Rules};

#[cfg(test)]
mod tests;

/// The part of `cargo metadata` that matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// `None` is an ordinary dependency; `dev` and `build` do not end up in the product.
    kind: Option<String>,
}

impl Package {
    /// The root files of what the package ships: library and programs, no tests, benches or build scripts.
    pub(crate) fn source_roots(&self) -> Vec<&Path> {
        let ships = |kind: &String| matches!(kind.as_str(), "lib" | "bin" | "proc-macro");
        self.targets
            .iter()
            .filter(|target| target.kind.iter().any(ships))
            .map(|target| target.src_path.as_path())
            .collect()
    }
}

impl Metadata {
    /// The workspace's own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Ordinary dependencies of each package, by identifier.
    fn arrows(&self) -> HashMap<&str, Vec<&str>> {
        let shipped = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        self.resolve
            .nodes
            .iter()
            .map(|node| {
                let deps = node
                    .deps
                    .iter()
                    .filter(shipped)
                    .map(|dependency| dependency.pkg.as_str());
                (node.id.as_str(), deps.collect())
            })
            .collect()
    }
}

/// Each crate depends only on what its rule allows.
pub(crate) fn check(metadata: &Metadata, rules: &Rules) -> Vec<Finding> {
    let names: HashMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let ours: HashSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    let arrows = metadata.arrows();
    let mut findings = Vec::new();
    for member in metadata.members() {
        let name = &member.name;
        let Some(rule) = rules.crates.get(name) else {
            findings.push(Finding::Error(format!(
                "crate {name} has no rule: say in ci/rules/rules.json what it may depend on"
            )));
            continue;
        };
        for direct in arrows.get(member.id.as_str()).into_iter().flatten() {
            let direct = names.get(direct).copied().unwrap_or(direct);
            if ours.contains(direct) && !rule.ours.iter().any(|allowed| allowed == direct) {
                findings.push(Finding::Error(format!(
                    "crate {name} depends on {direct}: an arrow that the design does not have"
                )));
            }
        }
        for reached in reachable(&arrows, &member.id) {
            let reached = names.get(reached).copied().unwrap_or(reached);
            if rule.never.iter().any(|never| never == reached) {
                findings.push(Finding::Error(format!(
                    "crate {name} reaches {reached}, which it must not know: see cargo tree -p {name} -i {reached}"
                )));
            }
        }
    }
    findings
}

/// Everything that `start` depends on, directly or not.
fn reachable<'a>(arrows: &HashMap<&'a str, Vec<&'a str>>, start: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut todo: Vec<&str> = arrows.get(start).into_iter().flatten().copied().collect();
    while let Some(next) = todo.pop() {
        if seen.insert(next) {
            todo.extend(arrows.get(next).into_iter().flatten());
        }
    }
    seen
}
