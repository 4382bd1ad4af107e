//! The node as the API sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::Flock;
use secovia_agent_api::{
    ErrorCode, Health, HealthStatus, KillRequest, Vm, VmCreate, VmState, VmStats, WaitUntil,
};
use secovia_guest_protocol::Request;
use tokio::sync::oneshot;
use tokio::task::block_in_place;

use super::check;
use super::containers;
use super::error::NodeError;
use super::lender::Lender;
use super::network;
use super::open::{self, OpenError};
use crate::clock::now_ms;
use crate::config::Config;
use crate::guest;
use crate::images::{Image, ImageError};
use crate::lending::desk::{Desk, claim};
use crate::lifecycle::{Event, Life, advance};
use crate::network::Port;
use crate::process::Usage;
use crate::records::{PodSpec, Record, Spec, VmId};
use crate::supervisor::{Begin, Command, Context, Handle, Supervised, View, supervise};

/// What every VMM needs.
const KVM: &str = "/dev/kvm";

/// The node. One for each state directory.
#[derive(Debug)]
pub struct Node {
    pub(super) context: Arc<Context>,
    vms: Mutex<BTreeMap<VmId, Handle>>,
    /// Held while a name, a user or an image is looked up and then used: a creation, a change of the images.
    pub(super) gate: tokio::sync::Mutex<Gate>,
    /// Held as long as the node lives.
    _lock: Flock<File>,
}

/// What only the holder of the gate knows.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The user that was given last.
    last_uid: Option<u32>,
    /// The address that was given last.
    last_address: Option<Ipv4Addr>,
}

