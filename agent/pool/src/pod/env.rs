//! A container's environment: values, keys of ConfigMaps and Secrets, fields of the Pod, its resources.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMapEnvSource, ConfigMapKeySelector, Container, EnvFromSource, EnvVar, EnvVarSource,
    ObjectFieldSelector, Pod, PodSpec, ResourceFieldSelector, SecretEnvSource, SecretKeySelector,
};

use super::Quantity;
use super::expand::expand;
use super::facts::Facts;
use super::refusal::Judge;
use super::resources::{Asked, Resources};

/// ConfigMaps and Secrets of the Pod's namespace, by name, as far as they exist.
#[derive(Clone, Default)]
pub struct Sources {
    /// `data` of each.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// `binaryData` of each, where it has some.
    pub binary: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// `data` of each, decoded. Never shown.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Sources {
    /// All that a ConfigMap holds.
    pub(super) fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let texts = self.config_maps.get(name)?.iter();
        let mut all: BTreeMap<String, Vec<u8>> = texts
            .map(|(key, text)| (key.clone(), text.clone().into_bytes()))
            .collect();
        all.extend(self.binary.get(name).cloned().unwrap_or_default());
        Some(all)
    }
}

/// Which of them a Pod names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// ConfigMaps' names.
    pub config_maps: BTreeSet<String>,
    /// Secrets' names.
    pub secrets: BTreeSet<String>,
}

/// Which of them the environments of a Pod's containers name.
pub(super) fn needs_of(spec: &PodSpec, needs: &mut Needs) {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers {
        for from in container.env_from.iter().flatten() {
            needs
                .config_maps
                .extend(from.config_map_ref.iter().map(|map| map.name.clone()));
            needs
                .secrets
                .extend(from.secret_ref.iter().map(|secret| secret.name.clone()));
        }
        for from in container
            .env
            .iter()
            .flatten()
            .filter_map(|env| env.value_from.as_ref())
        {
            needs
                .config_maps
                .extend(from.config_map_key_ref.iter().map(|key| key.name.clone()));
            needs
                .secrets
                .extend(from.secret_key_ref.iter().map(|key| key.name.clone()));
        }
    }
}

/// All that a variable's value may come from.
pub(super) struct Context<'a> {
    pub(super) pod: &'a Pod,
    pub(super) facts: &'a Facts,
    pub(super) sources: &'a Sources,
    pub(super) resources: &'a Resources,
}

/// The environment, in Kubernetes' order: later ones win, and may be made of earlier ones.
pub(super) fn environment(
    container: &Container,
    at: &str,
    context: &Context<'_>,
    judge: &mut Judge,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        env.extend(all_of(
            from,
            &format!("{at}.envFrom[{index}]"),
            context.sources,
            judge,
        ));
    }
    for (
        index,
        EnvVar {
            name,
            value,
            value_from,
        },
    ) in container.env.iter().flatten().enumerate()
    {
        let at = format!("{at}.env[{index}]");
        if !is_name(name) {
            judge.refuse(format!("{at}.name"), "no program can get a variable of that name");
            continue;
        }
        let value = match value_from {
            None => Some(expand(value.as_deref().unwrap_or_default(), &env)),
            Some(from) => one_of(from, container, &format!("{at}.valueFrom"), context, judge),
        };
        match value {
            Some(value) if value.contains('\0') => {
                judge.refuse(at, "the value has a zero byte; no program can get that");
            }
            Some(value) => drop(env.insert(name.clone(), value)),
            None => {}
        }
    }
    env
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Every key of a source that can be a variable; the others are left out, as Kubernetes does.
fn all_of(from: &EnvFromSource, at: &str, sources: &Sources, judge: &mut Judge) -> BTreeMap<String, String> {
    let EnvFromSource {
        config_map_ref,
        prefix,
        secret_ref,
    } = from;
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    if let Some(ConfigMapEnvSource { name, optional }) = config_map_ref {
        match sources.config_maps.get(name) {
            Some(data) => found.extend(data.clone()),
            None => absent("ConfigMap", name, *optional, judge),
        }
    }
    if let Some(SecretEnvSource { name, optional }) = secret_ref {
        match sources.secrets.get(name) {
            Some(data) => {
                for (key, value) in data {
                    if let Some(text) = text_of(value, &format!("{at}.secretRef"), key, judge) {
                        found.insert(key.clone(), text);
                    }
                }
            }
            None => absent("Secret", name, *optional, judge),
        }
    }
    let prefix = prefix.as_deref().unwrap_or_default();
    found
        .into_iter()
        .map(|(key, value)| (format!("{prefix}{key}"), value))
        .filter(|(key, value)| is_name(key) && !value.contains('\0'))
        .collect()
}

