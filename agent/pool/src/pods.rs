//! The Pods of this node: watched, compared with what the agent has, and brought to what is wanted. A thin shell around
//! [`pod::plan`](crate::pod::plan).
//!
//! One loop plans; what takes time is done beside it, one task a Pod, so that a slow image or a long grace holds nobody up. While
//! the API server is away, microVMs run on, Pods that are known go on being looked after, and reports wait.

mod bound;
mod error;
mod happenings;
mod images;
mod region;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::runtime::{WatchStreamExt, watcher};
use secovia_agent_api::client::{Client as Agent, ClientError};
use secovia_agent_api::{Amounts, Offer, Vm, WaitUntil};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::events::Kind;
use crate::pod::plan::{Flight, Memory, Scene, Step, Task, plan};
use crate::pod::status::{End, has_run};
use crate::pod::{Facts, Identity};
use bound::Bound;
use error::Failure;
use happenings::Seen;
use images::Images;
use region::Region;
use work::Worker;

/// How often is looked at the agent's microVMs where nothing else happens: what ends is seen so late at most.
const LOOK: Duration = Duration::from_secs(1);

/// What the API server is asked for ends after so many seconds, and is asked for again: a connection that died in silence is
/// noticed so late at most.
const WATCH_S: u32 = 60;

/// The waits after tries that came to nothing: they double.
const RETRY_FIRST_MS: u64 = 1_000;
const RETRY_LONGEST_MS: u64 = 300_000;
const REGION_LONGEST_MS: u64 = 30_000;

/// A Pod that stays though it was forgotten is told of again after so long.
const FORGET_AGAIN_MS: u64 = 5_000;

/// What this node's part with Pods is.
#[derive(Clone)]
pub struct Pods {
    /// The way to the agent.
    pub agent: Agent,
    /// The way to the API server.
    pub region: kube::Client,
    /// The node's name there.
    pub node: String,
    /// The node's address.
    pub address: IpAddr,
    /// A directory of this program's own, for what it fetches.
    pub cache: PathBuf,
}

/// What became of something that was done beside the loop.
enum Done {
    Report(Identity, Result<(), Failure>),
    Work(Identity, Result<(), Failure>),
    /// A microVM has come up, or will not.
    Started,
}

/// The loop's own.
struct Keeper {
    worker: Worker,
    node: String,
    address: IpAddr,
    cpus: u32,
    bound: Bound,
    memories: BTreeMap<String, Memory>,
    tries: BTreeMap<String, u32>,
    reporting: BTreeSet<String>,
    /// What was reported last, and of which version of the Pod: it is not said twice, whatever the API server makes of it.
    reported: BTreeMap<String, (Option<String>, PodStatus)>,
    /// When those may be told again that are still there though nothing is left of them here: others hold them.
    forgotten: BTreeMap<String, u64>,
    awaited: BTreeSet<String>,
    /// Until then nothing is asked of the agent for a Pod for which it could not do the last thing, not even a stop.
    resting: BTreeMap<String, u64>,
    /// Pods of which the region did not take the last report: how often in a row, and when it is told again.
    untold: BTreeMap<String, (u32, u64)>,
    /// When Pods came that have not run yet.
    came: BTreeMap<String, Instant>,
    seen: Seen,
    /// When this began: waits are by a clock that nobody sets.
    begun: Instant,
    region_failures: u32,
    region_until_ms: u64,
    agent_is_lost: bool,
    done: UnboundedSender<Done>,
}

