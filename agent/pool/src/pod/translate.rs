//! A Pod becomes a microVM's specification, or is refused with the names of the fields.
//!
//! Every struct is taken apart field by field, so that a field of a later Kubernetes is decided when the library brings it: the
//! compiler asks. What is left out (`_`) has its reason beside it.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use secovia_agent_api::{RestartPolicy, VmCreate};

use super::container::{PullPolicy, is_token_volume, process};
use super::env::{Context, Sources};
use super::facts::Facts;
use super::identity::{Identity, label};
use super::refusal::{Judge, Trouble, has_any};
use super::resources;

/// How long a workload has between SIGTERM and SIGKILL where the Pod does not say, in seconds.
pub const USUAL_GRACE_S: u32 = 30;

/// A Pod as a microVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What the agent is asked for; the image's name is the Pod's, which still has to be looked up.
    pub create: VmCreate,
    /// When its image is fetched.
    pub pull: PullPolicy,
    /// Secrets, by name, with credentials for the image's registry.
    pub pull_secrets: Vec<String>,
}

/// The microVM that a Pod asks for.
pub fn translate(pod: &Pod, sources: &Sources, facts: &Facts) -> Result<Machine, Trouble> {
    let mut judge = Judge::default();
    let (Some(spec), Some(identity)) = (&pod.spec, Identity::of(pod)) else {
        judge.refuse("metadata", "a Pod has a name, a namespace, a uid and a spec");
        judge.verdict()?;
        return Err(Trouble::Missing("the Pod is not whole".into()));
    };
    fences(spec, &mut judge);
    let PodSpec {
        // The plan ends it.
        active_deadline_seconds: _,
        automount_service_account_token,
        containers,
        dns_config,
        dns_policy,
        // Variables with the addresses of services, which lead nowhere from here.
        enable_service_links: _,
        // They come to a Pod that runs already, for a debugger; the Pod goes on without.
        ephemeral_containers: _,
        host_aliases,
        hostname,
        image_pull_secrets,
        init_containers,
        os,
        // Reported.
        readiness_gates: _,
        restart_policy,
        security_context: _,
        // Names of the API's rights, which no workload here gets.
        service_account: _,
        service_account_name: _,
        set_hostname_as_fqdn,
        // A name in the cluster's DNS, which is not served here.
        subdomain: _,
        termination_grace_period_seconds,
        volumes,
        // Seen to by `fences`, and the scheduler's.
        host_ipc: _,
        host_network: _,
        host_pid: _,
        host_users: _,
        overhead: _,
        resource_claims: _,
        resources: _,
        runtime_class_name: _,
        share_process_namespace: _,
        affinity: _,
        node_name: _,
        node_selector: _,
        preemption_policy: _,
        priority: _,
        priority_class_name: _,
        scheduler_name: _,
        scheduling_gates: _,
        tolerations: _,
        topology_spread_constraints: _,
    } = spec;
    judge.refuse_if(
        *automount_service_account_token == Some(true),
        "spec.automountServiceAccountToken",
        "a workload of a lent machine gets no rights in the region; set it to false or leave it out",
    );
    judge.refuse_if(
        dns_config.is_some(),
        "spec.dnsConfig",
        "names are asked of the node's servers; leave it out",
    );
    // The usual ClusterFirst means the node's servers here, as with every node that has none of the cluster's.
    judge.refuse_if(
        dns_policy.as_deref() == Some("None"),
        "spec.dnsPolicy",
        "names are asked of the node's servers; use Default",
    );
    judge.refuse_if(
        has_any(host_aliases),
        "spec.hostAliases",
        "/etc/hosts is the image's; leave it out",
    );
    judge.refuse_if(
        *set_hostname_as_fqdn == Some(true),
        "spec.setHostnameAsFQDN",
        "the host name is the short one; leave it out",
    );
    judge.refuse_if(
        os.as_ref().is_some_and(|os| os.name != "linux"),
        "spec.os.name",
        "this node runs Linux",
    );
    judge.refuse_if(
        has_any(init_containers),
        "spec.initContainers",
        "this node runs one container a Pod so far",
    );
    judge.refuse_if(
        containers.len() > 1,
        "spec.containers[1]",
        "this node runs one container a Pod so far",
    );
    let grace = termination_grace_period_seconds
        .unwrap_or(USUAL_GRACE_S.into())
        .max(0);
    let restart = match restart_policy.as_deref() {
        None | Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure { max_retries: None },
        Some("Never") => RestartPolicy::No,
        Some(_) => {
            judge.refuse("spec.restartPolicy", "it is neither Always, OnFailure nor Never");
            RestartPolicy::No
        }
    };
    let Some(container) = containers.first() else {
        judge.refuse("spec.containers", "a Pod has one");
        judge.verdict()?;
        return Err(Trouble::Missing("the Pod has no container".into()));
    };
    for (index, volume) in volumes.iter().flatten().enumerate() {
        judge.refuse_if(
            !is_token_volume(volume, container),
            format!("spec.volumes[{index}]"),
            "this node has no volumes yet",
        );
    }
    let at = "spec.containers[0]";
    let read = resources::read(
        container.resources.as_ref(),
        &format!("{at}.resources"),
        &mut judge,
    );
    let context = Context {
        pod,
        facts,
        sources,
        resources: &read,
    };
    let process = process(container, at, &context, &mut judge);
    judge.verdict()?;
    let mut labels = identity.labels();
    labels.insert(label::GRACE_S.into(), grace.to_string());
    labels.insert(label::CONTAINER.into(), container.name.clone());
    let create = VmCreate {
        name: Some(identity.vm_name()),
        hostname: Some(host_name(hostname.as_deref().unwrap_or(&identity.name))),
        entrypoint: process.entrypoint,
        command: process.command,
        env: process.env,
        user: process.user,
        working_dir: process.working_dir,
        cpus: process.size.cpus,
        cpu_millis: Some(process.size.cpu_millis),
        memory_mib: process.size.memory_mib,
        disk_mib: process.size.disk_mib,
        publish: process.publish,
        restart,
        labels,
        stdin: process.stdin,
        tty: process.tty,
        ..VmCreate::new(process.image)
    };
    let pull_secrets = image_pull_secrets
        .iter()
        .flatten()
        .map(|secret| secret.name.clone());
    Ok(Machine {
        create,
        pull: process.pull,
        pull_secrets: pull_secrets.collect(),
    })
}

