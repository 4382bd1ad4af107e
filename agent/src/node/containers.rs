//! Several containers in one VM: whether what is asked for can be, and what the images fill in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use secovia_agent_api::{Check, Container, ErrorCode, Probe, VmCreate, VolumeContent, VolumeFile};

use super::check::is_host_name;
use super::error::NodeError;
use crate::images::ImageStore;
use crate::records::{PodContainer, PodSpec};

/// Each image is a disk, and a machine has so many.
const CONTAINERS_MAX: usize = 16;
const VOLUMES_MAX: usize = 64;
/// What all files of all volumes may have, in bytes: they lie in the record, and in the guest's memory.
const FILES_BYTES_MAX: usize = 8 << 20;
const FILES_MAX: usize = 1024;
const PATH_MAX: usize = 1024;
/// A day.
const SECONDS_MAX: u32 = 86_400;
/// All that is told a guest of its containers goes in one message.
const WORDS_BYTES_MAX: usize = 160 * 1024;

/// Checks what is asked for.
pub(super) fn check(create: &VmCreate) -> Result<(), NodeError> {
    let Some(first) = create.containers.first() else {
        if create.init_containers.is_empty() && create.volumes.is_empty() {
            return Ok(());
        }
        return Err(bad("`init_containers` and `volumes` go with `containers`".into()));
    };
    let of_one = create.entrypoint.is_some()
        || create.user.is_some()
        || create.working_dir.is_some()
        || create.tty.is_some()
        || create.stdin
        || create.attach
        || !create.command.is_empty()
        || !create.env.is_empty();
    if of_one || create.image != first.image {
        return Err(bad(
            "with `containers`, `image` is that of the first, and what tells of one workload is left out"
                .into(),
        ));
    }
    let mut names = BTreeSet::new();
    for volume in &create.volumes {
        if !is_host_name(&volume.name) || !names.insert(volume.name.as_str()) {
            return Err(bad(format!(
                "volume `{}`: the name is none, or is taken",
                volume.name
            )));
        }
    }
    files(create)?;
    let volumes = std::mem::take(&mut names);
    let all = || create.init_containers.iter().chain(&create.containers);
    if all().count() > CONTAINERS_MAX || create.volumes.len() > VOLUMES_MAX {
        return Err(bad(format!(
            "use at most {CONTAINERS_MAX} `containers` and `init_containers`, and {VOLUMES_MAX} `volumes`"
        )));
    }
    for container in all() {
        if !names.insert(container.name.as_str()) {
            return Err(bad(format!("container `{}`: the name is taken", container.name)));
        }
        one(container, &volumes)
            .map_err(|problem| bad(format!("container `{}`: {problem}", container.name)))?;
    }
    let probes = |one: &Container| {
        [&one.liveness, &one.readiness, &one.startup]
            .iter()
            .any(|p| p.is_some())
    };
    if let Some(container) = create.init_containers.iter().find(|one| probes(one)) {
        return Err(bad(format!(
            "container `{}`: an init container has no probes",
            container.name
        )));
    }
    let bytes: usize = all()
        .map(|one| serde_json::to_vec(one).map_or(0, |text| text.len()))
        .sum();
    if bytes > WORDS_BYTES_MAX {
        return Err(bad(format!(
            "`containers` are {bytes} bytes of text; use at most {WORDS_BYTES_MAX}, and a volume for long values"
        )));
    }
    Ok(())
}

