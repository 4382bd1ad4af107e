//! Registers the Node and keeps it up to date: looks at the agent each second, and writes what has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client as Region};
use secovia_agent_api::client::{Client as Agent, ClientError};
use secovia_agent_api::{Amounts, Labels};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::conditions::{Condition, conditions, stamped};
use super::cordon::Standing;
use super::object::{Allocatable, Machine, labels, new_node, relabel, status};
use super::steady::Steady;
use super::view::{Look, Seen, View, capacity, has_room, is_closed, offered};
use crate::backoff::{Backoff, chance};
use crate::error::PoolError;
use crate::events::{About, Events, Kind};
use crate::home::Home;
use crate::region::ask;

/// How often is looked at the agent.
const POLL: Duration = Duration::from_secs(1);

/// A status that does not change is written so often.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// The Pods' first pass is waited for so long before anything is written.
const FIRST_PASS: Duration = Duration::from_secs(5);

/// The waits after a write that failed.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// How a write ended.
enum Kept {
    /// The API server has what it is to have.
    Written,
    /// The node is leaving, and not there any more.
    Left,
}

/// What the API server is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    capacity: Amounts,
    allocatable: Allocatable,
    conditions: Vec<Condition>,
    labels: BTreeMap<String, String>,
    closed: bool,
}

impl Wanted {
    /// Before anything is known.
    fn nothing(machine: &Machine) -> Self {
        Self {
            capacity: Amounts::default(),
            allocatable: Allocatable::default(),
            conditions: Vec::new(),
            labels: labels(machine, &Labels::default()),
            closed: false,
        }
    }
}

/// What is to be told of a node that was like this, where anything is known of that, and is like that now.
fn told(before: Option<&Wanted>, now: &Wanted) -> Vec<(Kind, &'static str, String)> {
    let ready = |wanted: &Wanted| {
        let ready = wanted.conditions.iter().find(|one| one.kind == "Ready").cloned();
        ready.map(|ready| (ready.holds, ready.message))
    };
    let mut events = Vec::new();
    if before.is_none() {
        events.push((Kind::Normal, "Starting", "secovia-pool has started".into()));
    }
    let was_ready = before.and_then(ready).map(|(holds, _)| holds);
    match ready(now) {
        Some((true, message)) if was_ready != Some(true) => events.push((Kind::Normal, "NodeReady", message)),
        Some((false, message)) if was_ready == Some(true) => {
            events.push((Kind::Warning, "NodeNotReady", message))
        }
        _ => {}
    }
    let was_closed = before.is_some_and(|before| before.closed);
    if now.closed && !was_closed {
        let message = "the owner, or his schedule, has the machine: no new Pods".into();
        events.push((Kind::Normal, "NodeNotSchedulable", message));
    }
    if !now.closed && was_closed {
        let message = "the machine is lent again: Pods may come".into();
        events.push((Kind::Normal, "NodeSchedulable", message));
    }
    events
}

/// Keeps one Node.
pub struct Keeper {
    agent: Agent,
    api: Api<Node>,
    events: Events,
    home: Home,
    machine: Machine,
    begun: Instant,
    /// Whether the Pods that are bound here were compared with what is here.
    pods_seen: watch::Receiver<bool>,
    view: View,
    steady: Steady,
    /// What the API server last had of it.
    node: Option<Node>,
    /// What was last written, and when.
    written: Option<(Wanted, Instant)>,
    backoff: Backoff,
    /// Nothing is tried before then.
    rest_until: Instant,
}

