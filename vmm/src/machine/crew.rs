//! What can be done with a machine while it runs.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secovia_devices::ged::{Ged, GedEvent};
use secovia_devices::limiter::LimiterConfig;
use secovia_devices::published::Published;
use secovia_devices::serial::SerialCounters;
use secovia_devices::virtio::balloon::BalloonHandle;
use secovia_devices::virtio::block::Block;
use secovia_devices::virtio::mem::MemHandle;
use secovia_devices::virtio::transport::Transport;
use secovia_vmm_api::{
    BalloonHintingStatus, BalloonStatisticsReport, MemoryHotplugSpec, MemoryHotplugStatus,
};
use vmm_sys_util::eventfd::EventFd;

use super::error::MachineError;
use super::inventory::Control;
use super::pci::Pci;
use super::report::{self, Report};
use crate::api::{Effect, Hands, Kind, NewDisk, Office, RequestCounts};
use crate::vcpu::thread::Threads;
use crate::{metrics, sys};

/// 256 pages of 4 KiB.
const PAGES_PER_MIB: u32 = 256;

/// What disks get to finish what they were at, before a pause.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the machine holds still; shared with the event loop's devices, which then do nothing.
pub(super) type Still = Rc<Cell<bool>>;

/// Everything that an effect can need. On the main thread.
pub(super) struct Crew<'a> {
    threads: &'a Threads,
    events: Arc<Mutex<Ged>>,
    devices: Vec<Device>,
    pci: Option<Pci>,
    moves: Vec<Move>,
    console: Published<SerialCounters>,
    still: Still,
    report: Report,
}

/// What the event loop has to do for a device that came or went.
pub(super) enum Move {
    /// Watch the one with this number.
    In(usize, Arc<Mutex<dyn Transport>>),
    /// No longer.
    Out(usize),
}

/// One device from outside.
struct Device {
    /// On the PCI bus, where there is one; else it only tells it apart.
    number: usize,
    control: Control,
    transport: Arc<Mutex<dyn Transport>>,
    /// Makes the event loop call it.
    again: EventFd,
}

impl<'a> Crew<'a> {
    pub(super) fn new(
        threads: &'a Threads,
        events: Arc<Mutex<Ged>>,
        controls: Vec<Control>,
        transports: &[Arc<Mutex<dyn Transport>>],
        pci: Option<Pci>,
        console: Published<SerialCounters>,
    ) -> Result<Self, MachineError> {
        let devices = controls.into_iter().zip(transports).zip(1..);
        let devices =
            devices.map(|((control, transport), number)| Device::new(number, control, transport.clone()));
        Ok(Self {
            threads,
            events,
            devices: devices
                .collect::<io::Result<_>>()
                .map_err(MachineError::host("watch a device"))?,
            pci,
            moves: Vec::new(),
            console,
            still: Still::default(),
            report: Report::default(),
        })
    }

    /// Whether the machine holds still.
    pub(super) fn still(&self) -> Still {
        self.still.clone()
    }

