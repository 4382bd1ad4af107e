//! The lending desk: who asks for a part of the machine asks here. Shared by all VMs' tasks, the API and the task that
//! climbs the ladder.
//!
//! One lock guards the plain values, another the audit log; where both are taken the values' comes first. What an event
//! allows (an admission, a release) happens after its record is on the disk. What takes lent things back for the owner is
//! recorded as well as can be, and done in any case.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secovia_agent_api as wire;
use secovia_agent_api::{AuditEvent, AuditRecord, AuditVerdict, LadderView, OfferLine};
use tokio::sync::Notify;

use super::journal::{Journal, JournalError};
use super::keep::{Keep, Standing};
use crate::capacity::ladder::{By, Ladder, Order, Scarcity};
use crate::capacity::ledger::{Claim, Ledger, Refusal};
use crate::capacity::offer::{Inputs, Offer, offer};
use crate::capacity::policy::{Labels, Lending, Policy};
use crate::capacity::resources::{Amounts, Each, Resource};
use crate::capacity::usage::Usage;
use crate::clock::now_ms;
use crate::process::OVERHEAD_BYTES;
use crate::records::{Spec, VmId};

/// Why a VM does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Nobody gets anything now.
    #[error("{0}")]
    Closed(String),
    /// There is not that much.
    #[error(
        "the node has {0}; `secovia offer --explain` shows why, stop or remove another microVM, or ask for less"
    )]
    Refused(Refusal),
    /// It cannot be recorded.
    #[error(transparent)]
    Journal(JournalError),
}

/// What changes while the agent runs.
#[derive(Debug)]
struct State {
    policy: Policy,
    capacity: Amounts,
    usage: Usage,
    ledger: Ledger,
    ladder: Ladder,
    scarcity: Scarcity,
    standing: Option<Standing>,
    /// Why the owner's use cannot be measured.
    problem: Option<String>,
}

/// The lending desk.
#[derive(Debug)]
pub struct Desk {
    state: Mutex<State>,
    journal: Mutex<Journal>,
    order_file: Keep,
    usage_file: Keep,
    changed: Notify,
}

/// What a VM was given, until its record stands for it; dropped before, it goes back.
#[derive(Debug)]
pub struct Admission {
    desk: Arc<Desk>,
    vm: VmId,
    committed: bool,
}

impl Admission {
    /// The VM's record is on the disk.
    pub fn commit(mut self) {
        self.desk.state().ledger.commit(self.vm);
        self.committed = true;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.committed {
            self.desk.state().ledger.cancel(self.vm);
            self.desk.record_anyway(AuditEvent::Returned {
                vm: self.vm.to_string(),
            });
        }
    }
}

