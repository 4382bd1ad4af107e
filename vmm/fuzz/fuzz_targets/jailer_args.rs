//! The jailer's command line, one word a line, on hosts with either kind of control groups. Whatever it says, it is
//! refused with a reason or becomes a plan that stays below the folders that it may touch, and ends with a VMM that is
//! not root and has no capability.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use secovia_jailer::cli::{self, Command};
use secovia_jailer::facts::{Facts, Hierarchy};
use secovia_jailer::options::{Device, Options};
use secovia_jailer::plan::{self, Plan, Step};

/// A host that has everything, in the version of control groups that `both` or the second alone says.
fn facts(both: bool) -> Facts {
    let hierarchy = |name: &str| Hierarchy {
        mount: Path::new("/sys/fs/cgroup").join(name),
        home: "/system.slice".into(),
    };
    let controllers = ["memory", "cpu", "pids", "cpuset"].map(|name| (name.into(), hierarchy(name)));
    Facts {
        devices: Device::ALL
            .into_iter()
            .zip((1..).map(|minor| (10, minor)))
            .collect(),
        unified: Some(hierarchy("")),
        controllers: controllers.into_iter().filter(|_| both).collect(),
    }
}

fn stays_below(path: &Path, folder: &Path) {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    assert!(
        path.starts_with(folder) && path.components().all(plain),
        "{path:?} is not below {folder:?}"
    );
    assert!(!path.as_os_str().as_bytes().contains(&0), "{path:?}");
}

fn check(options: &Options, plan: &Plan) {
    assert!(
        plan.steps.is_sorted_by_key(Step::stage),
        "a step on the host after one in the jail"
    );
    let mut rights = vec![Step::DropBoundingSet];
    rights.extend([
        Step::SetGroup { gid: options.gid },
        Step::SetUser { uid: options.uid },
        Step::DropCapabilities,
        Step::NoNewPrivileges,
    ]);
    let given_up: Vec<_> = plan.steps.iter().filter(|step| rights.contains(step)).collect();
    assert!(
        given_up.into_iter().eq(&rights),
        "rights are given up in this order"
    );
    assert!(options.uid != 0 && options.gid != 0);
    assert!(matches!(plan.steps.last(), Some(Step::Exec { .. })));
    for step in &plan.steps {
        match step {
            Step::MakeFolder { path } | Step::Claim { path, .. } | Step::MakeRoot { path, .. } => {
                stays_below(path, &options.chroot_base);
            }
            Step::RecordPid { path } | Step::Spawn { pid_file: path, .. } => {
                stays_below(path, &options.chroot_base)
            }
            Step::MakeCgroup(cgroup) => stays_below(&cgroup.folder(), Path::new("/sys/fs/cgroup")),
            Step::SetCgroup { folder, file, value } => {
                stays_below(&folder.join(file), folder);
                assert!(!file.contains('/') && !value.contains('\0'), "{file:?} {value:?}");
            }
            Step::MakePlace { name, .. } => {
                assert!(!name.contains('/') && !name.starts_with('.'), "{name:?}")
            }
            Step::Exec { program, arguments } => {
                stays_below(Path::new(program), Path::new("/"));
                assert!(arguments.iter().all(|argument| !argument.as_bytes().contains(&0)));
            }
            _ => {}
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let words = data.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let options = match cli::parse(words) {
        Ok(Command::Run(options) | Command::Show(options, _)) => options,
        Ok(_) => return,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for both in [false, true] {
        match plan::plan(&options, &facts(both)) {
            Ok(plan) => check(&options, &plan),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
