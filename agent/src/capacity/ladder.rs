//! Taking back what is lent, rung by rung: what to do next, from how scarce things are and what the owner orders.
//!
//! Two kinds of reason climb it. Scarcity climbs rung by rung, each with time to work, as far as it is bad, and ends one
//! microVM at a time. An order (of the owner, or of the schedule) wants everything back by a deadline: it closes
//! admissions, asks all guests to shut down, and kills what is left in time for the deadline.
//!
//! The ladder has a time of its own, which adds up what its caller's clock shows between two looks. A clock set back
//! adds nothing; one set forward makes it climb sooner, for the owner, but never climb down sooner.

#[cfg(test)]
mod tests;

/// How scarce things are for the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scarcity {
    /// Nothing lacks.
    Calm,
    /// The owner begins to feel it.
    Tight,
    /// The owner waits for I/O.
    Starved,
    /// The owner's memory runs short.
    Scarce,
    /// The owner's memory is about to run out: there is no time to wait.
    Critical,
}

/// A rung: each does what those below it do, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// All is as it should be.
    Open,
    /// No new admissions.
    Closed,
    /// MicroVMs get the CPU time that nobody else wants, and little I/O.
    Squeeze,
    /// MicroVMs stand still.
    Pause,
    /// Guests are asked to shut down.
    Shutdown,
    /// MicroVMs are ended.
    Kill,
}

/// What the host and the VMM are able to do beyond closing, shutting down and killing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// CPU and I/O can be squeezed.
    pub squeeze: bool,
    /// MicroVMs can be paused.
    pub pause: bool,
}

impl Abilities {
    /// The rungs that there are, lowest first.
    pub fn rungs(self) -> Vec<Rung> {
        [
            (true, Rung::Open),
            (true, Rung::Closed),
            (self.squeeze, Rung::Squeeze),
            (self.pause, Rung::Pause),
            (true, Rung::Shutdown),
            (true, Rung::Kill),
        ]
        .into_iter()
        .filter_map(|(able, rung)| able.then_some(rung))
        .collect()
    }
}

/// Who ordered everything back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A person.
    Owner,
    /// No window of the schedule is open.
    Schedule,
}

/// An order to give everything back. It stands until it is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Whose.
    pub by: By,
    /// Milliseconds from when it was given until all is free.
    pub within_ms: u64,
}

/// What is seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// The caller's clock, in milliseconds since whenever.
    pub now_ms: u64,
    /// How scarce things are.
    pub scarcity: Scarcity,
    /// The order that stands.
    pub order: Option<Order>,
    /// MicroVMs that are active.
    pub active: usize,
    /// Those of them that are on their way out.
    pub ending: usize,
}

/// How the ladder is climbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The rungs that there are, lowest first.
    pub rungs: Vec<Rung>,
    /// How long a rung may work before the next is climbed.
    pub hold_ms: u64,
    /// How long a rung is kept after the last need of it.
    pub cooldown_ms: u64,
}

/// Why the ladder moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Things are that scarce.
    Scarcity(Scarcity),
    /// There is an order.
    Order(By),
    /// The cooldown is over.
    Relief,
    /// The order was withdrawn.
    Withdrawn,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The ladder moved: to be written down, and [`Ladder::measures`] to be brought about.
    Move {
        /// The rung before.
        from: Rung,
        /// The rung now.
        to: Rung,
        /// The reason.
        why: Why,
    },
    /// Ask one more guest to shut down.
    ShutDownOne {
        /// It is ended by force after this time.
        within_ms: u64,
    },
    /// Ask all guests to shut down.
    ShutDownAll {
        /// They are ended by force after this time.
        within_ms: u64,
    },
    /// End those that are on their way out, or else one more.
    KillOne,
    /// End all.
    KillAll,
}

/// What CPU time all microVMs together get, beside the owner's control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CpuShare {
    /// Only what nobody else wants: the idle class.
    Spare,
    /// The least weight that there is.
    #[default]
    Least,
    /// As much as one of the owner's groups: guests that were asked to shut down need it to do so in time.
    Fair,
    /// Nearly all: only microVMs that are being ended run then, and their memory is free when the kernel has taken them apart
    /// in their own time. An owner who waits for that memory would wait for a hundred times as long at the least weight.
    First,
}

/// What holds as long as the ladder stands where it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measures {
    /// Nothing is admitted.
    pub closed: bool,
    /// I/O is squeezed, and CPU time with it.
    pub squeezed: bool,
    /// What they get of the CPUs.
    pub cpu: CpuShare,
    /// Those that are not on their way out stand still.
    pub paused: bool,
}