impl Pods {
    /// Works for as long as it is let. `seen` becomes true when what is wanted and what is there were compared once.
    pub async fn keep(self, seen: &watch::Sender<bool>) {
        let region = Region::new(self.region, self.node.clone());
        let config = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.node))
            .timeout(WATCH_S);
        let (done, mut news) = unbounded_channel();
        let images = Images::new(self.agent.clone(), region.clone(), self.cache);
        let mut told = pin!(watcher(region.all_pods(), config).default_backoff());
        let mut keeper = Keeper {
            worker: Worker {
                agent: self.agent,
                region,
                images,
            },
            node: self.node,
            address: self.address,
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
            bound: Bound::default(),
            memories: BTreeMap::new(),
            tries: BTreeMap::new(),
            reporting: BTreeSet::new(),
            reported: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            awaited: BTreeSet::new(),
            resting: BTreeMap::new(),
            untold: BTreeMap::new(),
            came: BTreeMap::new(),
            seen: Seen::default(),
            begun: Instant::now(),
            region_failures: 0,
            region_until_ms: 0,
            agent_is_lost: false,
            done,
        };
        let mut until = Instant::now();
        loop {
            tokio::select! {
                Some(event) = told.next() => {
                    keeper.hear(event);
                    // What came with it, at once.
                    while let Some(Some(event)) = told.next().now_or_never() {
                        keeper.hear(event);
                    }
                }
                Some(done) = news.recv() => keeper.finish_all(done, &mut news),
                () = sleep_until(until) => {}
            }
            let wake_ms = match keeper.look().await {
                Some(wake_ms) => {
                    seen.send_if_modified(|seen| !std::mem::replace(seen, true));
                    wake_ms
                }
                None => None,
            };
            let most = LOOK.as_millis() as u64;
            let wait = wake_ms.map_or(most, |at_ms| at_ms.saturating_sub(now_ms()).clamp(10, most));
            until = Instant::now() + Duration::from_millis(wait);
        }
    }
}

impl Keeper {
    fn hear(&mut self, event: Result<watcher::Event<Pod>, watcher::Error>) {
        match event {
            Ok(event) => self.bound.hear(event),
            Err(error) => log::warn!("watch the Pods of node {}: {error}", self.node),
        }
    }

    fn finish_all(&mut self, first: Done, news: &mut UnboundedReceiver<Done>) {
        self.finish(first);
        while let Ok(done) = news.try_recv() {
            self.finish(done);
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Started => {}
            Done::Report(pod, result) => {
                self.reporting.remove(&pod.uid);
                match result {
                    Ok(()) => {
                        self.region_failures = 0;
                        self.untold.remove(&pod.uid);
                        self.reported_running(&pod);
                    }
                    Err(failure) => {
                        self.reported.remove(&pod.uid);
                        self.not_told(&pod, failure);
                    }
                }
            }
            Done::Work(pod, result) => {
                let memory = self.memories.entry(pod.uid.clone()).or_default();
                memory.flight = None;
                match result {
                    Ok(()) => {
                        *memory = Memory {
                            end: memory.end.take(),
                            ..Memory::default()
                        };
                        self.tries.remove(&pod.uid);
                        self.resting.remove(&pod.uid);
                    }
                    Err(failure) => self.failed(&pod, failure),
                }
            }
        }
    }

    /// Says how long it took until a Pod ran, and the region knew it.
    fn reported_running(&mut self, pod: &Identity) {
        let reported = self.reported.get(&pod.uid);
        let phase = reported.and_then(|(_, status)| status.phase.as_deref());
        if phase == Some("Running")
            && let Some(came) = self.came.remove(&pod.uid)
        {
            let ms = came.elapsed().as_millis();
            log::info!(
                "Pod {}/{} is reported as running {ms} ms after it came",
                pod.namespace,
                pod.name
            );
        }
    }

    fn tick_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// A report came to nothing. Were that said of the Pod, its status would be another one, and reported at once.
    fn not_told(&mut self, pod: &Identity, failure: Failure) {
        let Failure::Held(hold) = failure else {
            return self.failed(pod, failure);
        };
        let tick_ms = self.tick_ms();
        let (failures, until_ms) = self.untold.entry(pod.uid.clone()).or_default();
        *until_ms = tick_ms + delay_ms(*failures, RETRY_LONGEST_MS);
        *failures = failures.saturating_add(1);
        log::warn!("Pod {}/{}: {}", pod.namespace, pod.name, hold.message);
    }

