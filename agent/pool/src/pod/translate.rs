//! A Pod becomes a microVM's specification, or is refused with the names of the fields.
//!
//! Every struct is taken apart field by field, so that a field of a later Kubernetes is decided when the library brings it: the
//! compiler asks. What is left out (`_`) has its reason beside it.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use secovia_agent_api::{Mount, RestartPolicy, VmCreate};

use super::container::{Process, PullPolicy, process};
use super::env::{Context, Sources};
use super::facts::Facts;
use super::identity::{Identity, label};
use super::refusal::{Judge, Trouble, has_any};
use super::resources;
use super::volume::{self, mounts};

/// How long a workload has between SIGTERM and SIGKILL where the Pod does not say, in seconds.
pub const USUAL_GRACE_S: u32 = 30;

/// A Pod as a microVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What the agent is asked for; the image's name is the Pod's, which still has to be looked up.
    pub create: VmCreate,
    /// When its image is fetched.
    pub pull: PullPolicy,
    /// The images of further containers, and when they are fetched.
    pub more: Vec<(String, PullPolicy)>,
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
        // With the mounts.
        volumes: _,
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
    let mut one = |container: &Container, at: String| {
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
        let mounts = mounts(container, spec, &at, &mut judge);
        let process = process(container, &at, &context, &mut judge);
        (process, mounts)
    };
    let processes: Vec<_> = (0..)
        .zip(containers)
        .map(|(n, container)| one(container, format!("spec.containers[{n}]")))
        .collect();
    let inits = init_containers.iter().flatten();
    let inits: Vec<_> = (0..)
        .zip(inits.clone())
        .map(|(n, container)| one(container, format!("spec.initContainers[{n}]")))
        .collect();
    for (index, (process, _)) in inits.iter().enumerate() {
        judge.refuse_if(
            process.probes.any(),
            format!("spec.initContainers[{index}]"),
            "an init container has no probes",
        );
    }
    let nothing = resources::Resources::default();
    let context = Context {
        pod,
        facts,
        sources,
        resources: &nothing,
    };
    let volumes = volume::volumes(spec, &context, &mut judge);
    judge.verdict()?;
    let mut labels = identity.labels();
    labels.insert(label::GRACE_S.into(), grace.to_string());
    labels.insert(label::CONTAINER.into(), container.name.clone());
    let pull_secrets = image_pull_secrets.iter().flatten();
    let pull_secrets = pull_secrets.map(|secret| secret.name.clone()).collect();
    let base = VmCreate {
        name: Some(identity.vm_name()),
        hostname: Some(host_name(hostname.as_deref().unwrap_or(&identity.name))),
        restart,
        labels,
        ..VmCreate::new("")
    };
    let is_plain = |(process, mounts): &(Process, Vec<Mount>)| !process.probes.any() && mounts.is_empty();
    let mut processes = processes;
    // One workload needs no supervisor in its guest: the agent is that.
    if !(processes.len() == 1 && inits.is_empty() && volumes.is_empty() && processes.iter().all(is_plain)) {
        let names: Vec<&Container> = containers.iter().collect();
        let init_names: Vec<&Container> = init_containers.iter().flatten().collect();
        return Ok(several(
            base,
            (
                init_names.into_iter().zip(inits).collect(),
                names.into_iter().zip(processes).collect(),
            ),
            volumes,
            pull_secrets,
            (grace, facts),
        ));
    }
    let (process, _) = processes.remove(0);
    let create = VmCreate {
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
        stdin: process.stdin,
        tty: process.tty,
        image: process.image,
        ..base
    };
    Ok(Machine {
        create,
        pull: process.pull,
        more: Vec::new(),
        pull_secrets,
    })
}

/// A container with what becomes of it.
type Decided<'a> = (&'a Container, (Process, Vec<Mount>));

/// A microVM with several containers.
fn several(
    base: VmCreate,
    (inits, containers): (Vec<Decided<'_>>, Vec<Decided<'_>>),
    volumes: Vec<secovia_agent_api::Volume>,
    pull_secrets: Vec<String>,
    (grace, facts): (i64, &Facts),
) -> Machine {
    let sizes =
        |all: &[Decided<'_>]| -> Vec<_> { all.iter().map(|(_, (process, _))| process.size).collect() };
    let size = resources::together(&sizes(&inits), &sizes(&containers), facts);
    let images = containers.iter().chain(&inits);
    let mut images = images.map(|(_, (process, _))| (process.image.clone(), process.pull));
    let (image, pull) = images.next().unwrap_or_default();
    let more = images.collect();
    let mut publish = Vec::new();
    let mut whole = |(container, (process, mounts)): Decided<'_>| {
        publish.extend(process.publish);
        secovia_agent_api::Container {
            name: container.name.clone(),
            image: process.image,
            entrypoint: process.entrypoint,
            command: process.command,
            env: process.env,
            user: process.user,
            working_dir: process.working_dir,
            tty: process.tty,
            stdin: process.stdin,
            mounts,
            liveness: process.probes.liveness,
            readiness: process.probes.readiness,
            startup: process.probes.startup,
            grace_s: u32::try_from(grace).unwrap_or(USUAL_GRACE_S),
        }
    };
    let init_containers = inits.into_iter().map(&mut whole).collect();
    let containers = containers.into_iter().map(&mut whole).collect();
    let create = VmCreate {
        image,
        init_containers,
        containers,
        volumes,
        cpus: size.cpus,
        cpu_millis: Some(size.cpu_millis),
        memory_mib: size.memory_mib,
        disk_mib: size.disk_mib,
        publish,
        ..base
    };
    Machine {
        create,
        pull,
        more,
        pull_secrets,
    }
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
            "each container sees its own processes here; leave it out",
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
