//! The task of one VM.

mod alarm;
mod asked;
mod room;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secovia_guest_protocol::Request;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio::time::{sleep, timeout};

use self::alarm::Alarm;
use super::collect::Collector;
use super::containers::Containers;
use super::drive::{Drive, Report, Work};
use super::handle::{Begin, Command, CommandError, Context, Handle, Reply, View};
use super::sessions::Sessions;
use super::{hint, machine, report, told};
use crate::clock::now_ms;
use crate::guest;
use crate::lifecycle::{Cause, DRAIN_MS, Event, Failure, Life, POWER_OFF_MS, State, Step, advance};
use crate::logs::LogWriter;
use crate::process::{self, Found, Limits, Place, Vmm};
use crate::records::{Record, StoreError, pod};

/// How long what a guest said last may take to be read after its VMM is gone.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The wait before a record that could not be written is tried again, and a guest that did not listen asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why a VMM is gone that an earlier agent had.
const WHILE_AWAY: &str = "the VMM ended while no agent was running";

/// Why a VM with addresses cannot be started.
const NO_NETWORK: &str = "the microVM has addresses, and agent.toml has no [network] any more; put it back, or create the microVM again";

struct Actor {
    context: Arc<Context>,
    place: Place,
    record: Record,
    /// The record as it is on the disk.
    written: Record,
    view: watch::Sender<View>,
    commands: mpsc::Receiver<(Command, Reply)>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    sessions: Sessions,
    log_grown: Arc<watch::Sender<u64>>,
    vmm: Option<Running>,
    /// What it waits for.
    alarm: Option<Alarm>,
    /// The VMM stands still.
    paused: bool,
    /// Who waits for the removal.
    removers: Vec<Reply>,
    removed: bool,
}

/// A VMM, and the tasks that live as long as it.
struct Running {
    vmm: Arc<Vmm>,
    gone: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

/// The task of a VM.
#[derive(Debug)]
pub struct Supervised {
    /// The way to it.
    pub handle: Handle,
    /// Ends when the VM is removed.
    pub task: JoinHandle<()>,
    /// Answers when what the task began with is done.
    pub begun: oneshot::Receiver<()>,
}

/// Starts the task of a VM whose record is on the disk.
pub fn supervise(context: Arc<Context>, record: Record, begin: Begin) -> Supervised {
    let (command_sender, commands) = mpsc::channel(8);
    let (reporter, reports) = mpsc::unbounded_channel();
    let view = watch::Sender::new(View {
        record: record.clone(),
        vmm_pid: None,
        guest_ready: false,
        paused: false,
        removed: false,
    });
    let log_grown = Arc::new(watch::Sender::new(0));
    let place = context.place(record.id);
    let handle = Handle {
        commands: command_sender,
        view: view.subscribe(),
        log_grown: log_grown.subscribe(),
        sessions: Sessions::default(),
        socket: place.socket(),
    };
    let actor = Actor {
        context,
        place,
        written: record.clone(),
        record,
        view,
        commands,
        reports,
        reporter,
        sessions: handle.sessions.clone(),
        log_grown,
        vmm: None,
        alarm: None,
        paused: false,
        removers: Vec::new(),
        removed: false,
    };
    let (done, begun) = oneshot::channel();
    let task = tokio::spawn(actor.run(begin, done));
    Supervised { handle, task, begun }
}

impl Actor {
    async fn run(mut self, begin: Begin, done: oneshot::Sender<()>) {
        self.begin(begin).await;
        // Nobody may be waiting.
        let _ = done.send(());
        while !self.removed {
            let alarm = self.alarm;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some((command, reply)) => self.command(command, reply).await,
                    None => return,
                },
                Some(report) = self.reports.recv() => self.report(report).await,
                Some(time_ms) = rung(alarm) => {
                    self.alarm = None;
                    self.wake(time_ms).await;
                }
            }
        }
        for reply in self.removers.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    async fn begin(&mut self, begin: Begin) {
        match begin {
            Begin::Steps(steps) => self.carry_out(steps).await,
            Begin::Adopt(found) => self.adopt(found).await,
            Begin::Lost => self.happen(lost()).await,
            Begin::Start => self.start_or_wait().await,
            Begin::Keep => {
                if let State::BackOff { until_ms, .. } = self.record.life.state {
                    // A clock that was set back must not make this wait for ages.
                    let latest = now_ms().saturating_add(self.context.config.backoff.max_ms);
                    self.alarm = Some(Alarm::at(until_ms.min(latest)));
                }
            }
        }
    }

