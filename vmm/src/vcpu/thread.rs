//! The thread of one vCPU: runs the guest, carries its accesses to the buses, answers to requests.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use secovia_devices::bus::{Bus, Effect};
use secovia_seccomp::List;
use vmm_sys_util::signal::{Killable, SIGRTMIN};

use super::counters::ExitCounters;
use super::state::{Request, RunState};
use crate::confine::Seccomp;
use crate::kvm::{Stop, Vcpu, VcpuExit};

/// Enough for the deepest device; the pages that are not touched cost nothing.
const STACK: usize = 256 << 10;

/// How long a vCPU may take to hold still: the longest request of a disk, not the longest of a broken one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the guest ended, as a vCPU saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest asked for it through a device.
    Effect(Effect),
    /// The guest's processor stopped by itself, or KVM did.
    Stop(Stop),
    /// KVM_RUN failed.
    Failed(String),
}

/// The two address spaces of the machine.
#[derive(Clone, Default)]
pub struct Buses {
    /// Ports.
    pub ports: Bus,
    /// Memory-mapped registers.
    pub memory: Bus,
}

/// Told of the first ending; called on the vCPU's thread with no lock held.
pub trait Listener: Send + Sync {
    /// The guest has ended.
    fn ended(&self, ending: Ending);
}

/// What the machine wants, for all of its vCPUs, and how far they are with it.
#[derive(Debug)]
pub struct Control {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug)]
struct Wanted {
    request: Request,
    /// vCPUs that hold still, or have come to their end.
    still: usize,
}

impl Control {
    /// Starts out with `request`.
    pub fn new(request: Request) -> Self {
        Self {
            wanted: Mutex::new(Wanted { request, still: 0 }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // Plain values: nothing can be half-done.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Request {
        self.lock().request
    }

    /// Holds still until something else is wanted.
    fn pause(&self) {
        let mut wanted = self.lock();
        wanted.still += 1;
        self.changed.notify_all();
        let mut wanted = self
            .changed
            .wait_while(wanted, |wanted| wanted.request == Request::Pause)
            .unwrap_or_else(PoisonError::into_inner);
        wanted.still -= 1;
    }

    /// A vCPU has come to its end.
    fn end(&self) {
        self.lock().still += 1;
        self.changed.notify_all();
    }

    /// Waits until so many hold still; says whether they do.
    fn wait_still(&self, count: usize, patience: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), patience, |wanted| wanted.still < count);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn set(&self, request: Request) {
        self.lock().request = request;
        self.changed.notify_all();
    }
}

/// All vCPUs' threads.
pub struct Threads {
    control: Arc<Control>,
    counters: Vec<Arc<ExitCounters>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts one thread for each vCPU, which runs at once.
    /// It goes under the filter of vCPUs before the first instruction of the guest.
    pub fn start(
        vcpus: Vec<Vcpu>,
        buses: &Arc<Buses>,
        listener: &Arc<dyn Listener>,
        seccomp: &Seccomp,
    ) -> io::Result<Self> {
        let control = Arc::new(Control::new(Request::Run));
        let mut threads = Self {
            control,
            counters: Vec::with_capacity(vcpus.len()),
            handles: Vec::with_capacity(vcpus.len()),
        };
        for (index, mut vcpu) in vcpus.into_iter().enumerate() {
            let (control, buses, listener) = (threads.control.clone(), buses.clone(), listener.clone());
            let seccomp = seccomp.clone();
            let counters = Arc::<ExitCounters>::default();
            threads.counters.push(counters.clone());
            let handle = Builder::new()
                .name(format!("vcpu{index}"))
                .stack_size(STACK)
                .spawn(move || match seccomp.enter(List::Vcpu) {
                    Ok(()) => vcpu.on_this_thread(|vcpu| live(vcpu, &control, &buses, &*listener, &counters)),
                    Err(error) => listener.ended(Ending::Failed(error.to_string())),
                })?;
            threads.handles.push(handle);
        }
        Ok(threads)
    }

    /// Asks all vCPUs for something, and fetches them from the guest so that they hear it.
    pub fn request(&self, request: Request) {
        self.control.set(request);
        for handle in &self.handles {
            if let Err(error) = handle.kill(SIGRTMIN()) {
                log::debug!("signal {:?}: {error}", handle.thread().name());
            }
        }
    }

    /// What each vCPU left the guest for.
    pub fn counters(&self) -> &[Arc<ExitCounters>] {
        &self.counters
    }

    /// Has all vCPUs hold still: when this returns true, none of them executes the guest or serves a device. One that is
    /// still busy after five seconds has them all go on.
    pub fn pause(&self) -> bool {
        self.request(Request::Pause);
        let still = self.control.wait_still(self.handles.len(), PATIENCE);
        if !still {
            self.resume();
        }
        still
    }

    /// Has all vCPUs go on.
    pub fn resume(&self) {
        self.control.set(Request::Run);
    }

    /// Ends all vCPUs and waits for them.
    pub fn finish(mut self) {
        self.request(Request::Finish);
        for handle in self.handles.drain(..) {
            // A panic has been printed by the thread itself; there is nothing to add.
            let _ = handle.join();
        }
    }
}

/// A vCPU's whole life.
fn live(vcpu: &mut Vcpu, control: &Control, buses: &Buses, listener: &dyn Listener, counters: &ExitCounters) {
    let mut state = RunState::Paused.on_request(control.current());
    loop {
        state = match state {
            RunState::Running => match execute(vcpu, buses, counters) {
                None => {
                    // Cleared before the request is read: a request that comes in between kicks again.
                    vcpu.clear_kick();
                    state.on_request(control.current())
                }
                Some(ending) => {
                    listener.ended(ending);
                    RunState::Finished
                }
            },
            RunState::Paused => {
                control.pause();
                // Kicks of before are answered by having held still; and as above.
                vcpu.clear_kick();
                state.on_request(control.current())
            }
            RunState::Finished => break,
        }
    }
    control.end();
}

/// Runs the guest until it ends, or until the thread is interrupted (`None`).
fn execute(vcpu: &mut Vcpu, buses: &Buses, counters: &ExitCounters) -> Option<Ending> {
    loop {
        let effect = match vcpu.run() {
            Ok(VcpuExit::PortWrite { port, accesses }) => {
                counters.io_out.count();
                let effects = accesses.map(|data| buses.ports.write(port.into(), data));
                effects.fold(
                    Effect::None,
                    |first, effect| if first == Effect::None { effect } else { first },
                )
            }
            Ok(VcpuExit::PortRead { port, accesses }) => {
                counters.io_in.count();
                accesses.for_each(|data| read(&buses.ports, port.into(), data));
                Effect::None
            }
            Ok(VcpuExit::MemoryWrite(address, data)) => {
                counters.mmio_write.count();
                buses.memory.write(address, data)
            }
            Ok(VcpuExit::MemoryRead(address, data)) => {
                counters.mmio_read.count();
                read(&buses.memory, address, data);
                Effect::None
            }
            Ok(VcpuExit::Interrupted) => return None,
            Ok(VcpuExit::Stop(stop)) => {
                if matches!(stop, Stop::Broken(_)) {
                    counters.failures.count();
                }
                return Some(Ending::Stop(stop));
            }
            Err(error) => {
                counters.failures.count();
                return Some(Ending::Failed(error.to_string()));
            }
        };
        if effect != Effect::None {
            return Some(Ending::Effect(effect));
        }
    }
}

/// A read; where no device answers, no line is pulled down, and all bits read as one.
fn read(bus: &Bus, address: u64, data: &mut [u8]) {
    if !bus.read(address, data) {
        data.fill(0xff);
    }
}