/// Whose doing it is that the ladder stands where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stance {
    /// Scarcity decides.
    Watching,
    /// An order decides; times are the ladder's.
    Reclaiming { by: By, kill_at_ms: u64 },
}

/// Where things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    rung: Rung,
    stance: Stance,
    /// The caller's clock at the last look.
    seen_ms: Option<u64>,
    /// The ladder's own time.
    time_ms: u64,
    /// When it last moved or ended a microVM, in its own time.
    acted_ms: u64,
    /// For how long the present rung was not needed.
    relief_ms: u64,
}

/// Between two looks no more than this counts towards a cooldown: who does not look sees no calm.
const RELIEF_STEP_MS: u64 = 5_000;

/// At the worst, a killed microVM's memory has no more time than this to be free before the next one is killed.
const CRITICAL_HOLD_MS: u64 = 100;

/// The most time that the last resort of an order gets.
const KILL_LEAD_MS: u64 = 5_000;

impl Scarcity {
    /// The highest rung that this much scarcity justifies.
    fn ceiling(self) -> Rung {
        match self {
            Self::Calm => Rung::Open,
            Self::Tight => Rung::Squeeze,
            Self::Starved => Rung::Pause,
            Self::Scarce | Self::Critical => Rung::Kill,
        }
    }

    /// In one word, stable.
    pub fn word(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Tight => "tight",
            Self::Starved => "starved",
            Self::Scarce => "scarce",
            Self::Critical => "critical",
        }
    }
}

impl Rung {
    /// In one word, stable.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Squeeze => "squeeze",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
            Self::Kill => "kill",
        }
    }
}

impl Settings {
    /// How long the present rung may work.
    fn hold(&self, rung: Rung, scarcity: Scarcity) -> u64 {
        match (rung, scarcity) {
            // To close costs nobody anything.
            (Rung::Open, _) => 0,
            // What frees no memory is not waited for, nor is a guest that would have to shut down first.
            (Rung::Closed | Rung::Squeeze | Rung::Pause | Rung::Shutdown, Scarcity::Critical) => 0,
            (Rung::Kill, Scarcity::Critical) => self.hold_ms.min(CRITICAL_HOLD_MS),
            (_, _) => self.hold_ms,
        }
    }

    fn above(&self, rung: Rung) -> Option<Rung> {
        self.rungs.iter().copied().find(|other| *other > rung)
    }

    /// The rung to climb down to. Shutting down and killing are acts: what lasts is below them.
    fn below(&self, rung: Rung) -> Rung {
        let lasting = |other: &Rung| *other < rung && *other < Rung::Shutdown;
        self.rungs.iter().copied().rfind(lasting).unwrap_or(Rung::Open)
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            rung: Rung::Open,
            stance: Stance::Watching,
            seen_ms: None,
            time_ms: 0,
            acted_ms: 0,
            relief_ms: 0,
        }
    }
}

impl Ladder {
    /// Where it stands.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Whose order decides, where one does.
    pub fn ordered_by(&self) -> Option<By> {
        match self.stance {
            Stance::Watching => None,
            Stance::Reclaiming { by, .. } => Some(by),
        }
    }

    /// What holds now. Under an order guests have to run, so that they can shut down.
    pub fn measures(&self) -> Measures {
        let watching = self.stance == Stance::Watching;
        let squeezed = watching && self.rung >= Rung::Squeeze;
        Measures {
            closed: self.rung >= Rung::Closed,
            squeezed,
            cpu: match self.rung {
                Rung::Kill => CpuShare::First,
                Rung::Shutdown => CpuShare::Fair,
                Rung::Open | Rung::Closed | Rung::Squeeze | Rung::Pause if squeezed => CpuShare::Spare,
                Rung::Open | Rung::Closed | Rung::Squeeze | Rung::Pause => CpuShare::Least,
            },
            paused: watching && self.rung >= Rung::Pause,
        }
    }

    /// Looks once, and says what to do, in this order.
    #[must_use]
    pub fn advance(&self, input: &Input, settings: &Settings) -> (Self, Vec<Effect>) {
        let mut next = *self;
        let elapsed = input.now_ms.saturating_sub(self.seen_ms.unwrap_or(input.now_ms));
        next.seen_ms = Some(input.now_ms);
        next.time_ms = self.time_ms.saturating_add(elapsed);
        let mut effects = Vec::new();
        match (self.stance, input.order) {
            (Stance::Watching, None) => next.watch(input, settings, elapsed, &mut effects),
            (Stance::Watching, Some(order)) => next.begin(order, &mut effects),
            (Stance::Reclaiming { by, kill_at_ms }, Some(order)) => {
                next.reclaim((by, kill_at_ms), order, input, settings, &mut effects);
            }
            (Stance::Reclaiming { .. }, None) => {
                next.stance = Stance::Watching;
                next.go(Rung::Open, Why::Withdrawn, &mut effects);
            }
        }
        (next, effects)
    }