impl Node {
    /// Opens the state directory, reconciles records and host, and goes on with every VM.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let opened = block_in_place(|| open::open(config))?;
        let node = Arc::new(Self {
            context: Arc::new(opened.context),
            vms: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            _lock: opened.lock,
        });
        let begun: Vec<_> = opened
            .vms
            .into_iter()
            .map(|(record, begin)| node.adopt(record, begin).1)
            .collect();
        for begun in begun {
            // A task that removes its VM at once is done too.
            let _ = begun.await;
        }
        let lender = Lender::new(Arc::clone(&node.context));
        let vms = Arc::downgrade(&node);
        tokio::spawn(lender.run(move || vms.upgrade().map(|node| node.handles())));
        Ok(node)
    }

    /// The agent's configuration.
    pub fn config(&self) -> &Config {
        &self.context.config
    }

    fn adopt(self: &Arc<Self>, record: Record, begin: Begin) -> (Handle, oneshot::Receiver<()>) {
        let id = record.id;
        let Supervised { handle, task, begun } = supervise(Arc::clone(&self.context), record, begin);
        self.lock().insert(id, handle.clone());
        let node = Arc::downgrade(self);
        tokio::spawn(async move {
            // The task ends when the VM is removed.
            let _ = task.await;
            if let Some(node) = node.upgrade() {
                node.lock().remove(&id);
            }
        });
        (handle, begun)
    }

    /// Where VMs get their part of the machine.
    pub(super) fn desk(&self) -> &Desk {
        &self.context.desk
    }

    /// The ways to all VMs' tasks.
    pub(super) fn handles(&self) -> BTreeMap<VmId, Handle> {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Handle>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VM with this identifier or name.
    pub fn find(&self, vm: &str) -> Result<Handle, NodeError> {
        let vms = self.lock();
        let by_id = vm.parse().ok().and_then(|id: VmId| vms.get(&id));
        let by_name = || vms.values().find(|handle| handle.view.borrow().record.name == vm);
        by_id
            .or_else(by_name)
            .filter(|handle| !handle.view.borrow().removed)
            .cloned()
            .ok_or_else(|| {
                NodeError::new(
                    ErrorCode::VmNotFound,
                    format!("no microVM `{vm}`; `secovia ps --all` lists them"),
                )
            })
    }

    /// All VMs, oldest first.
    pub fn list(&self, all: bool) -> Vec<Vm> {
        let mut vms: Vec<Vm> = self
            .lock()
            .values()
            .map(|handle| handle.view.borrow().clone())
            .filter(|view| !view.removed)
            .map(|view| show(&view))
            .filter(|vm| all || vm.state.is_active())
            .collect();
        vms.sort_by(|one, other| (one.created_at_ms, &one.id).cmp(&(other.created_at_ms, &other.id)));
        vms
    }

    /// Creates a VM, and starts it where that is asked for. Its record is durable when this returns.
    pub async fn create(self: &Arc<Self>, create: VmCreate) -> Result<Vm, NodeError> {
        containers::check(&create)?;
        check::create(&create, &self.context.config.state_dir)?;
        let mut gate = self.gate.lock().await;
        let image = block_in_place(|| {
            let image = self.context.images.get(&create.image)?;
            self.context.images.touch(&create.image)?;
            Ok::<_, ImageError>(image)
        })?;
        let pod = block_in_place(|| containers::fill_in(&create, &self.context.images))?;
        let name = self.name_for(&create)?;
        let id = self.new_id()?;
        let uid = self.new_uid(gate.last_uid)?;
        gate.last_uid = Some(uid);
        let network = self.new_port(&create, gate.last_address)?;
        gate.last_address = network.as_ref().map(|port| port.lease.v4).or(gate.last_address);
        let mut record = Record {
            id,
            name,
            uid,
            network,
            hold: create.attach,
            life: Life::new(create.restart, create.rm),
            created_ms: now_ms(),
            timing: None,
            containers: pod.as_ref().map(PodSpec::begin).unwrap_or_default(),
            spec: spec(create.clone(), image, pod)?,
        };
        let mut steps = Vec::new();
        let mut needs = claim(&record.spec);
        if create.start {
            let backoff = &self.context.config.backoff;
            (record.life, steps) = advance(&record.life, &Event::Start, record.created_ms, backoff);
        } else {
            needs.active = needs.resting;
        }
        let admission = block_in_place(|| self.context.desk.admit(id, &record.name, needs))
            .map_err(|error| NodeError::admission(format!("create microVM `{}`", record.name), &error))?;
        block_in_place(|| self.context.store.put(&record)).map_err(NodeError::internal)?;
        admission.commit();
        if !create.start {
            self.context.desk.rest(id);
        }
        let (handle, _) = self.adopt(record, Begin::Steps(steps));
        drop(gate);
        let vm = show(&handle.view.borrow());
        Ok(vm)
    }

    fn name_for(&self, create: &VmCreate) -> Result<String, NodeError> {
        let taken = |name: &str| {
            self.lock().values().any(|handle| {
                let view = handle.view.borrow();
                view.record.name == name && !view.removed
            })
        };
        if let Some(name) = &create.name {
            if taken(name) {
                let message = format!("a microVM is named `{name}` already; remove it or take another name");
                return Err(NodeError::new(ErrorCode::NameTaken, message));
            }
            return Ok(name.clone());
        }
        loop {
            let number = getrandom::u32().map_err(|error| NodeError::internal(error.to_string()))?;
            let name = check::made_up_name(&create.image, number);
            if !taken(&name) {
                return Ok(name);
            }
        }
    }

    fn new_id(&self) -> Result<VmId, NodeError> {
        loop {
            let id = VmId::random().map_err(|error| NodeError::internal(error.to_string()))?;
            if !self.lock().contains_key(&id) {
                return Ok(id);
            }
        }
    }

    /// A user that no VM has; one that is just being removed still has its own.
    fn new_uid(&self, last: Option<u32>) -> Result<u32, NodeError> {
        let vms = self.lock();
        let taken = vms.values().map(|handle| handle.view.borrow().record.uid);
        let uids = &self.context.config.vm_uids;
        uids.pick(&taken.collect(), last).ok_or_else(|| {
            let message = format!(
                "all {} user ids of `vm_uids` in agent.toml are taken; remove microVMs (`secovia ps --all`) or widen it",
                uids.count()
            );
            NodeError::new(ErrorCode::InsufficientResources, message)
        })
    }

    /// A place in the network that no VM has; one that is just being removed still has its own.
    fn new_port(&self, create: &VmCreate, last: Option<Ipv4Addr>) -> Result<Option<Port>, NodeError> {
        let others: Vec<Port> = {
            let vms = self.lock();
            let ports = vms
                .values()
                .map(|handle| handle.view.borrow().record.network.clone());
            ports.flatten().collect()
        };
        network::port(create, self.context.network.as_deref(), &others, last)
    }

    /// Starts a VM that rests. The intent is durable when this returns.
    pub async fn start(&self, vm: &str) -> Result<Vm, NodeError> {
        let handle = self.find(vm)?;
        handle
            .command(Command::Start)
            .await
            .map_err(|error| NodeError::command("start", vm, error))?;
        let vm = show(&handle.view.borrow());
        Ok(vm)
    }

    /// Stops a VM: returns when it has ended.
    pub async fn stop(&self, vm: &str, grace_s: u32) -> Result<Vm, NodeError> {
        let grace_ms = u64::from(grace_s) * 1_000;
        self.end(vm, "stop", Command::Stop { grace_ms }).await
    }

    /// Ends a VM at once, or sends a signal to its workload.
    pub async fn kill(&self, vm: &str, request: KillRequest) -> Result<Vm, NodeError> {
        let Some(signal) = request.signal else {
            return self.end(vm, "kill", Command::Kill).await;
        };
        let handle = self.find(vm)?;
        let view = handle.view.borrow().clone();
        if !matches!(show(&view).state, VmState::Running) {
            return Err(NodeError::not_running(vm, view.record.state_word()));
        }
        guest::call(&handle.socket, Request::Signal { signal })
            .await
            .map_err(|error| NodeError::guest("signal", vm, &error))?;
        let vm = show(&handle.view.borrow());
        Ok(vm)
    }

    async fn end(&self, vm: &str, operation: &'static str, command: Command) -> Result<Vm, NodeError> {
        let handle = self.find(vm)?;
        handle
            .command(command)
            .await
            .map_err(|error| NodeError::command(operation, vm, error))?;
        Ok(wait(&handle, WaitUntil::Ended).await)
    }

    /// Waits for a state.
    pub async fn wait(&self, vm: &str, until: WaitUntil) -> Result<Vm, NodeError> {
        Ok(wait(&self.find(vm)?, until).await)
    }

    /// Removes a VM: nothing of it is left when this returns.
    pub async fn remove(&self, vm: &str, force: bool) -> Result<(), NodeError> {
        let handle = self.find(vm)?;
        let command = Command::Remove { force };
        handle
            .command(command)
            .await
            .map_err(|error| NodeError::command("remove", vm, error))?;
        // Its task, which has nothing more to do, may not have ended yet: what it had is free.
        let id = handle.view.borrow().record.id;
        self.lock().remove(&id);
        Ok(())
    }

    /// What a VM uses.
    pub fn stats(&self, vm: &str) -> Result<VmStats, NodeError> {
        let view = self.find(vm)?.view.borrow().clone();
        let not_running = || NodeError::not_running(vm, view.record.state_word());
        let pid = view.vmm_pid.ok_or_else(not_running)?;
        let of_group = || self.context.launcher.cgroups.usage(view.record.id);
        let usage =
            block_in_place(|| of_group().map_or_else(|| Usage::of(pid), Ok)).map_err(|_| not_running())?;
        let now = now_ms();
        let started = view.record.life.started_ms.unwrap_or(now);
        Ok(VmStats {
            id: view.record.id.to_string(),
            name: view.record.name.clone(),
            at_ms: now,
            cpu_time_us: usage.cpu_us,
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: view.record.spec.memory_mib << 20,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            uptime_s: now.saturating_sub(started) / 1_000,
        })
    }

    /// Where a VM's log lies: of this container, where it has several, or of the first that is no init container.
    pub fn log_dir(&self, handle: &Handle, container: Option<&str>) -> Result<std::path::PathBuf, NodeError> {
        let record = &handle.view.borrow().record;
        let place = self.context.place(record.id);
        let mut all = record.containers.iter();
        let found = match container {
            None => all.find(|one| !one.init),
            Some(name) => all.find(|one| one.name == name),
        };
        match (found, container) {
            (Some(one), _) => Ok(place.container_log(&one.name)),
            (None, None) => Ok(place.log()),
            (None, Some(name)) => {
                let message = format!("microVM `{}` has no container `{name}`", record.name);
                Err(NodeError::new(ErrorCode::BadRequest, message))
            }
        }
    }

    /// Whether the agent is able to work.
    pub fn health(&self) -> Health {
        let mut problems = self.context.config.problems();
        let network = self.context.network.as_ref();
        problems.extend(
            network
                .and_then(|network| block_in_place(|| network.check()).err())
                .map(|e| e.to_string()),
        );
        if !Path::new(KVM).exists() {
            problems.push(format!(
                "{KVM} is missing: switch virtualisation on in the firmware, and load kvm_intel or kvm_amd"
            ));
        }
        let running = self.list(false).iter().filter(|vm| vm.vmm_pid.is_some()).count();
        Health {
            status: if problems.is_empty() {
                HealthStatus::Ok
            } else {
                HealthStatus::Degraded
            },
            problems,
            running: running as u32,
        }
    }
}