impl Desk {
    /// Opens the desk with what is kept in `dir`, and the claims that records stand for.
    pub fn open(
        dir: &Path,
        audit_max_bytes: u64,
        policy: Policy,
        capacity: Amounts,
        claims: impl IntoIterator<Item = (VmId, Claim, bool)>,
        now_ms: u64,
    ) -> Result<Self, JournalError> {
        let mut journal = Journal::open(dir, audit_max_bytes, now_ms)?;
        let version = env!("CARGO_PKG_VERSION").to_string();
        // A full disk is no reason not to look after what runs.
        journal.append_or_keep(now_ms, AuditEvent::AgentStarted { version });
        journal.append_or_keep(now_ms, applied(&policy));
        let (order_file, usage_file) = (Keep::order(dir), Keep::usage(dir));
        let state = State {
            policy,
            capacity,
            usage: usage_file.measured(),
            ledger: Ledger::rebuild(claims),
            ladder: Ladder::default(),
            scarcity: Scarcity::Calm,
            standing: order_file.standing(),
            problem: None,
        };
        Ok(Self {
            state: Mutex::new(state),
            journal: Mutex::new(journal),
            order_file,
            usage_file,
            changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a VM what it claims, where the offer of this moment allows it. Call [`Admission::commit`] when its record
    /// stands for it.
    pub fn admit(self: &Arc<Self>, vm: VmId, name: &str, claim: Claim) -> Result<Admission, AdmissionError> {
        let now_ms = now_ms();
        let mut state = self.state();
        if let Some(reason) = state.closed(now_ms) {
            return Err(AdmissionError::Closed(reason));
        }
        let limit = state.limit(now_ms);
        state
            .ledger
            .reserve(vm, claim, limit)
            .map_err(AdmissionError::Refused)?;
        let event = AuditEvent::Admitted {
            vm: vm.to_string(),
            name: name.to_string(),
            amounts: shown(claim.active),
        };
        if let Err(error) = self.journal().append(now_ms, event) {
            state.ledger.cancel(vm);
            return Err(AdmissionError::Journal(error));
        }
        drop(state);
        // Whoever watches the owner looked rarely while nothing was lent.
        self.changed.notify_one();
        Ok(Admission {
            desk: Arc::clone(self),
            vm,
            committed: false,
        })
    }

    /// A VM has come to rest: it keeps its disk.
    pub fn rest(&self, vm: VmId) {
        self.give_back(vm, Ledger::rest);
    }

    /// A VM is gone.
    pub fn release(&self, vm: VmId) {
        self.give_back(vm, Ledger::release);
    }

    fn give_back(&self, vm: VmId, how: fn(&mut Ledger, VmId)) {
        let mut state = self.state();
        let before = state.ledger.held(vm);
        how(&mut state.ledger, vm);
        let changed = state.ledger.held(vm) != before;
        drop(state);
        if changed {
            self.record_anyway(AuditEvent::Returned { vm: vm.to_string() });
        }
    }

    /// Records what is done in any case.
    pub fn record_anyway(&self, event: AuditEvent) {
        self.journal().append_or_keep(now_ms(), event);
    }

    /// The owner wants everything back: durable when this returns. Returns how long it may take, in milliseconds.
    pub fn order_reclaim(&self, within_ms: Option<u64>, uid: u32) -> u64 {
        let mut state = self.state();
        let within_ms = within_ms.unwrap_or(state.policy.reclaim.deadline_ms);
        let standing = Standing {
            since_ms: now_ms(),
            within_ms,
        };
        state.standing = Some(standing);
        drop(state);
        self.record_anyway(AuditEvent::ReclaimOrdered { within_ms, uid });
        if let Err(error) = self.order_file.write(&Some(standing)) {
            log::error!(
                "write {}: {error}; the order stands until this agent ends",
                self.order_file.path().display()
            );
        }
        self.changed.notify_one();
        within_ms
    }

    /// The owner lends again: recorded and durable when this returns.
    pub fn order_release(&self, uid: u32) -> Result<(), String> {
        self.journal()
            .append(now_ms(), AuditEvent::ReleaseOrdered { uid })
            .map_err(|error| error.to_string())?;
        self.order_file
            .write(&None::<Standing>)
            .map_err(|error| format!("write {}: {error}", self.order_file.path().display()))?;
        self.state().standing = None;
        self.changed.notify_one();
        Ok(())
    }

    /// The order that stands: the owner's, or else the schedule's.
    pub fn order(&self, now_ms: u64) -> Option<Order> {
        self.state().order(now_ms)
    }

    /// Puts another policy in force.
    pub fn apply(&self, policy: Policy) {
        let event = applied(&policy);
        self.state().policy = policy;
        self.record_anyway(event);
        self.changed.notify_one();
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.state().policy.clone()
    }

    /// Where the ladder stands.
    pub fn ladder(&self) -> Ladder {
        self.state().ladder
    }

    /// How scarce things are.
    pub fn scarcity(&self) -> Scarcity {
        self.state().scarcity
    }

    /// The ladder moved, for this scarcity.
    pub fn set_ladder(&self, ladder: Ladder, scarcity: Scarcity) {
        let mut state = self.state();
        (state.ladder, state.scarcity) = (ladder, scarcity);
    }

    /// The owner's use was measured, or cannot be.
    pub fn measured(&self, capacity: Amounts, sample: Option<(Amounts, u64)>) {
        let mut state = self.state();
        state.capacity = capacity;
        state.problem = None;
        let window_ms = state
            .policy
            .lending
            .as_ref()
            .map(|lending| lending.measure.window_ms);
        if let (Some((owner, elapsed_ms)), Some(window_ms)) = (sample, window_ms) {
            state.usage.record(owner, elapsed_ms, window_ms);
        }
    }

    /// The owner's use cannot be measured: nothing is offered until it can.
    pub fn not_measured(&self, problem: String) {
        let mut state = self.state();
        if state.problem.as_ref() != Some(&problem) {
            log::error!("{problem}; nothing is offered until that is mended");
        }
        state.problem = Some(problem);
    }

    /// Writes down what was measured.
    pub fn keep_usage(&self) {
        let usage = self.state().usage.clone();
        if let Err(error) = self.usage_file.write(&usage) {
            log::warn!("write {}: {error}", self.usage_file.path().display());
        }
    }

    /// What is lent now.
    pub fn lent(&self) -> Amounts {
        self.state().ledger.lent()
    }

    /// Comes when an order or the policy changed, or something was lent.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The offer, as the API shows it.
    pub fn show(&self, now_ms: u64) -> wire::Offer {
        let state = self.state();
        let lent = state.ledger.lent();
        let lines = state.offer(now_ms).map_or_else(Vec::new, |offer| {
            Resource::ALL
                .map(|resource| {
                    let line = offer.get(resource);
                    OfferLine {
                        resource: resource.word().into(),
                        offered: line.offered,
                        lent: *lent.get(resource),
                        rule: line.rule.word().into(),
                        capacity: line.capacity,
                        reserve: line.reserve,
                        owner: line.owner,
                        margin: line.margin,
                        schedule: line.schedule,
                        cap: line.cap,
                    }
                })
                .into()
        });
        wire::Offer {
            lending: state.policy.lending.is_some(),
            lines,
            ladder: LadderView {
                rung: state.ladder.rung().word().into(),
                // What stands, not what the ladder saw of it: who asks between an order and the ladder's look would else see
                // a machine that is taken back although it is lent again, and end what was let in.
                ordered_by: state.order(now_ms).map(|order| by_word(order.by).into()),
                scarcity: state.scarcity.word().into(),
            },
            measured_s: state.usage.observed_ms() / 1_000,
            problem: state.problem.clone(),
            labels: labels(&state.policy.labels),
        }
    }

    /// The audit log's last records.
    pub fn records(&self, tail: Option<usize>) -> Result<Vec<AuditRecord>, JournalError> {
        self.journal().records(tail)
    }

    /// Whether the audit log is whole.
    pub fn verify(&self) -> Result<AuditVerdict, JournalError> {
        self.journal().verify()
    }
}

fn labels(labels: &Labels) -> wire::Labels {
    let labels = labels.clone();
    wire::Labels {
        country: labels.country,
        region: labels.region,
        site: labels.site,
        data_class: labels.data_class,
    }
}

impl State {
    /// The order that stands: the owner's, or else the schedule's.
    fn order(&self, now_ms: u64) -> Option<Order> {
        match (&self.standing, &self.policy.lending) {
            (Some(standing), _) => Some(Order {
                by: By::Owner,
                // An agent that was away in between does not begin the time anew; a clock set back gives no more.
                within_ms: standing
                    .since_ms
                    .saturating_add(standing.within_ms)
                    .saturating_sub(now_ms)
                    .min(standing.within_ms),
            }),
            (None, Some(lending)) if lending.schedule.is_closed(now_ms) => Some(Order {
                by: By::Schedule,
                within_ms: self.policy.reclaim.deadline_ms,
            }),
            (None, _) => None,
        }
    }

    /// Why nothing is admitted now, where nothing is.
    fn closed(&self, now_ms: u64) -> Option<String> {
        if self.standing.is_some() {
            return Some("the owner has taken the machine back; `secovia release` lends it again".into());
        }
        let lending = self.policy.lending.as_ref();
        if lending.is_some_and(|lending| lending.schedule.is_closed(now_ms)) {
            return Some("no window of the schedule is open now; `secovia offer --explain` shows it".into());
        }
        self.ladder.measures().closed.then(|| {
            format!(
                "the owner needs the machine (it stands at `{}`); try again later, `secovia offer` shows when",
                self.ladder.rung().word()
            )
        })
    }

    fn offer(&self, now_ms: u64) -> Option<Offer> {
        let lending: &Lending = self.policy.lending.as_ref()?;
        let nothing = Usage::default();
        Some(offer(&Inputs {
            capacity: self.capacity,
            usage: if self.problem.is_some() {
                &nothing
            } else {
                &self.usage
            },
            lending,
            now_ms,
            reclaimed: self.standing.is_some(),
        }))
    }

    /// What may be lent: the offer, or where nothing is lent to others, the machine's memory.
    fn limit(&self, now_ms: u64) -> Amounts {
        self.offer(now_ms).map_or(
            Amounts {
                memory: self.capacity.memory,
                ..Amounts::UNLIMITED
            },
            |offer| offer.amounts(),
        )
    }
}

/// Whose an order is, in a word.
pub fn by_word(by: By) -> &'static str {
    match by {
        By::Owner => "owner",
        By::Schedule => "schedule",
    }
}

/// What a VM claims. Its memory is what its control group may hold at most: the guest's, and what the VMM needs beside.
pub fn claim(spec: &Spec) -> Claim {
    let disk = spec.disk_mib.unwrap_or(0) << 20;
    let active = Amounts {
        cpu: spec.cpu_millis().into(),
        memory: (spec.memory_mib << 20).saturating_add(OVERHEAD_BYTES),
        disk,
    };
    let resting = Amounts {
        disk,
        ..Amounts::NONE
    };
    Claim { active, resting }
}

fn applied(policy: &Policy) -> AuditEvent {
    AuditEvent::PolicyApplied {
        lending: policy.lending.is_some(),
        reserve: policy.lending.as_ref().map(|lending| shown(lending.reserve)),
    }
}

fn shown(amounts: Amounts) -> wire::Amounts {
    let Each { cpu, memory, disk } = amounts;
    wire::Amounts {
        cpu_millis: cpu,
        memory_bytes: memory,
        disk_bytes: disk,
    }
}
