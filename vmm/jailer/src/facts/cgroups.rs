//! Where the hierarchies of cgroups are, out of the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`
//! (proc(5), cgroups(7)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// A hierarchy of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The folder of the cgroup that this process is in.
    pub home: PathBuf,
}

/// One line of `mountinfo`, as far as it matters.
struct Mount {
    root: PathBuf,
    point: PathBuf,
    kind: String,
    options: String,
}

/// The unified hierarchy, and those of version 1 by controller. Where one is mounted twice, the first counts.
pub(super) fn hierarchies(
    mounts: &str,
    memberships: &str,
) -> (Option<Hierarchy>, BTreeMap<String, Hierarchy>) {
    let mut unified = None;
    let mut controllers = BTreeMap::new();
    let mounts: Vec<Mount> = mounts.lines().filter_map(mount).collect();
    for line in memberships.lines() {
        // `ID:CONTROLLERS:PATH`; the path may have colons in it.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if names.is_empty() {
            let mut mounted = mounts.iter().filter(|mount| mount.kind == "cgroup2");
            unified = unified.or_else(|| mounted.find_map(|mount| hierarchy(mount, path)));
            continue;
        }
        for name in names.split(',') {
            // A hierarchy with a name and no controller limits nothing.
            let mut mounted = mounts.iter().filter(|mount| {
                mount.kind == "cgroup" && mount.options.split(',').any(|option| option == name)
            });
            if !name.starts_with("name=")
                && let Some(hierarchy) = mounted.find_map(|mount| hierarchy(mount, path))
            {
                controllers.entry(name.to_owned()).or_insert(hierarchy);
            }
        }
    }
    (unified, controllers)
}

/// The hierarchy at a mount; `None` where this process's cgroup is not below it.
fn hierarchy(mount: &Mount, path: &str) -> Option<Hierarchy> {
    let below = Path::new(path).strip_prefix(&mount.root).ok()?;
    Some(Hierarchy {
        mount: mount.point.clone(),
        home: if below.as_os_str().is_empty() {
            mount.point.clone()
        } else {
            mount.point.join(below)
        },
    })
}

/// `36 35 98:0 /ROOT /POINT rw,noatime shared:1 - cgroup2 SOURCE rw,OPTIONS`
fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let mut right = right.split(' ');
    Some(Mount {
        root: unescaped(left.next()?).into(),
        point: unescaped(left.next()?).into(),
        kind: right.next()?.into(),
        options: right.nth(1)?.into(),
    })
}

/// Blanks, line ends and backslashes are written as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, meant)| text.replace(code, meant))
}
