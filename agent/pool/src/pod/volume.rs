//! A Pod's volumes. Files of ConfigMaps, Secrets and of the Pod's own fields are what they are when the Pod's microVM is made:
//! later changes do not reach it. They lie in the guest's memory and in the agent's records, which only it can read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, Container, DownwardAPIProjection, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, PodSpec,
    ProjectedVolumeSource, SecretProjection, SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
};
use secovia_agent_api::{LogBytes, Mount, VolumeContent, VolumeFile};

use super::Quantity;
use super::container::{is_token, is_token_volume};
use super::env::{Context, Needs, absent, field};
use super::refusal::Judge;

/// The permissions of a file that nobody says otherwise of.
const USUAL_MODE: i32 = 0o644;

/// A volume of files in the form that has room for each kind of them: a volume of one ConfigMap is what projects that alone.
struct Projected {
    /// What becomes files, and where the Pod says so.
    sources: Vec<(String, VolumeProjection)>,
    /// The permissions of files of which nobody says otherwise.
    default_mode: Option<i32>,
}

impl Projected {
    /// The volume's files; none where it is no volume of files.
    fn of(volume: &Volume, at: &str) -> Option<Self> {
        let (source, default_mode) = if let Some(map) = volume.config_map.clone() {
            let ConfigMapVolumeSource {
                default_mode,
                items,
                name,
                optional,
            } = map;
            let config_map = Some(ConfigMapProjection {
                items,
                name,
                optional,
            });
            let source = VolumeProjection {
                config_map,
                ..VolumeProjection::default()
            };
            (source, default_mode)
        } else if let Some(secret) = volume.secret.clone() {
            let SecretVolumeSource {
                default_mode,
                items,
                optional,
                secret_name,
            } = secret;
            let secret = Some(SecretProjection {
                items,
                name: secret_name.unwrap_or_default(),
                optional,
            });
            let source = VolumeProjection {
                secret,
                ..VolumeProjection::default()
            };
            (source, default_mode)
        } else if let Some(DownwardAPIVolumeSource { default_mode, items }) = volume.downward_api.clone() {
            let source = VolumeProjection {
                downward_api: Some(DownwardAPIProjection { items }),
                ..VolumeProjection::default()
            };
            (source, default_mode)
        } else {
            let ProjectedVolumeSource {
                default_mode,
                sources,
            } = volume.projected.clone()?;
            let sources = sources.into_iter().flatten().enumerate();
            let sources = sources.map(|(index, source)| (format!("{at}.projected.sources[{index}]"), source));
            return Some(Self {
                sources: sources.collect(),
                default_mode,
            });
        };
        Some(Self {
            sources: vec![(at.to_string(), source)],
            default_mode,
        })
    }
}

/// Which ConfigMaps and Secrets a Pod's volumes name.
pub(super) fn needs_of(spec: &PodSpec, needs: &mut Needs) {
    let volumes = spec.volumes.iter().flatten();
    let kept = volumes.filter(|volume| !is_token_volume(volume, &spec.containers));
    for (_, source) in kept
        .filter_map(|volume| Projected::of(volume, ""))
        .flat_map(|all| all.sources)
    {
        needs.config_maps.extend(source.config_map.map(|map| map.name));
        let secret = source.secret.map(|secret| secret.name);
        needs.secrets.extend(secret.filter(|name| !name.is_empty()));
    }
}

/// A Pod's volumes, every one decided; those that are there for a token alone are left out.
pub(super) fn volumes(
    spec: &PodSpec,
    context: &Context<'_>,
    judge: &mut Judge,
) -> Vec<secovia_agent_api::Volume> {
    let mut all = Vec::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if is_token_volume(volume, &spec.containers) {
            continue;
        }
        let at = format!("spec.volumes[{index}]");
        if let Some(content) = content(volume, &at, context, judge) {
            all.push(secovia_agent_api::Volume {
                name: volume.name.clone(),
                content,
            });
        }
    }
    all
}

fn content(volume: &Volume, at: &str, context: &Context<'_>, judge: &mut Judge) -> Option<VolumeContent> {
    if let Some(EmptyDirVolumeSource { medium, size_limit }) = &volume.empty_dir {
        let limit = match size_limit.as_ref().map(Quantity::try_from).transpose() {
            Ok(limit) => limit.map(Quantity::units).filter(|bytes| *bytes > 0),
            Err(error) => {
                judge.refuse(format!("{at}.emptyDir.sizeLimit"), error.to_string());
                None
            }
        };
        return match medium.as_deref() {
            // On the layer, whose disk is the limit that counts.
            None | Some("") => Some(VolumeContent::Empty {}),
            Some("Memory") => Some(VolumeContent::Memory { size_bytes: limit }),
            Some(_) => {
                judge.refuse(format!("{at}.emptyDir.medium"), "leave it out or use Memory");
                None
            }
        };
    }
    let Some(projected) = Projected::of(volume, at) else {
        judge.refuse(
            at,
            "this node has emptyDir, configMap, secret, downwardAPI and projected volumes",
        );
        return None;
    };
    let mut files = Files::default();
    for (at, source) in &projected.sources {
        projection(source, &projected.default_mode, at, &mut files, context, judge);
    }
    let mut names = BTreeSet::new();
    let is_good =
        |path: &str| path.split('/').all(|name| !matches!(name, "" | "." | "..")) && !path.contains('\0');
    for file in &files.0 {
        if !is_good(&file.path) || !names.insert(file.path.clone()) {
            judge.refuse(at, format!("a file cannot be at {:?}, or is twice", file.path));
        }
    }
    Some(VolumeContent::Files { files: files.0 })
}

