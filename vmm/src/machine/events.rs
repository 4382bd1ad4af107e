//! The event loop: everything that the host's side has to say, on the main thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use secovia_devices::serial::Serial;
use secovia_devices::virtio::transport::Transport;
use secovia_vmm_api::Exit;
use vmm_sys_util::eventfd::EventFd;

use super::console::Console;
use super::crew::{Crew, Move, Still};
use super::ending::FirstEnding;
use super::error::MachineError;
use super::life::{Action, Event, Life};
use crate::api::Office;
use crate::metrics;

/// A handful of sources, each at most once in a round.
const ROUND: usize = 32;

/// How often metrics are written, as Firecracker does it.
const REPORT: Duration = Duration::from_secs(60);

/// Blocks the signals that ask the machine to end, and makes them readable. All others are let through, whatever whoever
/// started the process had blocked: one fetches vCPUs back, and one tells of forbidden system calls.
pub(super) fn block_signals() -> io::Result<SignalFd> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_set_mask()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// The loop, with everything in it.
pub(super) struct EventLoop<'a> {
    manager: EventManager<Source>,
    /// The devices that are watched, by number.
    devices: BTreeMap<usize, SubscriberId>,
    desk: Desk<'a>,
}

/// What the sources bring, until the loop takes it up.
type Inbox = Rc<RefCell<Vec<Event>>>;

/// What the loop acts on.
struct Desk<'a> {
    life: Life,
    grace: Duration,
    inbox: Inbox,
    crew: Crew<'a>,
    office: Option<Office>,
    /// When the next line of metrics is due.
    report: Instant,
}

/// One descriptor that the loop watches.
enum Source {
    /// The guest's end.
    Ending(Arc<FirstEnding>, Inbox),
    /// Signals.
    Signals(SignalFd, Inbox),
    /// Standard input.
    Console(Console),
    /// A device's side towards the host.
    Device(Device),
    /// The API's requests. They are not taken here: the loop looks for some in each round.
    Requests(RawFd),
}

/// A device, and what makes the loop look at it again.
struct Device {
    transport: Arc<Mutex<dyn Transport>>,
    fds: Vec<RawFd>,
    again: EventFd,
    still: Still,
}

impl Device {
    fn new(transport: &Arc<Mutex<dyn Transport>>, still: Still) -> io::Result<Self> {
        let locked = transport.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self {
            fds: locked.host_fds(),
            again: locked.again()?,
            transport: transport.clone(),
            still,
        })
    }

    /// Never waits for the lock, which the vCPUs of a hostile guest can hold nearly all the time: the loop comes back
    /// for it, after it has looked at signals and everything else.
    fn process(&self) {
        if self.still.get() {
            // Whoever lets the machine go on has all devices called.
            return;
        }
        let mut transport = match self.transport.try_lock() {
            Ok(transport) => transport,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // A vCPU that was put aside with the lock, as where a packet that it sends wakes whoever answers it, may need
                // this very processor to give it back.
                thread::yield_now();
                if let Err(error) = self.again.write(1) {
                    log::debug!("come back to a busy device: {error}");
                }
                return;
            }
        };
        transport.handle_host();
    }
}

impl<'a> EventLoop<'a> {
    /// A loop over all sources.
    pub(super) fn new(
        ending: Arc<FirstEnding>,
        signals: SignalFd,
        serial: Arc<Mutex<Serial>>,
        transports: &[Arc<Mutex<dyn Transport>>],
        crew: Crew<'a>,
        office: Option<Office>,
        grace: Duration,
    ) -> Result<Self, MachineError> {
        let mut manager = EventManager::new_with_capacity(ROUND).map_err(|error| {
            MachineError::host("make the event loop")(io::Error::other(error.to_string()))
        })?;
        let inbox = Inbox::default();
        manager.add_subscriber(Source::Ending(ending, inbox.clone()));
        manager.add_subscriber(Source::Signals(signals, inbox.clone()));
        manager.add_subscriber(Source::Console(Console::new(serial)));
        let mut devices = BTreeMap::new();
        for (transport, number) in transports.iter().zip(1..) {
            let device =
                Device::new(transport, crew.still()).map_err(MachineError::host("watch a device"))?;
            devices.insert(number, manager.add_subscriber(Source::Device(device)));
        }
        if let Some(office) = &office {
            manager.add_subscriber(Source::Requests(office.requests.as_raw_fd()));
        }
        let desk = Desk {
            life: Life::Running,
            grace,
            inbox,
            crew,
            office,
            report: Instant::now() + REPORT,
        };
        Ok(Self {
            manager,
            devices,
            desk,
        })
    }