fn one(container: &Container, volumes: &BTreeSet<&str>) -> Result<(), String> {
    if !is_host_name(&container.name) {
        return Err("the name is none: use 1 to 63 of a-z, 0-9 and `-`, no `-` at an end".into());
    }
    let entrypoint = container.entrypoint.as_deref().unwrap_or_default();
    let words = || entrypoint.iter().chain(&container.command);
    if words().next().is_some_and(String::is_empty) {
        return Err("`command` begins with an empty word; name a program".into());
    }
    if words()
        .chain(container.env.values())
        .any(|text| text.contains('\0'))
    {
        return Err("`entrypoint`, `command` or `env` has a zero byte; no program can get that".into());
    }
    let mut keys = container.env.keys();
    if let Some(key) = keys.find(|key| key.is_empty() || key.contains(['=', '\0'])) {
        return Err(format!(
            "`env` has the key {key:?}; a key is not empty and has no `=` or zero byte"
        ));
    }
    let is_path = |path: &str| path.starts_with('/') && path.len() <= PATH_MAX && !path.contains('\0');
    if let Some(dir) = container.working_dir.as_deref().filter(|dir| !is_path(dir)) {
        return Err(format!("`working_dir` is {dir:?}; give an absolute path"));
    }
    for mount in &container.mounts {
        if !is_path(&mount.path) || !volumes.contains(mount.volume.as_str()) {
            return Err(format!(
                "`mounts` has {:?} at {:?}; name a volume and an absolute path",
                mount.volume, mount.path
            ));
        }
    }
    let probes = [&container.liveness, &container.readiness, &container.startup];
    probes.into_iter().flatten().try_for_each(probe)
}

fn probe(probe: &Probe) -> Result<(), String> {
    let Probe {
        check,
        initial_delay_s,
        period_s,
        timeout_s,
        success,
        failure,
    } = probe;
    if *period_s == 0 || *timeout_s == 0 || *success == 0 || *failure == 0 {
        return Err("a probe's `period_s`, `timeout_s`, `success` and `failure` are at least 1".into());
    }
    if [initial_delay_s, period_s, timeout_s]
        .into_iter()
        .any(|seconds| *seconds > SECONDS_MAX)
    {
        return Err(format!("a probe's times are at most {SECONDS_MAX} s"));
    }
    match check {
        Check::Exec { command } if command.first().is_none_or(String::is_empty) => {
            Err("a probe's `command` is empty; name a program".into())
        }
        Check::Http { port: 0, .. } | Check::Tcp { port: 0, .. } => Err("a probe's `port` is 0".into()),
        Check::Http { host: Some(host), .. } | Check::Tcp { host: Some(host), .. }
            if host.parse::<IpAddr>().is_err() =>
        {
            Err(format!("a probe's `host` is {host:?}; give an address"))
        }
        Check::Exec { .. } | Check::Http { .. } | Check::Tcp { .. } => Ok(()),
    }
}

fn files(create: &VmCreate) -> Result<(), NodeError> {
    let (mut count, mut bytes) = (0, 0);
    for volume in &create.volumes {
        let VolumeContent::Files { files } = &volume.content else {
            continue;
        };
        let mut paths = BTreeSet::new();
        for VolumeFile {
            path,
            mode,
            gid: _,
            content,
        } in files
        {
            let mut names = path.split('/');
            let is_plain = names.all(|name| !matches!(name, "" | "." | "..")) && path.len() <= PATH_MAX;
            if !is_plain || path.contains('\0') || *mode > 0o777 || !paths.insert(path.as_str()) {
                return Err(bad(format!(
                    "volume `{}`: file {path:?} (mode {mode:o}) is none that can be",
                    volume.name
                )));
            }
            count += 1;
            let content = content.clone().into_bytes();
            bytes += content
                .map_err(|error| bad(format!("volume `{}`: file {path:?}: {error}", volume.name)))?
                .len();
        }
    }
    if count > FILES_MAX || bytes > FILES_BYTES_MAX {
        return Err(bad(format!(
            "`volumes` have {count} files of {bytes} bytes; use at most {FILES_MAX} of {FILES_BYTES_MAX} bytes in all"
        )));
    }
    Ok(())
}

