//! The event loop: everything that the host's side has to say, on the main thread.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use secovia_devices::ged::{Ged, GedEvent};
use secovia_devices::serial::Serial;
use secovia_devices::virtio::mmio::MmioTransport;
use secovia_vmm_api::Exit;

use super::ending::FirstEnding;
use super::error::MachineError;
use super::life::{Action, Event, Life};

/// How soon input for the console is tried again while the guest does not take it.
const CONSOLE_RETRY: Duration = Duration::from_millis(10);
/// The serial port takes no more at a time.
const CONSOLE_CHUNK: usize = 64;
/// A handful of sources, each at most once in a round.
const ROUND: usize = 32;

/// Blocks the signals that ask the machine to end, and makes them readable.
pub(super) fn block_signals() -> io::Result<SignalFd> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// The loop, with everything in it.
pub(super) struct EventLoop {
    manager: EventManager<Source>,
    desk: Desk,
    console: SubscriberId,
}

/// What the sources bring, until the loop takes it up.
#[derive(Default)]
struct Inbox {
    events: Vec<Event>,
    /// The console has no room: its input is not watched.
    console_full: bool,
}

type SharedInbox = std::rc::Rc<std::cell::RefCell<Inbox>>;

/// What the loop acts on.
struct Desk {
    life: Life,
    grace: Duration,
    inbox: SharedInbox,
    events: Arc<Mutex<Ged>>,
}

/// One descriptor that the loop watches.
enum Source {
    /// The guest's end.
    Ending(Arc<FirstEnding>, SharedInbox),
    /// Signals.
    Signals(SignalFd, SharedInbox),
    /// Standard input.
    Console(Arc<Mutex<Serial>>, SharedInbox),
    /// A device's side towards the host.
    Device(Arc<Mutex<MmioTransport>>, RawFd),
}

impl EventLoop {
    /// A loop over all sources.
    pub(super) fn new(
        ending: Arc<FirstEnding>,
        signals: SignalFd,
        serial: Arc<Mutex<Serial>>,
        events: Arc<Mutex<Ged>>,
        transports: &[Arc<Mutex<MmioTransport>>],
        grace: Duration,
    ) -> Result<Self, MachineError> {
        let mut manager = EventManager::new_with_capacity(ROUND).map_err(|error| {
            MachineError::host("make the event loop")(io::Error::other(error.to_string()))
        })?;
        let inbox = SharedInbox::default();
        manager.add_subscriber(Source::Ending(ending, inbox.clone()));
        manager.add_subscriber(Source::Signals(signals, inbox.clone()));
        let console = manager.add_subscriber(Source::Console(serial, inbox.clone()));
        for transport in transports {
            let fd = transport.lock().unwrap_or_else(PoisonError::into_inner).host_fd();
            if let Some(fd) = fd {
                manager.add_subscriber(Source::Device(transport.clone(), fd));
            }
        }
        let desk = Desk {
            life: Life::Running,
            grace,
            inbox,
            events,
        };
        Ok(Self {
            manager,
            desk,
            console,
        })
    }

    /// Serves until the machine is at its end.
    pub(super) fn run(mut self) -> Result<Exit, MachineError> {
        loop {
            let now = Instant::now();
            let console_full = self.desk.inbox.borrow().console_full;
            let timeout = [
                self.desk.life.remaining(now),
                console_full.then_some(CONSOLE_RETRY),
            ];
            // Rounded up: a wait that ends too early would be repeated without a pause.
            let timeout = timeout.into_iter().flatten().min().map_or(-1, |timeout| {
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
            if console_full {
                self.watch_console_again();
            }
            self.desk.act();
            if let Life::Over(outcome) = self.desk.life {
                return outcome;
            }
        }
    }

    fn watch_console_again(&mut self) {
        self.desk.inbox.borrow_mut().console_full = false;
        if let Ok(mut ops) = self.manager.event_ops(self.console) {
            watch(&mut ops, io::stdin().as_raw_fd(), EventSet::IN, "standard input");
        }
    }
}

impl Desk {
    /// Takes up what the sources brought, and the time.
    fn act(&mut self) {
        let events = std::mem::take(&mut self.inbox.borrow_mut().events);
        for event in events.into_iter().chain([Event::Time]) {
            let life = std::mem::replace(&mut self.life, Life::Running);
            let (life, action) = life.on(event, Instant::now(), self.grace);
            self.life = life;
            match action {
                Action::None => {}
                Action::PressButton => {
                    log::info!("asked to end: power button pressed");
                    let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(error) = events.notify(GedEvent::PowerButton) {
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
            Self::Console(..) => watch(ops, io::stdin().as_raw_fd(), EventSet::IN, "standard input"),
            Self::Device(_, fd) => watch(ops, *fd, EventSet::IN | EventSet::EDGE_TRIGGERED, "a device"),
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match self {
            // It is not read: one end is enough.
            Self::Ending(ending, inbox) => inbox.borrow_mut().events.extend(ending.get().map(Event::Ended)),
            Self::Signals(signals, inbox) => {
                while let Ok(Some(signal)) = signals.read_signal() {
                    log::debug!("signal {}", signal.ssi_signo);
                    inbox.borrow_mut().events.push(Event::Signal);
                }
            }
            Self::Console(serial, inbox) => {
                let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                match console_input(&mut serial) {
                    Console::Taken => {}
                    Console::Full => {
                        inbox.borrow_mut().console_full = true;
                        let _ = ops.remove(events);
                    }
                    Console::Ended => {
                        let _ = ops.remove(events);
                    }
                }
            }
            Self::Device(transport, _) => {
                transport
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .handle_host();
            }
        }
    }
}

/// What came of readable standard input.
enum Console {
    /// The guest has it.
    Taken,
    /// The guest has no room.
    Full,
    /// There will be no more.
    Ended,
}

/// Moves what the serial port has room for, so that nothing is left over.
fn console_input(serial: &mut Serial) -> Console {
    let mut buffer = [0; CONSOLE_CHUNK];
    let room = serial.capacity().min(buffer.len());
    if room == 0 {
        return Console::Full;
    }
    match nix::unistd::read(io::stdin(), &mut buffer[..room]) {
        Ok(0) => Console::Ended,
        Ok(length) => {
            serial.enqueue(&buffer[..length]);
            Console::Taken
        }
        Err(nix::Error::EINTR | nix::Error::EAGAIN) => Console::Taken,
        Err(error) => {
            log::debug!("read standard input: {error}");
            Console::Ended
        }
    }
}

/// Standard input may be something that cannot be waited for (a file, /dev/null): then there is none.
fn watch(ops: &mut EventOps<'_>, fd: RawFd, set: EventSet, what: &str) {
    if let Err(error) = ops.add(Events::new_raw(fd, set)) {
        log::debug!("watch {what}: {error}");
    }
}