    /// Presses the power button.
    pub(super) fn press_button(&self) -> io::Result<()> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.notify(GedEvent::PowerButton)
    }

    /// Writes a line of metrics, if they go anywhere.
    pub(super) fn report(&mut self, counts: &RequestCounts) -> io::Result<()> {
        if !metrics::is_open() {
            return Ok(());
        }
        let controls = self.devices.iter().map(|device| &device.control);
        let groups = report::groups(controls, self.threads.counters(), self.console.get(), counts);
        metrics::write(&self.report.line(groups, sys::utc_now().milliseconds()))
    }

    /// Writes a line of metrics, with the requests that `office` counted.
    pub(super) fn report_with(&mut self, office: Option<&Office>) {
        let none = RequestCounts::new();
        let counts = office.map_or(&none, |office| office.clerk.counts());
        if let Err(error) = self.report(counts) {
            log::warn!("write metrics: {error}");
        }
    }

    fn pause(&self) -> Result<(), String> {
        if !self.threads.pause() {
            return Err("a vCPU is busy with a device and did not hold still in time; try again".into());
        }
        // No vCPU is in a device any more, and the event loop waits for this: the locks are free.
        let until = Instant::now() + PATIENCE;
        for device in &self.devices {
            let mut transport = device.transport.lock().unwrap_or_else(PoisonError::into_inner);
            if !transport.settle(until.saturating_duration_since(Instant::now())) {
                drop(transport);
                self.resume();
                return Err("a disk is busy and did not come to rest in time; try again".into());
            }
        }
        self.still.set(true);
        Ok(())
    }

    fn resume(&self) {
        self.still.set(false);
        // What came for a device meanwhile was not looked at.
        for device in &self.devices {
            device.call();
        }
        self.threads.resume();
    }

    /// What came and went since this was asked last.
    pub(super) fn moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    fn plug_drive(&mut self, id: String, block: Block) -> Result<(), String> {
        let pci = self.pci.as_ref().ok_or("this machine has no PCI bus")?;
        let failed = |error: &dyn std::fmt::Display| format!("drives.{id}: {error}");
        let control = Control::Disk(id.clone(), block.handle());
        let (number, transport) = pci.plug(Box::new(block)).map_err(|error| failed(&error))?;
        match Device::new(number, control, transport.clone()) {
            Ok(device) => {
                self.devices.push(device);
                self.moves.push(Move::In(number, transport));
                Ok(())
            }
            Err(error) => {
                pci.unplug(number);
                Err(failed(&error))
            }
        }
    }

    fn unplug(&mut self, kind: Kind, id: &str) -> Result<(), String> {
        let pci = self.pci.as_ref().ok_or("this machine has no PCI bus")?;
        let place = self
            .devices
            .iter()
            .position(|device| match (&device.control, kind) {
                (Control::Disk(name, _) | Control::Backend(name, _), Kind::Drive)
                | (Control::Network(name, _), Kind::Network) => name == id,
                _ => false,
            });
        let place = place.ok_or_else(|| format!("{}.{id}: this machine has none", kind.resource()))?;
        let device = self.devices.remove(place);
        pci.unplug(device.number);
        self.moves.push(Move::Out(device.number));
        Ok(())
    }

    fn change_drive(
        &self,
        id: &str,
        limit: Option<LimiterConfig>,
        disk: Option<NewDisk>,
    ) -> Result<(), String> {
        let found = self.devices.iter().find_map(|device| match &device.control {
            Control::Disk(name, handle) if name == id => Some((device, handle)),
            _ => None,
        });
        let (device, handle) = found.ok_or_else(|| format!("drives.{id}: this machine has none"))?;
        match disk {
            Some(NewDisk::Other(disk)) => handle.replace(disk),
            Some(NewDisk::Same(sectors)) => handle.resize(sectors),
            None => {}
        }
        if let Some(limit) = limit {
            handle.limit().change(&limit);
        }
        device.call();
        Ok(())
    }

    fn refresh_drive(&self, id: &str) -> Result<(), String> {
        let found = self.devices.iter().find_map(|device| match &device.control {
            Control::Backend(name, handle) if name == id => Some((device, handle)),
            _ => None,
        });
        let (device, handle) = found.ok_or_else(|| format!("drives.{id}: this machine has none"))?;
        handle.refresh();
        device.call();
        Ok(())
    }

    fn change_network(
        &self,
        id: &str,
        rx: Option<LimiterConfig>,
        tx: Option<LimiterConfig>,
    ) -> Result<(), String> {
        let found = self.devices.iter().find_map(|device| match &device.control {
            Control::Network(name, handle) if name == id => Some((device, handle)),
            _ => None,
        });
        let (device, handle) =
            found.ok_or_else(|| format!("network-interfaces.{id}: this machine has none"))?;
        for (limit, change) in [(&handle.rx_limit, rx), (&handle.tx_limit, tx)] {
            if let Some(change) = change {
                limit.change(&change);
            }
        }
        device.call();
        Ok(())
    }

    fn hotplug(&self) -> Result<&MemHandle, String> {
        let found = self.devices.iter().find_map(|device| match &device.control {
            Control::Hotplug(handle) => Some(handle),
            _ => None,
        });
        found.ok_or_else(|| "memory-hotplug: this machine has none".into())
    }

    fn balloon(&self) -> Result<&BalloonHandle, String> {
        let found = self.devices.iter().find_map(|device| match &device.control {
            Control::Balloon(handle) => Some(handle),
            _ => None,
        });
        found.ok_or_else(|| "balloon: this machine has none".into())
    }
}

impl Device {
    fn new(number: usize, control: Control, transport: Arc<Mutex<dyn Transport>>) -> io::Result<Self> {
        let again = transport.lock().unwrap_or_else(PoisonError::into_inner).again()?;
        Ok(Self {
            number,
            control,
            transport,
            again,
        })
    }