/// What would open the host, or is the business of what this node has not.
fn fences(spec: &PodSpec, judge: &mut Judge) {
    let host = "nothing of this host is handed to a Pod; leave it out";
    for (holds, field, why) in [
        (spec.host_ipc == Some(true), "spec.hostIPC", host),
        (spec.host_network == Some(true), "spec.hostNetwork", host),
        (spec.host_pid == Some(true), "spec.hostPID", host),
        (
            has_any(&spec.resource_claims),
            "spec.resourceClaims",
            "this node lends no devices; leave it out",
        ),
        (
            spec.resources.is_some(),
            "spec.resources",
            "give the container its resources",
        ),
        (
            spec.runtime_class_name
                .as_ref()
                .is_some_and(|name| !name.is_empty()),
            "spec.runtimeClassName",
            "every Pod is a microVM here; leave it out",
        ),
        (
            spec.overhead
                .as_ref()
                .is_some_and(|overhead| !overhead.is_empty()),
            "spec.overhead",
            "it comes with a runtimeClassName; leave that out",
        ),
        (
            spec.share_process_namespace == Some(true),
            "spec.shareProcessNamespace",
            "a Pod has one container here; leave it out",
        ),
    ] {
        judge.refuse_if(holds, field, why);
    }
}

/// A host name has no dots and at most 63 letters; Kubernetes cuts it in the same way.
fn host_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .take(63)
        .collect();
    plain.trim_matches('-').to_string()
}

#[cfg(test)]
mod tests;