fn one_of(
    from: &EnvVarSource,
    container: &Container,
    at: &str,
    context: &Context<'_>,
    judge: &mut Judge,
) -> Option<String> {
    let EnvVarSource {
        config_map_key_ref,
        field_ref,
        resource_field_ref,
        secret_key_ref,
    } = from;
    if let Some(ConfigMapKeySelector { key, name, optional }) = config_map_key_ref {
        let data = context.sources.config_maps.get(name);
        let value = data.and_then(|data| data.get(key)).cloned();
        if value.is_none() {
            absent(&format!("key {key} of ConfigMap"), name, *optional, judge);
        }
        return value;
    }
    if let Some(SecretKeySelector { key, name, optional }) = secret_key_ref {
        let data = context.sources.secrets.get(name);
        return match data.and_then(|data| data.get(key)) {
            Some(value) => text_of(value, &format!("{at}.secretKeyRef"), key, judge),
            None => {
                absent(&format!("key {key} of Secret"), name, *optional, judge);
                None
            }
        };
    }
    if let Some(ObjectFieldSelector {
        api_version: _,
        field_path,
    }) = field_ref
    {
        let value = field(field_path, context);
        if value.is_none() {
            let why = match field_path.as_str() {
                "status.podIP" | "status.podIPs" => {
                    "a microVM's address is known only once it is there".into()
                }
                _ => format!("the field {field_path} is none that can be had here"),
            };
            judge.refuse(format!("{at}.fieldRef"), why);
        }
        return value;
    }
    if let Some(selector) = resource_field_ref {
        return amount(
            selector,
            container,
            &format!("{at}.resourceFieldRef"),
            context,
            judge,
        );
    }
    // A source of a later Kubernetes is read as none at all.
    judge.refuse(at, "this node does not know where that value comes from");
    None
}

pub(super) fn absent(what: &str, name: &str, optional: Option<bool>, judge: &mut Judge) {
    if optional != Some(true) {
        judge.miss(format!("{what} {name} is not there"));
    }
}

fn text_of(value: &[u8], at: &str, key: &str, judge: &mut Judge) -> Option<String> {
    let text = String::from_utf8(value.to_vec()).ok();
    judge.refuse_if(
        text.is_none(),
        at,
        &format!("key {key} holds bytes that are no text (UTF-8), which a variable cannot be"),
    );
    text
}

/// The downward API's fields for variables.
pub(super) fn field(path: &str, context: &Context<'_>) -> Option<String> {
    let meta = &context.pod.metadata;
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels['") {
        return Some(
            meta.labels
                .as_ref()
                .and_then(|labels| labels.get(key).cloned())
                .unwrap_or_default(),
        );
    }
    if let Some(key) = keyed("metadata.annotations['") {
        let annotations = meta.annotations.as_ref();
        return Some(
            annotations
                .and_then(|all| all.get(key).cloned())
                .unwrap_or_default(),
        );
    }
    match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "spec.nodeName" => Some(context.facts.node_name.clone()),
        "spec.serviceAccountName" => {
            let spec = context.pod.spec.as_ref();
            Some(
                spec.and_then(|spec| spec.service_account_name.clone())
                    .unwrap_or_default(),
            )
        }
        "status.hostIP" | "status.hostIPs" => Some(context.facts.host_ip.to_string()),
        _ => None,
    }
}

/// A request or limit, in units of the divisor, rounded up. What is not limited is limited by the node.
fn amount(
    selector: &ResourceFieldSelector,
    container: &Container,
    at: &str,
    context: &Context<'_>,
    judge: &mut Judge,
) -> Option<String> {
    let ResourceFieldSelector {
        container_name,
        divisor,
        resource,
    } = selector;
    if container_name
        .as_ref()
        .is_some_and(|name| !name.is_empty() && *name != container.name)
    {
        judge.refuse(
            format!("{at}.containerName"),
            "there is no such container in the Pod",
        );
        return None;
    }
    let divisor = match divisor.as_ref().map(Quantity::try_from).transpose() {
        Ok(divisor) => divisor.unwrap_or_default(),
        Err(error) => {
            judge.refuse(format!("{at}.divisor"), error.to_string());
            return None;
        }
    };
    let Facts { allocatable, .. } = context.facts;
    let node = Asked {
        cpu: Some(Quantity::from_millis(allocatable.cpu_millis)),
        memory: Some(Quantity::from_units(allocatable.memory_bytes)),
        disk: Some(Quantity::from_units(allocatable.disk_bytes)),
    };
    let Resources { requests, limits } = context.resources;
    let (amounts, otherwise, name) = match resource.split_once('.') {
        Some(("requests", name)) => (requests, Asked::default(), name),
        Some(("limits", name)) => (limits, node, name),
        _ => (limits, node, ""),
    };
    let amount = match name {
        "cpu" => amounts.cpu.or(otherwise.cpu),
        "memory" => amounts.memory.or(otherwise.memory),
        "ephemeral-storage" => amounts.disk.or(otherwise.disk),
        _ => {
            judge.refuse(
                format!("{at}.resource"),
                "it is no request or limit of cpu, memory or ephemeral-storage",
            );
            return None;
        }
    };
    Some(amount.unwrap_or_default().over(divisor).to_string())
}