    fn call(&self) {
        if let Err(error) = self.again.write(1) {
            // Only if it was written 2^64 times before.
            log::debug!("call a device: {error}");
        }
    }
}

impl Hands for Crew<'_> {
    fn act(&mut self, effect: Effect, counts: &RequestCounts) -> Result<Option<String>, String> {
        match effect {
            Effect::Pause => self.pause()?,
            Effect::Resume => self.resume(),
            Effect::PressButton => self
                .press_button()
                .map_err(|error| format!("press the power button: {error}"))?,
            Effect::FlushMetrics => self
                .report(counts)
                .map_err(|error| format!("write metrics: {error}"))?,
            Effect::Drive { id, limit, disk } => self.change_drive(&id, limit, disk)?,
            Effect::RefreshDrive(id) => self.refresh_drive(&id)?,
            Effect::PlugDrive { id, block } => self.plug_drive(id, *block)?,
            Effect::Unplug { kind, id } => self.unplug(kind, &id)?,
            Effect::Network { id, rx, tx } => self.change_network(&id, rx, tx)?,
            Effect::BalloonTarget(mib) => {
                let set = self.balloon()?.set_target(mib.saturating_mul(PAGES_PER_MIB));
                set.map_err(|error| format!("tell the balloon: {error}"))?;
            }
            Effect::BalloonInterval(interval) => self.balloon()?.set_statistics_interval(interval),
            Effect::Memory(bytes) => {
                let set = self.hotplug()?.request(bytes);
                set.map_err(|error| format!("tell the memory device: {error}"))?;
            }
            Effect::MemoryStatus(spec) => {
                let status = memory_status(spec, self.hotplug()?);
                return serde_json::to_string(&status)
                    .map(Some)
                    .map_err(|error| error.to_string());
            }
            Effect::TellMetrics => {
                let controls = self.devices.iter().map(|device| &device.control);
                let (vcpus, console) = (self.threads.counters(), self.console.get());
                return Ok(Some(report::prometheus(controls, vcpus, console, counts)));
            }
            Effect::StartHinting(acknowledge) => {
                let started = self.balloon()?.start_hinting(acknowledge);
                started.map_err(|error| format!("tell the balloon: {error}"))?;
            }
            Effect::StopHinting => {
                let stopped = self.balloon()?.stop_hinting();
                stopped.map_err(|error| format!("tell the balloon: {error}"))?;
            }
            Effect::HintingStatus => {
                let status = self.balloon()?.hinting_status();
                let status = BalloonHintingStatus {
                    host_cmd: status.host,
                    guest_cmd: status.guest,
                };
                return serde_json::to_string(&status)
                    .map(Some)
                    .map_err(|error| error.to_string());
            }
            Effect::BalloonStatistics => {
                let report = report(self.balloon()?);
                return serde_json::to_string(&report)
                    .map(Some)
                    .map_err(|error| error.to_string());
            }
            // The clerk does what is about metadata.
            Effect::None | Effect::Metadata(_) => {}
            // Refused after the start by `Request::season`.
            Effect::Start(_) | Effect::Log(_) | Effect::Metrics(_) => {
                return Err("the machine has been started".into());
            }
        }
        Ok(None)
    }
}

/// Memory that can be added, as the API has it.
fn memory_status(spec: MemoryHotplugSpec, handle: &MemHandle) -> MemoryHotplugStatus {
    MemoryHotplugStatus {
        total_size_mib: spec.total_size_mib,
        block_size_mib: spec.block_size_mib,
        slot_size_mib: spec.slot_size_mib,
        plugged_size_mib: handle.plugged() >> 20,
        requested_size_mib: handle.requested() >> 20,
    }
}

/// What a balloon's guest says, as the API has it.
fn report(balloon: &BalloonHandle) -> BalloonStatisticsReport {
    let (target, actual, said) = (balloon.target(), balloon.actual(), balloon.statistics());
    BalloonStatisticsReport {
        target_pages: target,
        actual_pages: actual,
        target_mib: target / PAGES_PER_MIB,
        actual_mib: actual / PAGES_PER_MIB,
        swap_in: said.swap_in,
        swap_out: said.swap_out,
        major_faults: said.major_faults,
        minor_faults: said.minor_faults,
        free_memory: said.free_memory,
        total_memory: said.total_memory,
        available_memory: said.available_memory,
        disk_caches: said.disk_caches,
        hugetlb_allocations: said.hugetlb_allocations,
        hugetlb_failures: said.hugetlb_failures,
    }
}