/// A VM as the API shows it.
pub fn show(view: &View) -> Vm {
    Vm {
        paused: view.paused,
        ..view.record.show(view.vmm_pid)
    }
}

/// Waits for a state, or for the VM's removal.
async fn wait(handle: &Handle, until: WaitUntil) -> Vm {
    let mut view = handle.view.clone();
    let reached = |view: &View| {
        let state = show(view).state;
        view.removed
            || match until {
                WaitUntil::Ended => !state.is_active(),
                WaitUntil::Started => !matches!(state, VmState::Created | VmState::Starting),
            }
    };
    match view.wait_for(reached).await.map(|view| show(&view)) {
        Ok(vm) => vm,
        // The VM's task ended: what it showed last is all there will be.
        Err(_) => show(&handle.view.borrow()),
    }
}

/// What the VM is made of, the image's part filled in.
fn spec(create: VmCreate, image: Image, pod: Option<PodSpec>) -> Result<Spec, NodeError> {
    if let Some(first) = pod.as_ref().and_then(|pod| pod.containers.first()) {
        return Ok(Spec {
            image: create.image,
            image_digest: first.image_digest.clone(),
            hostname: create.hostname,
            command: first.spec.command.clone(),
            env: BTreeMap::new(),
            user: None,
            working_dir: None,
            cpus: create.cpus,
            cpu_millis: create.cpu_millis,
            memory_mib: create.memory_mib,
            disk_mib: create.disk_mib,
            tty: None,
            stdin: false,
            pod,
            labels: create.labels,
        });
    }
    let manifest = image.manifest;
    let replaced = create.entrypoint.is_some();
    let mut command = create.entrypoint.unwrap_or(manifest.entrypoint);
    command.extend(if create.command.is_empty() && !replaced {
        manifest.command
    } else {
        create.command
    });
    if command.first().is_none_or(String::is_empty) {
        let message = format!(
            "image `{}` names no program; say which one: `secovia run {0} -- PROGRAM`",
            create.image
        );
        return Err(NodeError::new(ErrorCode::BadRequest, message));
    }
    let mut env = manifest.env;
    env.extend(create.env);
    Ok(Spec {
        image: create.image,
        image_digest: manifest.digest,
        hostname: create.hostname,
        command,
        env,
        user: create.user.or(manifest.user),
        working_dir: create.working_dir.or(manifest.working_dir),
        cpus: create.cpus,
        cpu_millis: create.cpu_millis,
        memory_mib: create.memory_mib,
        disk_mib: create.disk_mib,
        tty: create.tty,
        stdin: create.stdin,
        pod: None,
        labels: create.labels,
    })
}
