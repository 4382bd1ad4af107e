//! The arrows between the modules of one crate: none point both ways.
//!
//! An arrow goes from the module that names a path to the module that the path leads to; where a module on the way
//! re-exports the name, to the module that has it. A re-export itself is no arrow: a façade does not use what it shows.
//! Two rules: no two files use each other, and no two sibling folders do, taken whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use syn::visit::{self, Visit};

use crate::rules::Finding;
use crate::source::{Source, is_for_tests};

#[cfg(test)]
mod tests;

type Path = Vec<String>;

/// What one file names: paths from the crate's root, and the re-exports.
#[derive(Default)]
struct Names {
    module: Path,
    /// Inline modules on the way to where the visitor stands.
    inside: Path,
    uses: Vec<Path>,
    /// The name that is shown, and the path behind it; `*` shows all.
    exports: Vec<(String, Path)>,
}

impl Names {
    /// The path from the crate's root, if it leads into this crate.
    fn absolute(&self, path: &[String]) -> Option<Path> {
        let mut at = self.module.clone();
        at.extend(self.inside.iter().cloned());
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            _ => return None,
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    fn add_use(&mut self, tree: &syn::UseTree, before: &mut Path, public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(&path.tree, before, public);
                before.pop();
            }
            syn::UseTree::Name(name) => self.add_name(before, &name.ident, &name.ident, public),
            syn::UseTree::Rename(name) => self.add_name(before, &name.ident, &name.rename, public),
            syn::UseTree::Glob(_) => self.add_path(before.clone(), "*".into(), public),
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.add_use(item, before, public);
                }
            }
        }
    }

    fn add_name(&mut self, before: &[String], name: &syn::Ident, shown: &syn::Ident, public: bool) {
        let mut path = before.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        self.add_path(path, shown.to_string(), public);
    }

    fn add_path(&mut self, path: Path, shown: String, public: bool) {
        // Without a leading word it is another crate, or a child of this module (`pub use queue::Queue`).
        let absolute = match self.absolute(&path) {
            Some(absolute) => absolute,
            None if public => {
                let mut child = vec!["self".to_string()];
                child.extend(path);
                self.absolute(&child).unwrap_or_default()
            }
            None => {
                let mut child = self.module.clone();
                child.extend(path);
                child
            }
        };
        if public {
            self.exports.push((shown, absolute));
        } else {
            self.uses.push(absolute);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        if !is_for_tests(&node.attrs) {
            let public = !matches!(node.vis, syn::Visibility::Inherited);
            self.add_use(&node.tree, &mut Vec::new(), public);
        }
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if is_for_tests(&node.attrs) || node.content.is_none() {
            return;
        }
        self.inside.push(node.ident.to_string());
        visit::visit_item_mod(self, node);
        self.inside.pop();
    }

    /// `pub(super)` says who may see, it uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, node: &'ast syn::Path) {
        let path: Path = node
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        let known = self.absolute(&path).or_else(|| {
            // `queue::Queue::new()` in the file that says `mod queue;`.
            let mut child = self.module.clone();
            child.extend(path.iter().cloned());
            (path.len() > 1).then_some(child)
        });
        self.uses.extend(known);
        visit::visit_path(self, node);
    }
}

/// Where a path leads: the deepest module on it, behind any re-exports.
fn target(names: &HashMap<Path, Names>, path: &[String], depth: usize) -> Option<Path> {
    let length = (0..=path.len())
        .rev()
        .find(|&length| names.contains_key(&path[..length]))?;
    let (module, rest) = path.split_at(length);
    if let Some(name) = rest.first()
        && depth < 16
    {
        for (shown, behind) in &names[module].exports {
            let mut next = behind.clone();
            if shown == "*" {
                // All of a module: follow it where it has the name for sure, that is where it re-exports it.
                let shows = |names: &Names| names.exports.iter().any(|(shown, _)| shown == name);
                if names.get(behind).is_none_or(|names| !shows(names)) {
                    continue;
                }
                next.push(name.clone());
            } else if shown != name {
                continue;
            }
            next.extend(rest[1..].iter().cloned());
            return target(names, &next, depth + 1);
        }
    }
    Some(module.to_vec())
}

/// The arrows of one crate, each with one that it was seen in.
fn arrows(sources: &[Source]) -> BTreeSet<(Path, Path)> {
    let mut names: HashMap<Path, Names> = HashMap::new();
    for source in sources {
        let found = names.entry(source.module.clone()).or_default();
        found.module = source.module.clone();
        found.visit_file(&source.file);
    }
    let mut arrows = BTreeSet::new();
    for (from, found) in &names {
        for path in &found.uses {
            if let Some(to) = target(&names, path, 0)
                && to != *from
            {
                arrows.insert((from.clone(), to));
            }
        }
    }
    arrows
}

/// The two sibling modules that an arrow goes between, taken whole; none where one lies inside the other.
fn siblings(from: &[String], to: &[String]) -> Option<(Path, Path)> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    if from.len() == common || to.len() == common {
        return None;
    }
    Some((from[..=common].to_vec(), to[..=common].to_vec()))
}

/// No two modules of the crate use each other.
pub(crate) fn check(name: &str, sources: &[Source]) -> Vec<Finding> {
    let arrows = arrows(sources);
    let mut findings = Vec::new();
    for (from, to) in &arrows {
        if from < to && arrows.contains(&(to.clone(), from.clone())) {
            findings.push(Finding::Error(format!(
                "{name}: modules {} and {} use each other: move what both need into a third",
                show(from),
                show(to)
            )));
        }
    }
    let mut whole: BTreeMap<(Path, Path), &(Path, Path)> = BTreeMap::new();
    for arrow in &arrows {
        if let Some(pair) = siblings(&arrow.0, &arrow.1) {
            whole.entry(pair).or_insert(arrow);
        }
    }
    for ((from, to), there) in &whole {
        let Some(back) = whole.get(&(to.clone(), from.clone())) else {
            continue;
        };
        // Two files that use each other were named above.
        if from < to && !(there.0 == back.1 && there.1 == back.0) {
            findings.push(Finding::Error(format!(
                "{name}: modules {} and {} use each other taken whole ({} uses {}, {} uses {}): move what both need into a third",
                show(from), show(to), show(&there.0), show(&there.1), show(&back.0), show(&back.1),
            )));
        }
    }
    findings
}

fn show(module: &[String]) -> String {
    if module.is_empty() {
        "crate root".into()
    } else {
        module.join("::")
    }
}