    fn failed(&mut self, pod: &Identity, failure: Failure) {
        let tick_ms = self.tick_ms();
        let memory = self.memories.entry(pod.uid.clone()).or_default();
        let (reason, message) = match failure {
            Failure::Region(problem) => {
                // What failed at the same time failed for the same reason.
                if tick_ms >= self.region_until_ms {
                    self.region_until_ms = tick_ms + delay_ms(self.region_failures, REGION_LONGEST_MS);
                    self.region_failures = self.region_failures.saturating_add(1);
                    log::warn!("{problem}");
                }
                memory.not_before_ms = self.region_until_ms;
                return;
            }
            Failure::Ended(end) => {
                memory.end = Some(end.clone());
                (end.reason.unwrap_or_default(), end.message.unwrap_or_default())
            }
            Failure::Held(hold) => {
                let tries = self.tries.entry(pod.uid.clone()).or_default();
                memory.not_before_ms = tick_ms + delay_ms(*tries, RETRY_LONGEST_MS);
                let rest_ms = delay_ms(*tries, REGION_LONGEST_MS);
                self.resting.insert(pod.uid.clone(), tick_ms + rest_ms);
                *tries = tries.saturating_add(1);
                memory.hold = Some(hold.clone());
                // In a kubelet's words: what failed is an event `Failed`, whatever the container waits for.
                (
                    "Failed".into(),
                    format!("Error: {}: {}", hold.reason, hold.message),
                )
            }
        };
        log::warn!("Pod {}/{}: {reason}: {message}", pod.namespace, pod.name);
        let (region, pod) = (self.worker.region.clone(), pod.clone());
        tokio::spawn(async move { region.note(&pod, &reason, true, &message).await });
    }

    /// Compares, plans, and begins what is to be done. Gives when to look again, where anything is known for sure; nothing where
    /// nothing could be compared.
    async fn look(&mut self) -> Option<Option<u64>> {
        let pods = self.bound.pods()?;
        let (vms, offer) = match self.agent().await {
            Ok(seen) => seen,
            Err(error) => {
                if !std::mem::replace(&mut self.agent_is_lost, true) {
                    log::warn!("look at the microVMs: {error}");
                }
                return None;
            }
        };
        self.agent_is_lost = false;
        let scene = Scene {
            host_ip: self.address,
            evicting: offer.ladder.ordered_by.is_some(),
            now_ms: now_ms(),
            tick_ms: self.tick_ms(),
        };
        for pod in pods.iter().filter(|pod| !has_run(pod)) {
            let came = Identity::of(pod).map(|pod| self.came.entry(pod.uid));
            came.map(|came| came.or_insert_with(Instant::now));
        }
        let plan = plan(&pods, &vms, &self.memories, &scene);
        let facts = Facts {
            node_name: self.node.clone(),
            host_ip: self.address,
            cpus: self.cpus,
            allocatable: amounts(&offer),
        };
        for task in plan.tasks {
            self.begin(task, &facts);
        }
        self.tell(&vms);
        self.tidy(&vms);
        self.await_starts(&vms);
        Some(plan.wake_ms)
    }

    async fn agent(&self) -> Result<(Vec<Vm>, Offer), ClientError> {
        let vms = self.worker.agent.list_vms(true).await?;
        Ok((vms, self.worker.agent.offer().await?))
    }