    async fn adopt(&mut self, found: Found) {
        if let Err(reason) = self.take_over(found) {
            log::warn!("adopt {} (VMM {}): {reason}", self.record.id, found.pid);
            self.happen(Event::VmmGone { reason }).await;
            return;
        }
        log::info!("adopted {} (VMM {})", self.record.id, found.pid);
        // An earlier agent may have made it stand still.
        self.stand_still(false);
        if let State::Stopping {
            cause, deadline_ms, ..
        } = self.record.life.state
        {
            let grace_ms = match cause {
                Cause::Workload => 0,
                Cause::Reclaim => deadline_ms.saturating_sub(now_ms()) / 2,
                Cause::Request => deadline_ms.saturating_sub(now_ms() + POWER_OFF_MS),
            };
            let wake = Step::Wake { at_ms: deadline_ms };
            self.carry_out(vec![Step::Shutdown { grace_ms }, wake]).await;
        }
    }

    async fn report(&mut self, report: Report) {
        match report {
            Report::GuestReady => self.view.send_modify(|view| view.guest_ready = true),
            // Written down with the event that follows it.
            Report::Timing(timing) => self.record.timing = Some(timing),
            Report::Containers(reports) => {
                report::take(&mut self.record.containers, &reports, now_ms());
                self.show();
            }
            Report::Happened(event) => self.happen(event).await,
        }
    }

    async fn happen(&mut self, event: Event) {
        self.happen_at(event, now_ms()).await;
    }

    async fn happen_at(&mut self, event: Event, time_ms: u64) {
        let steps = self.settle(&event, time_ms).await;
        self.carry_out(steps).await;
    }

    /// Moves the life and writes it down, however long that takes: what has happened cannot be refused.
    async fn settle(&mut self, event: &Event, time_ms: u64) -> Vec<Step> {
        let (life, steps) = advance(&self.record.life, event, time_ms, &self.context.config.backoff);
        while let Err(error) = self.record_life(life.clone()) {
            log::error!("{error}; trying again");
            sleep(AGAIN).await;
        }
        steps
    }

    fn record_life(&mut self, life: Life) -> Result<(), StoreError> {
        if !life.is_live() {
            pod::end_all(&mut self.record.containers, now_ms());
        }
        // Who wanted to see the first start has seen it, or gave up; a restart waits for nobody.
        let hold = self.record.hold && matches!(life.state, State::Created | State::Starting);
        let next = Record {
            life,
            hold,
            ..self.record.clone()
        };
        if next != self.written {
            block_in_place(|| self.context.store.put(&next))?;
            self.written = next.clone();
        }
        if next.state_word() != self.record.state_word() {
            match &next.life.state {
                State::Failed(failure) => {
                    log::warn!("{} ({}) failed: {}", next.id, next.name, failure.reason);
                }
                _ => log::info!("{} ({}) is {}", next.id, next.name, next.state_word()),
            }
        }
        let rests = self.record.life.is_live() && !next.life.is_live();
        self.record = next;
        if rests {
            block_in_place(|| self.context.desk.rest(self.record.id));
        }
        Ok(())
    }

    fn show(&self) {
        let vmm_pid = self.vmm.as_ref().map(|running| running.vmm.pid());
        self.view.send_if_modified(|view| {
            let next = View {
                record: self.record.clone(),
                vmm_pid,
                guest_ready: view.guest_ready && vmm_pid.is_some(),
                paused: self.paused,
                removed: self.removed,
            };
            let changed = *view != next;
            *view = next;
            changed
        });
    }