fn projection(
    source: &VolumeProjection,
    default_mode: &Option<i32>,
    at: &str,
    files: &mut Files,
    context: &Context<'_>,
    judge: &mut Judge,
) {
    let VolumeProjection {
        cluster_trust_bundle,
        config_map,
        downward_api,
        secret,
        service_account_token,
    } = source;
    judge.refuse_if(
        cluster_trust_bundle.is_some(),
        format!("{at}.clusterTrustBundle"),
        "use a ConfigMap",
    );
    judge.refuse_if(
        service_account_token.is_some(),
        format!("{at}.serviceAccountToken"),
        "a workload of a lent machine gets no rights in the region; leave it out",
    );
    if let Some(map) = config_map {
        let data = context.sources.config_map(&map.name);
        let (name, items, optional) = (map.name.as_str(), &map.items, &map.optional);
        files.take(
            &Keys {
                what: "ConfigMap",
                name,
                data,
                items,
                default_mode,
                optional,
            },
            judge,
        );
    }
    if let Some(secret) = secret {
        let data = context.sources.secrets.get(&secret.name).cloned();
        let (name, items, optional) = (secret.name.as_str(), &secret.items, &secret.optional);
        files.take(
            &Keys {
                what: "Secret",
                name,
                data,
                items,
                default_mode,
                optional,
            },
            judge,
        );
    }
    for (index, item) in downward_api
        .iter()
        .flat_map(|all| all.items.iter().flatten())
        .enumerate()
    {
        let at = format!("{at}.downwardAPI.items[{index}]");
        files.own(item, default_mode, &at, context, judge);
    }
}

/// Keys of an object that become files.
struct Keys<'a> {
    what: &'a str,
    name: &'a str,
    data: Option<BTreeMap<String, Vec<u8>>>,
    items: &'a Option<Vec<KeyToPath>>,
    default_mode: &'a Option<i32>,
    optional: &'a Option<bool>,
}

#[derive(Default)]
struct Files(Vec<VolumeFile>);

impl Files {
    fn add(&mut self, path: &str, bytes: &[u8], mode: Option<i32>) {
        self.0.push(VolumeFile {
            path: path.into(),
            mode: (mode.unwrap_or(USUAL_MODE) & 0o777).unsigned_abs(),
            gid: 0,
            content: LogBytes::from_bytes(bytes),
        });
    }

    fn take(&mut self, keys: &Keys<'_>, judge: &mut Judge) {
        let Some(data) = &keys.data else {
            return absent(keys.what, keys.name, *keys.optional, judge);
        };
        // What a list leaves out stays out; without one, all come.
        let Some(items) = keys.items.as_ref().filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                self.add(key, bytes, *keys.default_mode);
            }
            return;
        };
        for KeyToPath { key, mode, path } in items {
            match data.get(key) {
                Some(bytes) => self.add(path, bytes, mode.or(*keys.default_mode)),
                None => {
                    let what = format!("key {key} of {}", keys.what);
                    absent(&what, keys.name, *keys.optional, judge);
                }
            }
        }
    }

    /// A field of the Pod's own.
    fn own(
        &mut self,
        item: &DownwardAPIVolumeFile,
        default_mode: &Option<i32>,
        at: &str,
        context: &Context<'_>,
        judge: &mut Judge,
    ) {
        let DownwardAPIVolumeFile {
            field_ref,
            mode,
            path,
            resource_field_ref,
        } = item;
        judge.refuse_if(
            resource_field_ref.is_some(),
            format!("{at}.resourceFieldRef"),
            "use an environment variable for it",
        );
        let Some(ObjectFieldSelector { field_path, .. }) = field_ref else {
            return;
        };
        let meta = &context.pod.metadata;
        let text = match field_path.as_str() {
            "metadata.labels" => Some(lines(meta.labels.as_ref())),
            "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
            path => field(path, context),
        };
        match text {
            Some(text) => self.add(path, text.as_bytes(), mode.or(*default_mode)),
            None => judge.refuse(
                format!("{at}.fieldRef"),
                format!("the field {field_path} is none that can be had here"),
            ),
        }
    }
}

/// `key="value"`, one a line.
fn lines(all: Option<&BTreeMap<String, String>>) -> String {
    let lines = all.into_iter().flatten();
    let lines: Vec<String> = lines.map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// Where a container sees volumes; the token's place is left out.
pub(super) fn mounts(container: &Container, spec: &PodSpec, at: &str, judge: &mut Judge) -> Vec<Mount> {
    let mut all = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = format!("{at}.volumeMounts[{index}]");
        let VolumeMount {
            mount_path,
            mount_propagation,
            name,
            read_only,
            recursive_read_only,
            sub_path,
            sub_path_expr,
        } = mount;
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == *name);
        let is_left_out = match volume {
            Some(volume) => is_token_volume(volume, &spec.containers),
            None => is_token(mount),
        };
        if is_left_out {
            continue;
        }
        judge.refuse_if(volume.is_none(), &at, "there is no volume of that name");
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let whole = "a volume is mounted whole; use a volume with that part alone";
        judge.refuse_if(given(sub_path), format!("{at}.subPath"), whole);
        judge.refuse_if(given(sub_path_expr), format!("{at}.subPathExpr"), whole);
        judge.refuse_if(
            mount_propagation.as_deref().is_some_and(|kind| kind != "None"),
            format!("{at}.mountPropagation"),
            "only None is done",
        );
        judge.refuse_if(
            recursive_read_only
                .as_deref()
                .is_some_and(|kind| kind == "Enabled"),
            format!("{at}.recursiveReadOnly"),
            "use readOnly",
        );
        judge.refuse_if(
            !mount_path.starts_with('/'),
            format!("{at}.mountPath"),
            "give an absolute path",
        );
        all.push(Mount {
            volume: name.clone(),
            path: mount_path.clone(),
            read_only: *read_only == Some(true),
        });
    }
    all
}