    fn begin(&mut self, task: Task, facts: &Facts) {
        let Task { pod: identity, steps } = task;
        let is_report = matches!(steps.as_slice(), [Step::Report(_)]);
        let writes = matches!(steps.first(), Some(Step::Report(_) | Step::Forget));
        if writes && self.tick_ms() < self.region_until_ms {
            return;
        }
        let rests = self
            .resting
            .get(&identity.uid)
            .is_some_and(|until_ms| self.tick_ms() < *until_ms);
        if rests && !is_report {
            return;
        }
        let untold = self.untold.get(&identity.uid);
        if is_report && untold.is_some_and(|(_, until_ms)| self.tick_ms() < *until_ms) {
            return;
        }
        let pod = self.bound.get(&identity.uid).cloned();
        if let [Step::Report(status)] = steps.as_slice() {
            let version = pod.as_ref().and_then(|pod| pod.metadata.resource_version.clone());
            let report = (version, PodStatus::clone(status));
            if self.reported.get(&identity.uid) == Some(&report)
                || !self.reporting.insert(identity.uid.clone())
            {
                return;
            }
            self.reported.insert(identity.uid.clone(), report);
            // An end that is being told is decided, though the API server may not have it yet.
            if let Some(end) = End::told(status) {
                self.memories.entry(identity.uid.clone()).or_default().end = Some(end);
            }
        } else if steps == [Step::Forget] {
            let tick_ms = self.tick_ms();
            let again_ms = self.forgotten.entry(identity.uid.clone()).or_default();
            if tick_ms < *again_ms {
                return;
            }
            *again_ms = tick_ms + FORGET_AGAIN_MS;
        }
        if !is_report {
            let flight = steps.iter().find_map(|step| match step {
                Step::Stop { grace_s, .. } => Some(Flight::Stopping { grace_s: *grace_s }),
                _ => None,
            });
            let memory = self.memories.entry(identity.uid.clone()).or_default();
            memory.flight = Some(flight.unwrap_or(Flight::Other));
        }
        let (worker, done, facts) = (self.worker.clone(), self.done.clone(), facts.clone());
        tokio::spawn(async move {
            let mut result = Ok(());
            for step in steps {
                result = worker.carry_out(&identity, pod.as_ref(), step, &facts).await;
                if result.is_err() {
                    break;
                }
            }
            let news = if is_report {
                Done::Report(identity, result)
            } else {
                Done::Work(identity, result)
            };
            // Nobody hears it where the loop is over.
            let _ = done.send(news);
        });
    }

    /// Tells what happened to microVMs since the last look.
    fn tell(&mut self, vms: &[Vm]) {
        for happening in self.seen.look(vms) {
            let region = self.worker.region.clone();
            tokio::spawn(async move {
                let is_warning = happening.kind == Kind::Warning;
                region
                    .note(&happening.pod, happening.reason, is_warning, &happening.message)
                    .await;
            });
        }
    }

    /// Forgets what is remembered of Pods that are gone.
    fn tidy(&mut self, vms: &[Vm]) {
        let has_vm = |uid: &String| {
            vms.iter()
                .any(|vm| Identity::of_vm(vm).is_some_and(|pod| pod.uid == *uid))
        };
        let bound = &self.bound;
        self.memories
            .retain(|uid, memory| memory.flight.is_some() || bound.get(uid).is_some() || has_vm(uid));
        self.tries
            .retain(|uid, _| bound.get(uid).is_some() || has_vm(uid));
        self.resting
            .retain(|uid, _| bound.get(uid).is_some() || has_vm(uid));
        self.untold.retain(|uid, _| bound.get(uid).is_some());
        self.reported.retain(|uid, _| bound.get(uid).is_some());
        self.came.retain(|uid, _| bound.get(uid).is_some());
        self.forgotten.retain(|uid, _| bound.get(uid).is_some());
        self.awaited
            .retain(|id| vms.iter().any(|vm| vm.id == *id && is_starting(vm)));
    }

    /// Hears at once when one that starts is up.
    fn await_starts(&mut self, vms: &[Vm]) {
        for vm in vms
            .iter()
            .filter(|vm| is_starting(vm) && Identity::of_vm(vm).is_some())
        {
            if self.awaited.insert(vm.id.clone()) {
                let (agent, done, id) = (self.worker.agent.clone(), self.done.clone(), vm.id.clone());
                tokio::spawn(async move {
                    let _ = agent.wait_vm(&id, WaitUntil::Started).await;
                    let _ = done.send(Done::Started);
                });
            }
        }
    }
}

fn is_starting(vm: &Vm) -> bool {
    vm.state == secovia_agent_api::VmState::Starting
}

fn amounts(offer: &Offer) -> Amounts {
    let of = |resource: &str| {
        let mut lines = offer.lines.iter();
        lines
            .find(|line| line.resource == resource)
            .map_or(0, |line| line.offered)
    };
    Amounts {
        cpu_millis: of("cpu"),
        memory_bytes: of("memory"),
        disk_bytes: of("disk"),
    }
}

fn delay_ms(failures: u32, longest_ms: u64) -> u64 {
    RETRY_FIRST_MS
        .saturating_mul(1 << failures.min(20))
        .min(longest_ms)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