/// The containers with what their images say filled in; none for a VM of one workload.
pub(super) fn fill_in(create: &VmCreate, images: &ImageStore) -> Result<Option<PodSpec>, NodeError> {
    if create.containers.is_empty() {
        return Ok(None);
    }
    let fill = |asked: &Container| -> Result<PodContainer, NodeError> {
        let image = images.get(&asked.image)?;
        images.touch(&asked.image)?;
        let manifest = image.manifest;
        let replaced = asked.entrypoint.is_some();
        let mut command = asked.entrypoint.clone().unwrap_or(manifest.entrypoint);
        command.extend(match asked.command.is_empty() && !replaced {
            true => manifest.command,
            false => asked.command.clone(),
        });
        if command.first().is_none_or(String::is_empty) {
            let message = format!(
                "container `{}`: image `{}` names no program; say which one",
                asked.name, asked.image
            );
            return Err(bad(message));
        }
        let mut env = manifest.env;
        env.extend(asked.env.clone());
        Ok(PodContainer {
            spec: Container {
                entrypoint: None,
                command,
                env,
                user: asked.user.clone().or(manifest.user),
                working_dir: asked.working_dir.clone().or(manifest.working_dir),
                ..asked.clone()
            },
            image_digest: manifest.digest,
        })
    };
    let all = |list: &[Container]| list.iter().map(fill).collect::<Result<Vec<_>, NodeError>>();
    Ok(Some(PodSpec {
        init: all(&create.init_containers)?,
        containers: all(&create.containers)?,
        volumes: create.volumes.clone(),
    }))
}

fn bad(message: String) -> NodeError {
    NodeError::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use secovia_agent_api::{LogBytes, Mount, Volume};

    use super::*;

    fn create() -> VmCreate {
        let container = |name: &str| Container {
            name: name.into(),
            image: "base".into(),
            ..Container::default()
        };
        let mut create = VmCreate::new("base");
        create.containers = vec![container("main"), container("side")];
        create.init_containers = vec![container("init")];
        create.volumes = vec![Volume {
            name: "v".into(),
            content: VolumeContent::Files {
                files: vec![VolumeFile {
                    path: "a/b".into(),
                    mode: 0o400,
                    gid: 0,
                    content: LogBytes::Text("x".into()),
                }],
            },
        }];
        create.containers[0].mounts = vec![Mount {
            volume: "v".into(),
            path: "/v".into(),
            read_only: true,
        }];
        create.containers[1].liveness = Some(Probe {
            check: Check::Tcp { host: None, port: 80 },
            initial_delay_s: 0,
            period_s: 1,
            timeout_s: 1,
            success: 1,
            failure: 3,
        });
        create
    }

    fn file(create: &mut VmCreate) -> &mut VolumeFile {
        match &mut create.volumes[0].content {
            VolumeContent::Files { files } => &mut files[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        assert!(check(&create()).is_ok());
        assert!(check(&VmCreate::new("base")).is_ok());
        type Change = fn(&mut VmCreate);
        let wrong: [(&str, Change); 17] = [
            ("go with `containers`", |c| c.containers.clear()),
            ("one workload", |c| c.command = vec!["sh".into()]),
            ("one workload", |c| c.image = "web".into()),
            ("`main`: the name is taken", |c| {
                c.containers[1].name = "main".into()
            }),
            ("`side`: the name is taken", |c| {
                c.init_containers[0].name = "side".into()
            }),
            ("the name is none", |c| c.containers[1].name = "../x".into()),
            ("empty word", |c| c.containers[0].command = vec![String::new()]),
            ("zero byte", |c| c.containers[0].command = vec!["a\0".into()]),
            ("`env`", |c| {
                c.containers[0].env = [("a=".to_string(), String::new())].into()
            }),
            ("`working_dir`", |c| {
                c.containers[0].working_dir = Some("x".into())
            }),
            ("`mounts`", |c| c.containers[0].mounts[0].path = "x".into()),
            ("`mounts`", |c| c.containers[0].mounts[0].volume = "w".into()),
            ("volume `V`", |c| c.volumes[0].name = "V".into()),
            ("file \"../x\"", |c| file(c).path = "../x".into()),
            ("file \"a\"", |c| {
                let one = file(c);
                one.path = "a".into();
                one.mode = 0o4755;
            }),
            ("no probes", |c| {
                c.init_containers[0].startup = c.containers[1].liveness.clone()
            }),
            ("at least 1", |c| {
                c.containers[1].liveness.as_mut().unwrap().period_s = 0
            }),
        ];
        for (word, change) in wrong {
            let mut create = create();
            change(&mut create);
            let message = check(&create).unwrap_err().message;
            assert!(message.contains(word), "{word}: {message}");
        }
        let mut large = create();
        file(&mut large).content = LogBytes::Text("x".repeat(FILES_BYTES_MAX + 1));
        assert!(check(&large).unwrap_err().message.contains("`volumes` have"));
    }
}
