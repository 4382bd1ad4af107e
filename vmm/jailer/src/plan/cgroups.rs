//! Which cgroups the machine gets.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::error::PlanError;
use super::step::{Cgroup, Step};
use crate::facts::{Facts, Hierarchy};
use crate::options::{CgroupVersion, Options};

/// The steps for cgroups.
#[derive(Default)]
pub(super) struct CgroupSteps {
    /// Making and setting them.
    pub(super) make: Vec<Step>,
    /// The folders to join, each with where this process is now.
    pub(super) join: Vec<(PathBuf, PathBuf)>,
    /// Whether there is one hierarchy, into which a process can be born.
    pub(super) unified: bool,
}

/// Plans them; none where none was asked for.
pub(super) fn cgroups(options: &Options, facts: &Facts) -> Result<CgroupSteps, PlanError> {
    if options.cgroups.is_empty() && options.parent_cgroup.is_none() {
        return Ok(CgroupSteps::default());
    }
    let default = if facts.controllers.is_empty() {
        CgroupVersion::V2
    } else {
        CgroupVersion::V1
    };
    let version = options.cgroup_version.unwrap_or(default);
    let parent = options
        .parent_cgroup
        .clone()
        .unwrap_or_else(|| options.exec_name.as_str().into());
    let mut made = Made {
        version,
        path: parent.join(options.id.as_str()),
        cgroups: Vec::new(),
    };
    let mut set = Vec::new();
    if version == CgroupVersion::V2 {
        made.folder(facts.unified.as_ref().ok_or(PlanError::NoUnified)?, None);
    }
    for setting in &options.cgroups {
        let hierarchy = match version {
            CgroupVersion::V2 => facts.unified.as_ref(),
            CgroupVersion::V1 => setting
                .controller
                .as_ref()
                .and_then(|controller| facts.controllers.get(controller)),
        };
        let hierarchy = hierarchy.ok_or_else(|| PlanError::NoController(setting.file.clone()))?;
        set.push(Step::SetCgroup {
            folder: made.folder(hierarchy, setting.controller.as_ref()),
            file: setting.file.clone(),
            value: setting.value.clone(),
        });
    }
    if made.cgroups.is_empty() {
        return Err(PlanError::NothingToSet);
    }
    let join = made
        .cgroups
        .iter()
        .map(|(hierarchy, cgroup)| (cgroup.folder(), hierarchy.home.clone()));
    let join = join.collect();
    let mut make: Vec<Step> = made
        .cgroups
        .into_iter()
        .map(|(_, cgroup)| Step::MakeCgroup(cgroup))
        .collect();
    make.extend(set);
    Ok(CgroupSteps {
        make,
        join,
        unified: version == CgroupVersion::V2,
    })
}

/// The machine's cgroups: one for each hierarchy, in the order in which they are first named.
struct Made<'a> {
    version: CgroupVersion,
    path: PathBuf,
    cgroups: Vec<(&'a Hierarchy, Cgroup)>,
}

impl<'a> Made<'a> {
    /// The folder of the cgroup in this hierarchy, which gets this controller.
    fn folder(&mut self, hierarchy: &'a Hierarchy, controller: Option<&String>) -> PathBuf {
        let known = self.cgroups.iter().position(|(known, _)| *known == hierarchy);
        let index = known.unwrap_or_else(|| {
            let cgroup = Cgroup {
                version: self.version,
                mount: hierarchy.mount.clone(),
                path: self.path.clone(),
                controllers: BTreeSet::new(),
            };
            self.cgroups.push((hierarchy, cgroup));
            self.cgroups.len() - 1
        });
        let (_, cgroup) = &mut self.cgroups[index];
        cgroup.controllers.extend(controller.cloned());
        cgroup.folder()
    }
}