    fn watch(&mut self, input: &Input, settings: &Settings, elapsed: u64, effects: &mut Vec<Effect>) {
        let ceiling = input.scarcity.ceiling();
        if ceiling < self.rung {
            self.relief_ms = self.relief_ms.saturating_add(elapsed.min(RELIEF_STEP_MS));
            if self.relief_ms >= settings.cooldown_ms {
                let below = settings.below(self.rung);
                self.go(below, Why::Relief, effects);
            }
            return;
        }
        self.relief_ms = 0;
        while let Some(above) = settings.above(self.rung).filter(|above| *above <= ceiling) {
            if self.waited_ms() < settings.hold(self.rung, input.scarcity) {
                return;
            }
            let graceful = input.scarcity < Scarcity::Critical;
            // The guest that was asked has shut down, and it was not enough: the next one.
            if self.rung == Rung::Shutdown && graceful && input.ending == 0 {
                return self.end_one(input, settings, effects);
            }
            self.go(above, Why::Scarcity(input.scarcity), effects);
            if above == Rung::Kill || above == Rung::Shutdown && graceful {
                return self.end_one(input, settings, effects);
            }
        }
        if self.rung == Rung::Kill && self.waited_ms() >= settings.hold(self.rung, input.scarcity) {
            self.end_one(input, settings, effects);
        }
    }

    fn end_one(&mut self, input: &Input, settings: &Settings, effects: &mut Vec<Effect>) {
        if input.active == 0 {
            return;
        }
        self.acted_ms = self.time_ms;
        effects.push(match self.rung {
            Rung::Kill => Effect::KillOne,
            _ => Effect::ShutDownOne {
                within_ms: settings.hold(self.rung, input.scarcity),
            },
        });
    }

    fn begin(&mut self, order: Order, effects: &mut Vec<Effect>) {
        let within_ms = order.within_ms - kill_lead(order.within_ms);
        self.stance = Stance::Reclaiming {
            by: order.by,
            kill_at_ms: self.time_ms.saturating_add(within_ms),
        };
        if self.rung < Rung::Closed {
            self.go(Rung::Closed, Why::Order(order.by), effects);
        }
        // From below, or from where scarcity ended one after the other: now all are asked, and killed in time for the deadline.
        self.go(Rung::Shutdown, Why::Order(order.by), effects);
        effects.push(Effect::ShutDownAll { within_ms });
    }

    fn reclaim(
        &mut self,
        (by, kill_at_ms): (By, u64),
        order: Order,
        input: &Input,
        settings: &Settings,
        effects: &mut Vec<Effect>,
    ) {
        // A person's order while the schedule's is under way counts from now, and never gives more time.
        if by != order.by {
            let within_ms = order.within_ms - kill_lead(order.within_ms);
            let sooner = kill_at_ms.min(self.time_ms.saturating_add(within_ms));
            self.stance = Stance::Reclaiming {
                by: order.by,
                kill_at_ms: sooner,
            };
            if sooner < kill_at_ms {
                effects.push(Effect::ShutDownAll {
                    within_ms: sooner.saturating_sub(self.time_ms),
                });
            }
            return;
        }
        if input.active == 0 || self.time_ms < kill_at_ms {
            return;
        }
        if self.rung < Rung::Kill {
            self.go(Rung::Kill, Why::Order(by), effects);
            effects.push(Effect::KillAll);
        } else if self.waited_ms() >= settings.hold_ms {
            self.acted_ms = self.time_ms;
            effects.push(Effect::KillAll);
        }
    }

    fn waited_ms(&self) -> u64 {
        self.time_ms.saturating_sub(self.acted_ms)
    }

    fn go(&mut self, to: Rung, why: Why, effects: &mut Vec<Effect>) {
        if to != self.rung {
            effects.push(Effect::Move {
                from: self.rung,
                to,
                why,
            });
        }
        self.rung = to;
        self.acted_ms = self.time_ms;
        self.relief_ms = 0;
    }
}

/// How long before the deadline what is left is killed.
fn kill_lead(within_ms: u64) -> u64 {
    (within_ms / 4).min(KILL_LEAD_MS)
}
