//! The task that lends and takes back: looks how the owner fares, asks the ladder what to do, and does it.
//!
//! It alone moves the ladder. It sends the VMs' tasks what they are to do and does not wait for them: whatever a VM is at,
//! the next one is asked at once. What did not help is seen at the next look.

mod victims;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secovia_agent_api::AuditEvent;
use tokio::task::block_in_place;
use tokio::time::sleep;

use self::victims::{Seen, newest};
use crate::capacity::ladder::{
    Abilities, Effect, Input, Ladder, Measures, Order, Rung, Scarcity, Settings, Why,
};
use crate::capacity::policy::Policy;
use crate::capacity::resources::Amounts;
use crate::capacity::scarcity::{Signals, classify};
use crate::clock::now_ms;
use crate::lending::desk::{Desk, by_word};
use crate::lending::measure::Meter;
use crate::lending::pressure::Pressure;
use crate::lending::slice::Slice;
use crate::process::whole_disk;
use crate::records::VmId;
use crate::supervisor::{Command, Context, Handle};

/// Between two measurements of the owner's use.
const SAMPLE: Duration = Duration::from_secs(5);

/// Between two times that what was measured is written down.
const KEEP: Duration = Duration::from_secs(60);

/// Between two looks while the ladder is climbed, or VMs hold memory and it is not plentiful.
const SOON: Duration = Duration::from_millis(100);

/// Between two looks while memory is plentiful.
const LATER: Duration = Duration::from_millis(500);

/// With so many bytes available, memory is plentiful: the owner cannot take them between two looks and while VMs are ended,
/// not even at ten gibibytes a second. One core takes three.
const PLENTY: u64 = 11 << 30;

/// Where nothing is lent an order is all that can happen, and it wakes the task.
const NEVER: Duration = Duration::from_secs(3_600);

/// `bytes` within `time`, in bytes a second. Looks that follow each other at once show less, so that one page is no flood.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let time_ms = time.max(SOON).as_millis();
    u64::try_from(u128::from(bytes) * 1_000 / time_ms).unwrap_or(u64::MAX)
}

/// The task's own state.
pub(super) struct Lender {
    context: Arc<Context>,
    begun: Instant,
    meter: Meter,
    slice: Option<Slice>,
    pressure: Pressure,
    sampled_at: Option<Instant>,
    kept_at: Instant,
    /// The policy that the host's control groups reflect.
    reflected: Option<Policy>,
    capacity: Amounts,
    available: u64,
    /// What the owner had not taken, be it free or with the VMs, and when that was seen.
    untaken: Option<(u64, Instant)>,
    /// What holds for all VMs.
    measures: Measures,
    paused: BTreeSet<VmId>,
    /// When the order that stands was first seen; gone when its end was recorded.
    reclaiming: Option<Instant>,
}