    async fn carry_out(&mut self, steps: Vec<Step>) {
        // A VM that rests is shown so when nothing of its run is left.
        if !steps.contains(&Step::CleanUp) {
            self.show();
        }
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            let event = match step {
                Step::Launch => block_in_place(|| self.launch())
                    .err()
                    .map(|reason| Event::StartFailed(Failure::new(reason))),
                Step::Shutdown { grace_ms } => {
                    self.shut_down(grace_ms);
                    None
                }
                Step::KillVmm => self.kill_vmm(),
                Step::CleanUp => {
                    self.clean_up();
                    None
                }
                Step::Wake { at_ms } => {
                    self.alarm = Some(Alarm::at(at_ms));
                    None
                }
                Step::Remove => {
                    self.remove().await;
                    None
                }
            };
            if let Some(event) = event {
                steps.extend(self.settle(&event, now_ms()).await);
            }
        }
        self.show();
    }

    fn launch(&mut self) -> Result<(), String> {
        let Context {
            config,
            images,
            launcher,
            network,
            ..
        } = &*self.context;
        let Record {
            id,
            uid,
            ref spec,
            network: ref port,
            ..
        } = self.record;
        let mut roots = Vec::new();
        for (name, digest) in machine::images(spec) {
            let image = images.get(name).map_err(|error| error.to_string())?;
            if image.manifest.digest != digest {
                return Err(format!(
                    "image `{name}` is not the one that the microVM was created from ({digest}); create it again"
                ));
            }
            roots.push(image.rootfs);
        }
        let log = match spec.pod {
            Some(_) => None,
            None => {
                let log = LogWriter::open(&self.place.log(), config.log_max_bytes);
                let mut log = log.map_err(|error| error.to_string())?;
                log.begin_run(None).map_err(|error| error.to_string())?;
                Some(log)
            }
        };
        machine::prepare_disk(&self.place, spec, uid).map_err(|error| error.to_string())?;
        let mut machine = machine::machine(config, &self.place, spec, roots).map_err(|e| e.to_string())?;
        let limits = Limits {
            cpus: spec.cpus,
            cpu_millis: spec.cpu_millis(),
            memory_mib: spec.memory_mib,
            io: config.disk_io,
        };
        let begun = Instant::now();
        // Until the VMM has it.
        let _namespace = match (port, network) {
            (None, _) => None,
            (Some(_), None) => return Err(NO_NETWORK.to_string()),
            (Some(port), Some(network)) => {
                let namespace = network.attach(port, uid).map_err(|error| error.to_string())?;
                machine::connect(&mut machine, port, namespace.path());
                Some(namespace)
            }
        };
        let vmm = launcher
            .launch(id, uid, &machine, limits)
            .map_err(|error| error.to_string())?;
        // Told to the guest, and written down with what happens next.
        pod::begin_again(&mut self.record.containers, now_ms());
        self.attend(vmm, log, Some(begun));
        Ok(())
    }

    /// Takes a running VMM over; one that cannot be is gone when this returns.
    fn take_over(&mut self, found: Found) -> Result<(), String> {
        let config = &self.context.config;
        let vmm = match process::take(found) {
            Ok(Some(vmm)) => vmm,
            Ok(None) => return Err(WHILE_AWAY.to_string()),
            Err(error) => return Err(format!("the VMM could not be taken over and was ended: {error}")),
        };
        let several = self.record.spec.pod.is_some();
        let open = || LogWriter::open(&self.place.log(), config.log_max_bytes);
        match block_in_place(|| (!several).then(open).transpose()) {
            Ok(log) => self.attend(vmm, log, None),
            Err(error) => {
                let _ = vmm.kill();
                return Err(format!("the VMM could not be taken over and was ended: {error}"));
            }
        }
        Ok(())
    }

    /// Watches over a VMM and drives its guest.
    fn attend(&mut self, vmm: Vmm, log: Option<LogWriter>, begun: Option<Instant>) {
        let vmm = Arc::new(vmm);
        let (gone_sender, gone) = watch::channel(false);
        let boot_timeout = match self.record.life.state {
            State::Starting => Some(Duration::from_millis(self.context.config.boot_timeout_ms)),
            _ => None,
        };
        let network = self.context.network.as_deref();
        let one = |log| Work::One {
            workload: machine::workload(&self.record, network),
            collector: Collector {
                socket: self.place.socket(),
                container: None,
                end_input: !self.record.spec.stdin,
                log: Arc::new(Mutex::new(log)),
                grown: Arc::clone(&self.log_grown),
                told: Arc::default(),
            },
        };
        let several = |spec| {
            Work::Several(Containers {
                spec,
                files: told::files(&self.record),
                logs: self.container_logs(),
                log_max_bytes: self.context.config.log_max_bytes,
                grown: Arc::clone(&self.log_grown),
            })
        };
        // Whoever has no log has containers.
        let Some(work) = log
            .map(one)
            .or_else(|| told::pod(&self.record, network).map(several))
        else {
            return;
        };
        let drive = Drive {
            socket: self.place.socket(),
            work,
            hold: self.record.hold,
            begun,
            boot_timeout,
            gone: gone.clone(),
            sessions: self.sessions.clone(),
            reports: self.reporter.clone(),
        };
        let (watched, place, reports) = (Arc::clone(&vmm), self.place.clone(), self.reporter.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut driving = JoinSet::new();
            driving.spawn(drive.run());
            let ended = watched.wait().await;
            gone_sender.send_replace(true);
            // What the guest said last is still in the socket: its exit counts more than the VMM's end.
            let _ = timeout(LAST_WORDS, driving.join_next()).await;
            driving.shutdown().await;
            let reason = match ended {
                Ok(ended) => hint::explain(ended, &place),
                Err(error) => format!("the VMM cannot be watched: {error}"),
            };
            let _ = reports.send(Report::Happened(Event::VmmGone { reason }));
        });
        self.vmm = Some(Running { vmm, gone, tasks });
        self.show();
    }

    /// Where the output of each container is kept.
    fn container_logs(&self) -> Vec<(String, PathBuf)> {
        let names = self.record.containers.iter().map(|one| one.name.clone());
        names
            .map(|name| {
                let log = self.place.container_log(&name);
                (name, log)
            })
            .collect()
    }

    fn shut_down(&mut self, grace_ms: u64) {
        self.stand_still(false);
        let Some(running) = &mut self.vmm else {
            return;
        };
        let (socket, sessions, mut gone) = (self.place.socket(), self.sessions.clone(), running.gone.clone());
        // Where the workload has ended, who is attached reads the rest first.
        let ended = matches!(
            self.record.life.state,
            State::Stopping {
                cause: Cause::Workload,
                ..
            }
        );
        running.tasks.spawn(async move {
            if ended {
                let _ = timeout(Duration::from_millis(DRAIN_MS), sessions.none()).await;
            }
            loop {
                match guest::try_call(&socket, Request::Shutdown { grace_ms }).await {
                    Ok(_) => return,
                    Err(error) => log::debug!("shut down the guest at {}: {error}", socket.display()),
                }
                tokio::select! {
                    _ = gone.wait_for(|gone| *gone) => return,
                    () = sleep(AGAIN) => {}
                }
            }
        });
    }

    /// Ends the VMM; its end is told by whoever watches it.
    fn kill_vmm(&mut self) -> Option<Event> {
        let Some(running) = &self.vmm else {
            return Some(Event::VmmGone {
                reason: "there was no VMM".to_string(),
            });
        };
        if let Err(error) = running.vmm.kill() {
            log::error!("end VMM {} of {}: {error}", running.vmm.pid(), self.record.id);
        }
        None
    }

    fn clean_up(&mut self) {
        self.vmm = None;
        self.paused = false;
        self.alarm = None;
        block_in_place(|| {
            if let Err(error) = self.place.clear_runtime() {
                log::warn!("remove {}: {error}", self.place.runtime.display());
            }
            self.context.launcher.cgroups.remove(self.record.id);
            if let (Some(network), Some(port)) = (&self.context.network, &self.record.network)
                && let Err(error) = network.detach(&port.lease)
            {
                log::warn!("take {} off the network: {error}", self.record.id);
            }
        });
    }

    async fn remove(&mut self) {
        // The record goes first: files without a record are removed at the next start, a record without its files
        // would claim a disk that is not there.
        while let Err(error) = block_in_place(|| self.context.store.remove(self.record.id)) {
            log::error!("{error}; trying again");
            sleep(AGAIN).await;
        }
        if let Err(error) = block_in_place(|| self.place.clear_state()) {
            log::warn!("remove {}: {error}", self.place.state.display());
        }
        block_in_place(|| self.context.desk.release(self.record.id));
        log::info!("{} ({}) is removed", self.record.id, self.record.name);
        self.removed = true;
    }
}

fn lost() -> Event {
    Event::VmmGone {
        reason: WHILE_AWAY.to_string(),
    }
}

/// The time, once the alarm rings; nothing at once where there is none.
async fn rung(alarm: Option<Alarm>) -> Option<u64> {
    let alarm = alarm?;
    alarm.rings().await;
    Some(alarm.time_ms())
}