impl Keeper {
    /// One for this machine.
    pub fn new(
        agent: Agent,
        region: Region,
        home: Home,
        machine: Machine,
        pods_seen: watch::Receiver<bool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            agent,
            events: Events::new(region.clone(), machine.name.clone()),
            api: Api::all(region),
            home,
            machine,
            begun: now,
            pods_seen,
            view: View::default(),
            steady: Steady::default(),
            node: None,
            written: None,
            backoff: RETRY,
            rest_until: now,
        }
    }

    /// Works until the node has left the pool.
    pub async fn keep(mut self) {
        // A node that was ready before this process began, and is at once again, was ready all the time.
        let _ = timeout(FIRST_PASS, self.pods_seen.wait_for(|seen| *seen)).await;
        // Without a membership there is nothing to be; one that cannot be read for another reason changes nothing.
        while !matches!(self.home.membership(), Err(PoolError::NotJoined { .. })) {
            self.look().await;
            let wanted = self.wanted();
            if self.is_due(&wanted) {
                match self.write(&wanted).await {
                    Ok(Kept::Left) => return,
                    Ok(Kept::Written) => {
                        if self.backoff.failures() > 0 {
                            log::info!("node `{}`: the region answers again", self.machine.name);
                        }
                        self.backoff.succeeded();
                        self.tell(&wanted);
                        self.written = Some((wanted, Instant::now()));
                    }
                    Err(error) => {
                        if self.backoff.failures() == 0 {
                            log::warn!("{error}");
                        }
                        self.rest_until = Instant::now() + self.backoff.failed(chance());
                    }
                }
            }
            sleep(POLL).await;
        }
    }

    /// Tells what the region knows now and did not before.
    fn tell(&self, wanted: &Wanted) {
        let before = self.written.as_ref().map(|(before, _)| before);
        for (kind, reason, message) in told(before, wanted) {
            let events = self.events.clone();
            tokio::spawn(async move { events.tell(About::Node, kind, reason, &message).await });
        }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    async fn look(&mut self) {
        let look = async {
            let health = self.agent.health().await?;
            let offer = self.agent.offer().await?;
            Ok::<_, ClientError>(Look { health, offer })
        };
        match look.await {
            Ok(look) => self.view.heard(self.now_ms(), look),
            Err(error) => log::debug!("look at the agent: {error}"),
        }
    }

    fn wanted(&mut self) -> Wanted {
        let now_ms = self.now_ms();
        let seen = self.view.seen(now_ms);
        let conditions = conditions(seen, *self.pods_seen.borrow());
        match seen {
            // What is shown stays: the node is not ready.
            Seen::Silent => Wanted {
                conditions,
                ..match &self.written {
                    Some((written, _)) => written.clone(),
                    None => Wanted::nothing(&self.machine),
                }
            },
            Seen::Speaks(look) => {
                let closed = is_closed(&look.offer);
                let ready = conditions.iter().any(|one| one.kind == "Ready" && one.holds);
                self.steady.look(now_ms, offered(&look.offer), closed || !ready);
                Wanted {
                    capacity: capacity(&look.offer),
                    allocatable: Allocatable {
                        amounts: self.steady.shown(),
                        room: has_room(&look.offer),
                    },
                    conditions,
                    labels: labels(&self.machine, &look.offer.labels),
                    closed,
                }
            }
        }
    }

    fn is_due(&self, wanted: &Wanted) -> bool {
        let now = Instant::now();
        let changed = self
            .written
            .as_ref()
            .is_none_or(|(written, at)| written != wanted || now.duration_since(*at) >= HEARTBEAT);
        changed && now >= self.rest_until
    }

    /// Writes what is wanted, each part only where the API server has it otherwise.
    async fn write(&mut self, wanted: &Wanted) -> Result<Kept, PoolError> {
        // Where anything goes wrong the object is fetched anew.
        let known = match self.node.take() {
            Some(node) => Some(node),
            None => self.register(wanted).await?,
        };
        let Some(mut node) = known else {
            return Ok(Kept::Left);
        };
        let before = node.metadata.labels.clone().unwrap_or_default();
        if let Some(change) = relabel(&before, &wanted.labels) {
            node = self.change("label", &Patch::Merge(change)).await?;
        }
        // Closed before it shows less, open only after it shows more: nothing is placed on what is not there.
        let standing = Standing::of(&node).wanted(wanted.closed);
        if let Some(standing) = standing.filter(|standing| standing.unschedulable) {
            node = self.change("cordon", &Patch::Merge(standing.patch())).await?;
            log::info!("node `{}` takes no more Pods", self.machine.name);
        }
        let before = node
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let conditions = stamped(&wanted.conditions, &before, Timestamp::now());
        let change = status(&self.machine, wanted.capacity, wanted.allocatable, &conditions);
        let operation = format!("write the status of node `{}`", self.machine.name);
        let params = PatchParams::default();
        let change = Patch::Strategic(change);
        let written = self.api.patch_status(&self.machine.name, &params, &change);
        node = ask(&operation, written).await?;
        if let Some(standing) = Standing::of(&node).wanted(wanted.closed) {
            node = self.change("uncordon", &Patch::Merge(standing.patch())).await?;
            log::info!("node `{}` takes Pods again", self.machine.name);
        }
        self.node = Some(node);
        Ok(Kept::Written)
    }

    async fn change(&self, verb: &str, patch: &Patch<Value>) -> Result<Node, PoolError> {
        let name = &self.machine.name;
        let params = PatchParams::default();
        let changed = self.api.patch(name, &params, patch);
        ask(&format!("{verb} node `{name}`"), changed).await
    }

    /// The node as it is, or else a new one, also where somebody has deleted it; none where it leaves.
    async fn register(&self, wanted: &Wanted) -> Result<Option<Node>, PoolError> {
        let name = &self.machine.name;
        let operation = format!("register node `{name}`");
        let found = ask(&operation, self.api.get_opt(name)).await?;
        if found.is_some() || self.home.membership()?.leaving {
            return Ok(found);
        }
        let node = new_node(&self.machine, wanted.labels.clone());
        let made = ask(&operation, self.api.create(&PostParams::default(), &node)).await?;
        log::info!("node `{name}` is registered");
        Ok(Some(made))
    }
}