impl Lender {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let slice = context.launcher.cgroups.slice().map(|path| {
            let disk = whole_disk(&context.config.state_dir);
            Slice::new(path, disk)
        });
        let group = slice.as_ref().map(|slice| slice.path().to_path_buf());
        Self {
            meter: Meter::new(group, &context.launcher.dirs.states),
            context,
            begun: Instant::now(),
            slice,
            pressure: Pressure::default(),
            sampled_at: None,
            kept_at: Instant::now(),
            reflected: None,
            capacity: Amounts::NONE,
            available: u64::MAX,
            untaken: None,
            measures: Measures::default(),
            paused: BTreeSet::new(),
            reclaiming: None,
        }
    }

    /// Goes on as long as there are `handles` to the VMs: as the node lives.
    pub(super) async fn run(mut self, handles: impl Fn() -> Option<BTreeMap<VmId, Handle>>) {
        // What an earlier agent left squeezed.
        if let Some(slice) = &self.slice {
            slice.squeeze_io(false, 0);
            slice.share_cpu(self.measures.cpu);
        }
        loop {
            let Some(vms) = handles() else {
                return;
            };
            let pause = block_in_place(|| self.look(&vms));
            tokio::select! {
                () = sleep(pause) => {}
                () = self.context.desk.changed() => {}
                () = self.pressure.told() => {}
            }
        }
    }

    fn desk(&self) -> &Desk {
        &self.context.desk
    }

    /// Looks once and does what is to be done. Returns how long the next look may wait.
    fn look(&mut self, handles: &BTreeMap<VmId, Handle>) -> Duration {
        let policy = self.desk().policy();
        let vms: Vec<Seen> = handles.values().filter_map(Seen::of).collect();
        self.measure(&policy, &vms);
        let scarcity = self.scarcity(&policy);
        let order = self.desk().order(now_ms());
        let input = Input {
            now_ms: self.begun.elapsed().as_millis() as u64,
            scarcity,
            order,
            active: vms.len(),
            ending: vms.iter().filter(|vm| vm.ending).count(),
        };
        let abilities = Abilities {
            squeeze: self.slice.is_some(),
            pause: true,
        };
        let settings = Settings {
            rungs: abilities.rungs(),
            hold_ms: policy.reclaim.hold_ms,
            cooldown_ms: policy.reclaim.cooldown_ms,
        };
        let (ladder, effects) = self.desk().ladder().advance(&input, &settings);
        // Whoever asks for admission sees at once that it is closed, and that it is open when that is on record.
        let closed = ladder.measures().closed;
        if closed {
            self.desk().set_ladder(ladder, scarcity);
        }
        for effect in effects {
            self.carry_out(effect, &vms, handles);
        }
        if !closed {
            self.desk().set_ladder(ladder, scarcity);
        }
        self.bring_about(ladder.measures(), &vms, handles, policy.reclaim.squeeze_io);
        self.watch_order(order, &vms);
        self.pause(&policy, ladder, order, !vms.is_empty())
    }

    fn measure(&mut self, policy: &Policy, vms: &[Seen]) {
        if self.reflected.as_ref() != Some(policy) {
            self.reflect(policy);
        }
        if policy.lending.is_none() {
            return;
        }
        if self.sampled_at.is_none_or(|at| at.elapsed() >= SAMPLE) {
            self.sampled_at = Some(Instant::now());
            let now = self.begun.elapsed().as_millis() as u64;
            let vmms: Vec<u32> = vms.iter().filter_map(|vm| vm.vmm_pid).collect();
            let measured = self
                .meter
                .capacity()
                .and_then(|capacity| Ok((capacity, self.meter.sample(now, &vmms)?)));
            match measured {
                Ok((capacity, sample)) => {
                    self.capacity = capacity;
                    let sample = sample.map(|sample| (sample.owner, sample.elapsed_ms));
                    self.desk().measured(capacity, sample);
                }
                Err(error) => self.desk().not_measured(error.to_string()),
            }
            if let Some(slice) = &self.slice {
                self.pressure.watch(&slice.owners());
            }
        }
        if self.kept_at.elapsed() >= KEEP {
            self.kept_at = Instant::now();
            self.desk().keep_usage();
        }
    }

    /// Makes the host's control groups what the policy says.
    fn reflect(&mut self, policy: &Policy) {
        if let (Ok(capacity), Some(slice)) = (self.meter.capacity(), &mut self.slice) {
            slice.protect(policy.lending.as_ref(), capacity);
        }
        if policy.lending.is_none() {
            self.pressure.watch(&[]);
        }
        self.reflected = Some(policy.clone());
    }

    fn scarcity(&mut self, policy: &Policy) -> Scarcity {
        let Some(lending) = &policy.lending else {
            return Scarcity::Calm;
        };
        let available = match self.meter.available() {
            Ok(available) => available,
            Err(error) => {
                self.desk().not_measured(error.to_string());
                return self.desk().scarcity();
            }
        };
        self.available = available;
        // What VMs fill is lent to them: it does not sink by that.
        let untaken = self
            .meter
            .held()
            .map(|held| (available.saturating_add(held), Instant::now()));
        let sinking = match (self.untaken, untaken) {
            (Some((before, at)), Some((now, _))) => per_second(before.saturating_sub(now), at.elapsed()),
            _ => 0,
        };
        self.untaken = untaken;
        let signals = Signals {
            available,
            sinking,
            reserve: lending.reserve.memory,
            memory_stall: self.pressure.memory_stall(),
            io_stall: self.pressure.io_stall(),
            io_squeezable: self.slice.as_ref().is_some_and(Slice::squeezes_io),
        };
        classify(&signals, self.desk().scarcity())
    }

    fn carry_out(&self, effect: Effect, vms: &[Seen], handles: &BTreeMap<VmId, Handle>) {
        match effect {
            Effect::Move { from, to, why } => {
                let why = match why {
                    Why::Scarcity(scarcity) => scarcity.word(),
                    Why::Order(by) => by_word(by),
                    Why::Relief => "relief",
                    Why::Withdrawn => "withdrawn",
                };
                log::warn!("the ladder moves from {} to {}: {why}", from.word(), to.word());
                self.desk().record_anyway(AuditEvent::LadderMoved {
                    from: from.word().into(),
                    to: to.word().into(),
                    why: why.into(),
                });
            }
            Effect::ShutDownOne { within_ms } => {
                if let Some(vm) = newest(vms) {
                    self.shut_down(vm, within_ms, handles);
                }
            }
            Effect::ShutDownAll { within_ms } => {
                for vm in vms {
                    self.shut_down(vm, within_ms, handles);
                }
            }
            Effect::KillOne => {
                let ending: Vec<&Seen> = vms.iter().filter(|vm| vm.ending).collect();
                let victims = if ending.is_empty() {
                    newest(vms).into_iter().collect()
                } else {
                    ending
                };
                for vm in victims {
                    self.kill(vm, handles);
                }
            }
            Effect::KillAll => {
                for vm in vms {
                    self.kill(vm, handles);
                }
            }
        }
    }

    fn shut_down(&self, vm: &Seen, within_ms: u64, handles: &BTreeMap<VmId, Handle>) {
        self.desk().record_anyway(AuditEvent::ShutDown {
            vm: vm.id.to_string(),
            within_ms,
        });
        self.tell(vm.id, Command::Reclaim { within_ms }, handles);
    }

    fn kill(&self, vm: &Seen, handles: &BTreeMap<VmId, Handle>) {
        self.desk().record_anyway(AuditEvent::Killed {
            vm: vm.id.to_string(),
        });
        self.tell(vm.id, Command::Reclaim { within_ms: 0 }, handles);
    }

    fn tell(&self, id: VmId, command: Command, handles: &BTreeMap<VmId, Handle>) {
        if let Some(handle) = handles.get(&id)
            && !handle.tell(command)
        {
            log::warn!("{id} has more to do than it can take in; it is told {command:?} again");
        }
    }

    fn bring_about(
        &mut self,
        measures: Measures,
        vms: &[Seen],
        handles: &BTreeMap<VmId, Handle>,
        squeeze_io: u64,
    ) {
        if let Some(slice) = &self.slice {
            if measures.squeezed != self.measures.squeezed {
                self.context.desk.record_anyway(AuditEvent::Squeezed {
                    on: measures.squeezed,
                });
                slice.squeeze_io(measures.squeezed, squeeze_io);
            }
            if measures.cpu != self.measures.cpu {
                slice.share_cpu(measures.cpu);
            }
        }
        self.measures = measures;
        let stands = |vm: &&Seen| measures.paused && vm.running && !vm.ending;
        let wanted: BTreeSet<VmId> = vms.iter().filter(stands).map(|vm| vm.id).collect();
        let alive = |id: &&VmId| vms.iter().any(|vm| vm.id == **id);
        let paused: Vec<VmId> = wanted.difference(&self.paused).copied().collect();
        let resumed: Vec<VmId> = self.paused.difference(&wanted).filter(alive).copied().collect();
        let named = |ids: &[VmId]| ids.iter().map(ToString::to_string).collect();
        if !paused.is_empty() {
            self.desk()
                .record_anyway(AuditEvent::Paused { vms: named(&paused) });
        }
        if !resumed.is_empty() {
            self.desk()
                .record_anyway(AuditEvent::Resumed { vms: named(&resumed) });
        }
        for (ids, command) in [(paused, Command::Pause), (resumed, Command::Resume)] {
            for id in ids {
                self.tell(id, command, handles);
            }
        }
        self.paused = wanted;
    }

    /// Records when an order has been carried out.
    fn watch_order(&mut self, order: Option<Order>, vms: &[Seen]) {
        match (order, self.reclaiming) {
            (Some(_), None) if !vms.is_empty() => self.reclaiming = Some(Instant::now()),
            (Some(_), Some(begun)) if vms.is_empty() => {
                self.reclaiming = None;
                let after_ms = begun.elapsed().as_millis() as u64;
                self.desk().record_anyway(AuditEvent::Reclaimed { after_ms });
            }
            (None, _) => self.reclaiming = None,
            (Some(_), _) => {}
        }
    }

    fn pause(&self, policy: &Policy, ladder: Ladder, order: Option<Order>, active: bool) -> Duration {
        match (policy.lending.is_some(), active) {
            (_, true) if order.is_some() => SOON,
            (true, true) if self.available < PLENTY || ladder.rung() != Rung::Open => SOON,
            (true, true) => LATER,
            // Nobody is to be ended; only the time goes on.
            (_, false) if ladder.rung() != Rung::Open && order.is_none() => LATER,
            (true, false) => SAMPLE,
            (false, _) => NEVER,
        }
    }
}
