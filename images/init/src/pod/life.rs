//! One container's life, and how it is. Pure: no clocks, no locks; times are milliseconds of a clock that never goes back.

use secovia_guest_protocol::{
    ContainerEnd, ContainerReport, ContainerState, ExitStatus, PodRestart, ProbeSpec,
};

/// The wait before the second restart in a row; each further one is twice as long.
const BACK_OFF_FIRST_MS: u64 = 10_000;
/// The longest.
const BACK_OFF_LONGEST_MS: u64 = 300_000;
/// Who has run for so long begins with no wait again.
const STABLE_MS: u64 = 600_000;

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// What comes after the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Over,
    /// The next run, after so many milliseconds.
    Again { after_ms: u64 },
}

/// A container.
#[derive(Debug)]
pub(crate) struct Life {
    is_init: bool,
    policy: PodRestart,
    phase: Phase,
    /// The last run's end that `phase` does not tell.
    last: Option<ContainerEnd>,
    /// The number of the run that is, was, or will be the first.
    run: u32,
    /// Restarts without a long run between.
    in_a_row: u32,
    startup: Option<Series>,
    liveness: Option<Series>,
    readiness: Option<Series>,
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Running {
        /// By the clock that never goes back.
        since: u64,
        /// By the calendar's.
        since_ms: u64,
    },
    BackOff,
    Ended(ContainerEnd),
}

/// Answers of one probe.
#[derive(Debug)]
struct Series {
    success: u32,
    failure: u32,
    verdict: Option<bool>,
    /// The last answer, and how often it came in a row.
    last: Option<(bool, u32)>,
}

impl Series {
    fn new(spec: &ProbeSpec) -> Self {
        Self {
            success: spec.success,
            failure: spec.failure,
            verdict: None,
            last: None,
        }
    }

    fn hear(&mut self, good: bool) {
        let count = match self.last {
            Some((same, count)) if same == good => count.saturating_add(1),
            _ => 1,
        };
        self.last = Some((good, count));
        let enough = if good { self.success } else { self.failure };
        if count >= enough {
            self.verdict = Some(good);
        }
    }

    fn forget(&mut self) {
        self.verdict = None;
        self.last = None;
    }
}

impl Life {
    /// A container that waits for its turn; `restarts` is how often it was started again before this guest was.
    pub(crate) fn new(
        policy: PodRestart,
        is_init: bool,
        restarts: u32,
        [startup, liveness, readiness]: [Option<&ProbeSpec>; 3],
    ) -> Self {
        Self {
            is_init,
            policy: match policy {
                // One that succeeded has done its work.
                PodRestart::Always if is_init => PodRestart::OnFailure,
                policy => policy,
            },
            phase: Phase::Waiting,
            last: None,
            run: restarts,
            in_a_row: 0,
            startup: startup.map(Series::new),
            liveness: liveness.map(Series::new),
            readiness: readiness.map(Series::new),
        }
    }

    /// A run begins; gives its number.
    pub(crate) fn begin(&mut self, now: u64, now_ms: u64) -> u32 {
        if matches!(self.phase, Phase::BackOff) {
            self.run = self.run.saturating_add(1);
        }
        for series in [&mut self.startup, &mut self.liveness, &mut self.readiness] {
            series.iter_mut().for_each(Series::forget);
        }
        self.phase = Phase::Running {
            since: now,
            since_ms: now_ms,
        };
        self.run
    }

    /// The run has ended. `reason` says why, where it is not the container's own doing; one that could not be started has
    /// `started` false. With `is_last` it is not started again, whatever its policy.
    pub(crate) fn end(
        &mut self,
        status: ExitStatus,
        reason: Option<String>,
        started: bool,
        is_last: bool,
        (now, now_ms): (u64, u64),
    ) -> Next {
        let (ran_for, since_ms) = match self.phase {
            Phase::Running { since, since_ms } => (now.saturating_sub(since), Some(since_ms)),
            Phase::Waiting | Phase::BackOff | Phase::Ended(_) => (0, None),
        };
        let end = ContainerEnd {
            status,
            reason,
            started_ms: since_ms.filter(|_| started),
            ended_ms: now_ms,
        };
        let again = match self.policy {
            _ if is_last => false,
            PodRestart::Never => false,
            PodRestart::OnFailure => status.code() != 0,
            PodRestart::Always => true,
        };
        if !again {
            self.phase = Phase::Ended(end);
            return Next::Over;
        }
        self.last = Some(end);
        self.phase = Phase::BackOff;
        if ran_for >= STABLE_MS {
            self.in_a_row = 0;
        }
        let after_ms = match self.in_a_row.checked_sub(1) {
            None => 0,
            Some(doubled) => BACK_OFF_FIRST_MS
                .saturating_mul(1u64.checked_shl(doubled).unwrap_or(u64::MAX))
                .min(BACK_OFF_LONGEST_MS),
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        Next::Again { after_ms }
    }

    /// It will not be started again, although it waits for that.
    pub(crate) fn give_up(&mut self) {
        if matches!(self.phase, Phase::BackOff)
            && let Some(last) = self.last.take()
        {
            self.phase = Phase::Ended(last);
        }
    }

    /// An answer of a probe came. True where the container has to be ended for it.
    pub(crate) fn hear(&mut self, kind: Kind, good: bool) -> bool {
        if !matches!(self.phase, Phase::Running { .. }) {
            return false;
        }
        let series = match kind {
            Kind::Startup => &mut self.startup,
            Kind::Liveness => &mut self.liveness,
            Kind::Readiness => &mut self.readiness,
        };
        let Some(series) = series else {
            return false;
        };
        series.hear(good);
        series.verdict == Some(false) && kind != Kind::Readiness
    }

    /// Whether a probe of this kind is made now.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        match kind {
            Kind::Startup => !self.has_started(),
            Kind::Liveness | Kind::Readiness => self.has_started(),
        }
    }

    /// It runs, and has come up.
    pub(crate) fn has_started(&self) -> bool {
        let is_up = self
            .startup
            .as_ref()
            .is_none_or(|series| series.verdict == Some(true));
        matches!(self.phase, Phase::Running { .. }) && is_up
    }

    fn is_ready(&self) -> bool {
        let says_so = self
            .readiness
            .as_ref()
            .is_none_or(|series| series.verdict == Some(true));
        self.has_started() && says_so
    }

    /// How it ended for good, where it did.
    pub(crate) fn outcome(&self) -> Option<ExitStatus> {
        match &self.phase {
            Phase::Ended(end) => Some(end.status),
            Phase::Waiting | Phase::Running { .. } | Phase::BackOff => None,
        }
    }

    /// What the host is told.
    pub(crate) fn report(&self) -> ContainerReport {
        let succeeded = self.outcome().is_some_and(|status| status.code() == 0);
        ContainerReport {
            state: match &self.phase {
                Phase::Waiting => ContainerState::Waiting {},
                Phase::Running { since_ms, .. } => ContainerState::Running { since_ms: *since_ms },
                Phase::BackOff => ContainerState::BackOff {},
                Phase::Ended(end) => ContainerState::Ended(end.clone()),
            },
            last: self.last.clone(),
            restarts: self.run,
            ready: if self.is_init { succeeded } else { self.is_ready() },
            started: self.has_started(),
        }
    }
}

#[cfg(test)]
mod tests;
