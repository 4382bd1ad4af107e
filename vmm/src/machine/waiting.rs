//! Before the start: the API says which machine it will be.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use secovia_vmm_api::VmSpec;

use super::assembly::Parts;
use super::error::MachineError;
use super::settings::Settings;
use super::start::{Prelude, Started, start};
use crate::api::{Effect, Hands, Office, RequestCounts};
use crate::config::VmConfig;
use crate::{logger, metrics, sys};

/// What came of waiting.
pub(super) enum Waited {
    /// The guest runs.
    Started(Box<Started>),
    /// A signal asked the process to end.
    Ended,
}

/// Serves requests until one of them starts a machine, or a signal comes.
pub(super) fn wait(
    prelude: Prelude,
    settings: &Settings,
    signals: &SignalFd,
    office: &mut Office,
) -> Result<Waited, MachineError> {
    let mut starter = Starter {
        prelude: Some(prelude),
        settings,
        outcome: None,
    };
    loop {
        while office.serve_next(&mut starter) {
            if let Some(outcome) = starter.outcome.take() {
                return outcome.map(Box::new).map(Waited::Started);
            }
        }
        let mut fds = [signals.as_fd(), office.requests.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(MachineError::host("wait for requests")(error.into())),
        }
        if fds[0].any() == Some(true) {
            log::info!("asked to end before the start");
            return Ok(Waited::Ended);
        }
    }
}

/// Brings about what can be done before the start.
struct Starter<'a> {
    /// Until it is used, which can be once: a machine that comes to grief half-made is the end of the process.
    prelude: Option<Prelude>,
    settings: &'a Settings,
    outcome: Option<Result<Started, MachineError>>,
}

impl Hands for Starter<'_> {
    fn act(&mut self, effect: Effect, _: &RequestCounts) -> Result<Option<String>, String> {
        match effect {
            Effect::Start(spec) => self.start(*spec)?,
            Effect::Log(spec) => logger::change(&spec).map_err(|error| error.to_string())?,
            Effect::Metrics(path) => metrics::open(&path).map_err(|error| error.to_string())?,
            // Refused before the start by `Request::season`.
            Effect::None
            | Effect::Pause
            | Effect::Resume
            | Effect::PressButton
            | Effect::FlushMetrics
            | Effect::TellMetrics
            | Effect::RefreshDrive(_)
            | Effect::Drive { .. }
            | Effect::PlugDrive { .. }
            | Effect::Unplug { .. }
            | Effect::Network { .. }
            | Effect::Memory(_)
            | Effect::MemoryStatus(_)
            | Effect::BalloonTarget(_)
            | Effect::BalloonInterval(_)
            | Effect::BalloonStatistics
            | Effect::StartHinting(_)
            | Effect::StopHinting
            | Effect::HintingStatus
            | Effect::Metadata(_) => return Err("the machine has not been started".into()),
        }
        Ok(None)
    }
}

impl Starter<'_> {
    fn start(&mut self, spec: VmSpec) -> Result<(), String> {
        let config = VmConfig::new(spec, sys::host_memory()).map_err(|error| error.to_string())?;
        let parts = Parts::open(config, self.settings).map_err(|error| error.to_string())?;
        let Some(prelude) = self.prelude.take() else {
            return Err("the machine came to grief at its start; begin with a new process".into());
        };
        let started = start(prelude, parts);
        let told = match &started {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}; this process ends")),
        };
        self.outcome = Some(started);
        told
    }
}
