//! A Pod's containers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Volume, VolumeMount};
use secovia_agent_api::{Probe, Publish, TerminalSize, Transport};

use super::env::{Context, environment};
use super::expand::expand;
use super::refusal::{Judge, has_any};
use super::{resources, security};

/// Where Kubernetes mounts the token of a Pod's service account.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The terminal of a container that wants one, until somebody attaches.
const TERMINAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// When an image is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// For every microVM anew, where it changed.
    Always,
    /// Where it is not there.
    #[default]
    IfNotPresent,
    /// It has to be there.
    Never,
}

/// What becomes of a container.
pub(super) struct Process {
    pub(super) image: String,
    pub(super) pull: PullPolicy,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) user: Option<String>,
    pub(super) working_dir: Option<String>,
    pub(super) publish: Vec<Publish>,
    pub(super) size: resources::Size,
    pub(super) probes: Probes,
    pub(super) stdin: bool,
    pub(super) tty: Option<TerminalSize>,
}

/// How it is asked how it is.
#[derive(Default)]
pub(super) struct Probes {
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) startup: Option<Probe>,
}

impl Probes {
    pub(super) fn any(&self) -> bool {
        self.liveness.is_some() || self.readiness.is_some() || self.startup.is_some()
    }
}

/// Every field of the container, decided. `read` are its resources, which its environment may name.
pub(super) fn process(container: &Container, at: &str, context: &Context<'_>, judge: &mut Judge) -> Process {
    let Container {
        args,
        command,
        env: _,
        env_from: _,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name: _,
        ports,
        readiness_probe,
        // How a resize goes; a resize itself is not done.
        resize_policy: _,
        resources: _,
        restart_policy,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        // A message of the workload's own about its end is one that need not be there.
        termination_message_path: _,
        termination_message_policy: _,
        tty,
        volume_devices,
        // With the Pod's volumes.
        volume_mounts: _,
        working_dir,
    } = container;
    let field = |name: &str| format!("{at}.{name}");
    judge.refuse_if(
        lifecycle.is_some(),
        field("lifecycle"),
        "this node runs no hooks; leave it out",
    );
    let mut probe = |probe, name| super::probe::probe(probe, container, &field(name), judge);
    let probes = Probes {
        liveness: probe(liveness_probe.as_ref(), "livenessProbe"),
        readiness: probe(readiness_probe.as_ref(), "readinessProbe"),
        startup: probe(startup_probe.as_ref(), "startupProbe"),
    };
    judge.refuse_if(
        restart_policy.is_some(),
        field("restartPolicy"),
        "the Pod's restartPolicy is the only one here",
    );
    judge.refuse_if(
        *stdin_once == Some(true),
        field("stdinOnce"),
        "input stays open here; leave it out",
    );
    judge.refuse_if(
        has_any(volume_devices),
        field("volumeDevices"),
        "this node lends no devices",
    );
    let image = image.clone().unwrap_or_default();
    judge.refuse_if(image.is_empty(), field("image"), "name one");
    let pull = match image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        None | Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some(_) => {
            judge.refuse(
                field("imagePullPolicy"),
                "it is neither Always, IfNotPresent nor Never",
            );
            PullPolicy::Never
        }
    };
    let working_dir = working_dir.clone().filter(|dir| !dir.is_empty());
    judge.refuse_if(
        working_dir.as_ref().is_some_and(|dir| !dir.starts_with('/')),
        field("workingDir"),
        "give an absolute path",
    );
    let env = environment(container, at, context, judge);
    let words = |words: &Vec<String>| words.iter().map(|word| expand(word, &env)).collect();
    let entrypoint: Option<Vec<String>> = command.as_ref().filter(|words| !words.is_empty()).map(words);
    let command: Vec<String> = args.as_ref().map(words).unwrap_or_default();
    for (name, words) in [
        ("command", entrypoint.as_deref().unwrap_or_default()),
        ("args", &command),
    ] {
        let has_zero = words.iter().any(|word| word.contains('\0'));
        judge.refuse_if(
            has_zero,
            field(name),
            "it has a zero byte; no program can get that",
        );
    }
    let first = entrypoint.as_ref().and_then(|words| words.first());
    judge.refuse_if(
        first.is_some_and(String::is_empty),
        field("command"),
        "it begins with an empty word",
    );
    let of_pod = context
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let user = security::user(
        of_pod,
        security_context.as_ref(),
        &field("securityContext"),
        judge,
    );
    Process {
        image,
        pull,
        entrypoint,
        command,
        env,
        user,
        working_dir,
        publish: published(ports.as_deref().unwrap_or_default(), at, judge),
        size: resources::size(context.resources, context.facts),
        probes,
        stdin: *stdin == Some(true),
        tty: (*tty == Some(true)).then_some(TERMINAL),
    }
}

/// The token of the Pod's service account, which the API server mounts into every container that does not say otherwise. It is
/// left out: a workload of a lent machine gets no rights in the region.
pub(super) fn is_token(mount: &VolumeMount) -> bool {
    mount.mount_path.trim_end_matches('/') == TOKEN_DIR
}

/// Whether a volume is there for nothing but such a token.
pub(super) fn is_token_volume(volume: &Volume, containers: &[Container]) -> bool {
    let mut uses = containers
        .iter()
        .flat_map(|container| container.volume_mounts.iter().flatten())
        .filter(|mount| mount.name == volume.name)
        .peekable();
    let by_server = volume.secret.is_some() || volume.projected.is_some();
    by_server && uses.peek().is_some() && uses.all(is_token)
}

fn published(ports: &[ContainerPort], at: &str, judge: &mut Judge) -> Vec<Publish> {
    let mut published = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let ContainerPort {
            container_port,
            host_ip,
            host_port,
            // For whoever looks it up in the Pod.
            name: _,
            protocol,
        } = port;
        // A port that is only named opens nothing.
        let Some(host_port) = host_port.filter(|port| *port != 0) else {
            continue;
        };
        let at = |field: &str| format!("{at}.ports[{index}].{field}");
        let transport = match protocol.as_deref() {
            None | Some("TCP") => Some(Transport::Tcp),
            Some("UDP") => Some(Transport::Udp),
            Some(_) => None,
        };
        let address: Option<Option<IpAddr>> = match host_ip.as_deref() {
            None | Some("" | "0.0.0.0" | "::") => Some(None),
            Some(text) => text.parse().ok().map(Some),
        };
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
        judge.refuse_if(
            transport.is_none(),
            at("protocol"),
            "only TCP and UDP can be published",
        );
        judge.refuse_if(address.is_none(), at("hostIP"), "it is no address");
        judge.refuse_if(
            number(host_port).is_none(),
            at("hostPort"),
            "ports are 1 to 65535",
        );
        judge.refuse_if(
            number(*container_port).is_none(),
            at("containerPort"),
            "ports are 1 to 65535",
        );
        if let (Some(transport), Some(address), Some(host_port), Some(guest_port)) =
            (transport, address, number(host_port), number(*container_port))
        {
            published.push(Publish {
                address,
                host_port,
                guest_port,
                transport,
            });
        }
    }
    published
}