    /// Serves until the machine is at its end.
    pub(super) fn run(mut self) -> Result<Exit, MachineError> {
        loop {
            let now = Instant::now();
            // Rounded up: a wait that ends too early would be repeated without a pause.
            let timeout = self.desk.remaining(now).map_or(-1, |timeout| {
                i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            });
            match self.manager.run_with_timeout(timeout) {
                Ok(_) => {}
                Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
                Err(error) => {
                    return Err(MachineError::host("wait for events")(io::Error::other(
                        error.to_string(),
                    )));
                }
            }
            self.desk.act();
            for change in self.desk.crew.moves() {
                self.follow(change);
            }
            if let Life::Over(outcome) = self.desk.life {
                self.desk.crew.report_with(self.desk.office.as_ref());
                return outcome;
            }
        }
    }
}

impl EventLoop<'_> {
    /// Watches a device that came, or no longer one that went.
    fn follow(&mut self, change: Move) {
        match change {
            Move::In(number, transport) => match Device::new(&transport, self.desk.crew.still()) {
                Ok(device) => {
                    let id = self.manager.add_subscriber(Source::Device(device));
                    self.devices.insert(number, id);
                }
                Err(error) => log::warn!("watch a device: {error}"),
            },
            Move::Out(number) => {
                let gone = self.devices.remove(&number);
                if let Some(Err(error)) = gone.map(|id| self.manager.remove_subscriber(id)) {
                    log::warn!("watch a device no longer: {error}");
                }
            }
        }
    }
}

impl Desk<'_> {
    /// How long it may take until time alone asks for something.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        let report = metrics::is_open().then(|| self.report.saturating_duration_since(now));
        match (self.life.remaining(now), report) {
            (Some(life), Some(report)) => Some(life.min(report)),
            (life, report) => life.or(report),
        }
    }

    /// Takes up what the sources brought, the API's requests, and the time.
    fn act(&mut self) {
        if metrics::is_open() && self.report <= Instant::now() {
            self.report = Instant::now() + REPORT;
            self.crew.report_with(self.office.as_ref());
        }
        if let Some(office) = &mut self.office {
            while office.serve_next(&mut self.crew) {}
        }
        let events = self.inbox.take();
        for event in events.into_iter().chain([Event::Time]) {
            let life = std::mem::replace(&mut self.life, Life::Running);
            let (life, action) = life.on(event, Instant::now(), self.grace);
            self.life = life;
            match action {
                Action::None => {}
                Action::PressButton => {
                    log::info!("asked to end: power button pressed");
                    if let Err(error) = self.crew.press_button() {
                        log::warn!("press the power button: {error}");
                    }
                }
            }
        }
    }
}

impl MutEventSubscriber for Source {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        match self {
            Self::Ending(ending, _) => watch(ops, ending.as_raw_fd(), EventSet::IN, "the guest's end"),
            Self::Signals(signals, _) => watch(ops, signals.as_raw_fd(), EventSet::IN, "signals"),
            Self::Console(_) => watch(ops, io::stdin().as_raw_fd(), EventSet::IN, "standard input"),
            Self::Requests(bell) => watch(ops, *bell, EventSet::IN, "requests"),
            Self::Device(device) => {
                for fd in &device.fds {
                    watch(ops, *fd, EventSet::IN | EventSet::EDGE_TRIGGERED, "a device");
                }
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match self {
            // It is not read: one end is enough.
            Self::Ending(ending, inbox) => inbox.borrow_mut().extend(ending.get().map(Event::Ended)),
            Self::Signals(signals, inbox) => {
                while let Ok(Some(signal)) = signals.read_signal() {
                    log::debug!("signal {}", signal.ssi_signo);
                    inbox.borrow_mut().push(Event::Signal);
                }
            }
            Self::Console(console) => console.process(events.fd(), ops),
            Self::Device(device) => device.process(),
            Self::Requests(_) => {}
        }
    }
}

/// Standard input may be something that cannot be waited for (a file, /dev/null): then there is none.
fn watch(ops: &mut EventOps<'_>, fd: RawFd, set: EventSet, what: &str) {
    if let Err(error) = ops.add(Events::new_raw(fd, set)) {
        log::debug!("watch {what}: {error}");
    }
}
