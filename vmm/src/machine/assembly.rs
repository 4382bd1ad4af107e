//! From a configuration to a machine that is ready to run. The one path on which machines come to be.

use std::io::Write;
use std::sync::{Arc, Mutex};

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use secovia_devices::GuestMemory;
use secovia_devices::boot_timer::BootTimer;
use secovia_devices::bus::{Bus, SharedDevice};
use secovia_devices::ged::Ged;
use secovia_devices::interrupt::{Interrupt, MsiSink};
use secovia_devices::ioapic::{IoapicDevice, IoapicPin};
use secovia_devices::pci::{Root, ports};
use secovia_devices::power::{AcpiPower, I8042};
use secovia_devices::pvpanic::PvPanic;
use secovia_devices::serial::Serial;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::mmio::MmioTransport;
use secovia_devices::virtio::transport::Transport;
use secovia_devices::vmgenid::VmGenId;
use vm_memory::GuestAddress;

use super::console;
use super::error::MachineError;
use super::inventory::{self, Control, Item, Opened};
use super::pci::Pci;
use super::settings::Settings;
use crate::acpi::{self, VirtioSlot};
#[cfg(feature = "back-door")]
use crate::back_door::BackDoor;
use crate::boot::{self, Entry};
use crate::config::VmConfig;
use crate::confine::{Landlock, Right};
use crate::cpuid::{self, Shown, Template};
use crate::kvm::{Host, KvmError, Questions, Vcpu, Vm};
use crate::memory::Windows;
use crate::vcpu::entry;
use crate::vcpu::thread::Buses;
use crate::{layout, memory};

/// A machine but for its vCPUs, which go to their threads.
pub(super) struct Assembly {
    pub(super) vm: Arc<Vm>,
    pub(super) buses: Arc<Buses>,
    pub(super) serial: Arc<Mutex<Serial>>,
    pub(super) events: Arc<Mutex<Ged>>,
    pub(super) transports: Vec<Arc<Mutex<dyn Transport>>>,
    /// The machine's ends of the devices behind the transports, in their order.
    pub(super) controls: Vec<Control>,
    /// The bus that they are on, where it is PCI; the device at index n has the number n + 1.
    pub(super) pci: Option<Pci>,
}

/// What a configuration names on the host, open. A configuration that is wrong about the host fails here, where nothing is
/// lost and another can be tried.
pub(super) struct Parts {
    config: VmConfig,
    rights: Vec<Right>,
    devices: Vec<Opened>,
    /// Files in the guest's address space.
    windows: Windows,
    console: Box<dyn Write + Send>,
    boot_timer: Option<BootTimer>,
    pci: bool,
}

impl Parts {
    /// Opens them.
    pub(super) fn open(mut config: VmConfig, settings: &Settings) -> Result<Self, MachineError> {
        let boot_timer = settings.boot_timer.then(BootTimer::begin);
        let inventory = inventory::list(&mut config);
        if let Some(mmds) = &config.mmds {
            settings.mmds.lock().configure(mmds.version, mmds.text_only);
        }
        let mut windows = Windows::behind(config.hotplug.map_or_else(
            || memory::end(config.memory),
            |hotplug| hotplug.start + hotplug.length,
        ));
        let owner = config.owner;
        let open = |item: &Item| item.open(&settings.mmds, &mut windows, owner);
        let devices = inventory.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            rights: inventory.iter().filter_map(Item::rights).collect(),
            devices,
            windows,
            console: console::output(&config.console, settings.console_limit)?,
            boot_timer,
            pci: settings.pci,
            config,
        })
    }
}

/// Those of the fixed devices that the event loop drives.
struct Driven {
    serial: Arc<Mutex<Serial>>,
    events: Arc<Mutex<Ged>>,
}

/// Gives up all rights to files but those of the configuration, and builds the machine that it describes, with its kernel
/// loaded and its first vCPU at the kernel's entry.
pub(super) fn boot(
    questions: Result<Questions, KvmError>,
    parts: Parts,
    landlock: Landlock,
    kept: Vec<Right>,
) -> Result<(Assembly, Vec<Vcpu>), MachineError> {
    let Parts {
        config,
        rights,
        devices,
        windows,
        console,
        boot_timer,
        pci,
    } = parts;
    landlock.restrict(rights.into_iter().chain(kept))?;

    let memory = memory::create_with(
        config.memory,
        config.hotplug.map(|hotplug| (hotplug.start, hotplug.length)),
        config.pages,
        config.owner,
    )?;
    let slots: Vec<_> = match pci {
        true => Vec::new(),
        false => (0..devices.len()).map(inventory::slot).collect(),
    };
    let rsdp = acpi::write(&memory, config.topology.vcpus(), &slots, pci)?;
    let entry = boot::load(&memory, config.memory, &config.boot, rsdp)?;
    VmGenId::new(&memory, GuestAddress(layout::GENERATION_ID)).map_err(assembly)?;

    // Only now does it matter whether there is a KVM.
    let Questions { host, machine, cpuid } = questions?;
    host.has_all(&config.template.capabilities)?;
    let optional = host.optional();
    let vm = machine
        .wait()
        .and_then(|machine| Vm::furnish(machine, memory.clone(), windows.open(), optional));
    let vm = Arc::new(vm.map_err(|error| explain(&host, error))?);
    let indices = 0..config.topology.vcpus();
    let vcpus = indices
        .map(|index| vm.create_vcpu(index))
        .collect::<Result<Vec<_>, _>>()?;

    let mut board = Board::new(vm.clone());
    let Driven { serial, events } = board.fixed_devices(console)?;
    if let Some(timer) = boot_timer {
        let timer = Arc::new(Mutex::new(timer));
        board.memory("boot timer", BootTimer::BASE, BootTimer::LEN, timer)?;
    }
    #[cfg(feature = "back-door")]
    board.ports(
        "back door",
        BackDoor::PORT,
        BackDoor::LEN,
        Arc::new(Mutex::new(BackDoor::new(memory.clone()))),
    )?;
    let pci = match pci {
        true => Some(board.pci(Pci::new(memory.clone(), vm.clone()))?),
        false => None,
    };
    let mut transports: Vec<Arc<Mutex<dyn Transport>>> = Vec::with_capacity(devices.len());
    let mut controls = Vec::with_capacity(devices.len());
    for (index, Opened { device, control }) in devices.into_iter().enumerate() {
        transports.push(match &pci {
            Some(pci) => pci.plug(device)?.1,
            None => board.virtio(device, memory.clone(), inventory::slot(index))?,
        });
        controls.push(control);
    }

    entry::write_tables(&memory, entry).map_err(assembly)?;
    let shown = Shown {
        topology: config.topology,
        tsc_deadline: optional.tsc_deadline,
    };
    set_up(&vcpus, &cpuid.wait()?, shown, &config.template, entry)?;
    let buses = Arc::new(board.buses);
    let assembly = Assembly {
        vm,
        buses,
        serial,
        events,
        transports,
        controls,
        pci,
    };
    Ok((assembly, vcpus))
}

/// Gives every vCPU its CPUID and registers; the first starts at `entry`, the others wait for the guest to start them.
fn set_up(
    vcpus: &[Vcpu],
    supported: &[kvm_cpuid_entry2],
    shown: Shown,
    template: &Template,
    entry: Entry,
) -> Result<(), MachineError> {
    let mut entries = cpuid::common(supported, shown);
    template.apply(&mut entries).map_err(MachineError::Template)?;
    for (index, vcpu) in (0..).zip(vcpus) {
        cpuid::personalise(&mut entries, shown.topology, index);
        let cpuid = CpuId::from_entries(&entries).map_err(|error| assembly(format!("CPUID: {error:?}")))?;
        vcpu.set_cpuid(&cpuid)?;
        vcpu.set_msrs(&entry::MSRS)?;
        vcpu.change_msrs(&template.registers)?;
    }
    if let Some(first) = vcpus.first() {
        let special = entry::special(first.special_registers()?, entry);
        first.set_registers(&entry::general(entry), &special)?;
    }
    Ok(())
}

/// The buses and the interrupt controller, while devices are put on them.
struct Board {
    buses: Buses,
    ioapic: Arc<Mutex<IoapicDevice>>,
}

impl Board {
    fn new(sink: Arc<dyn MsiSink>) -> Self {
        let (ports, memory) = (Bus::new(), Bus::new());
        Self {
            buses: Buses { ports, memory },
            ioapic: Arc::new(Mutex::new(IoapicDevice::new(sink))),
        }
    }

    /// The line to a pin of the I/O APIC.
    fn pin(&self, pin: u8) -> Arc<dyn Interrupt> {
        Arc::new(IoapicPin::new(self.ioapic.clone(), pin))
    }

    fn ports(
        &mut self,
        name: &str,
        base: u64,
        length: u64,
        device: SharedDevice,
    ) -> Result<(), MachineError> {
        self.buses
            .ports
            .insert(name, base, length, device)
            .map_err(assembly)
    }

    fn memory(
        &mut self,
        name: &str,
        base: u64,
        length: u64,
        device: SharedDevice,
    ) -> Result<(), MachineError> {
        self.buses
            .memory
            .insert(name, base, length, device)
            .map_err(assembly)
    }

    /// A virtio device by itself.
    fn virtio(
        &mut self,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        slot: VirtioSlot,
    ) -> Result<Arc<Mutex<dyn Transport>>, MachineError> {
        let transport = MmioTransport::new(device, memory, self.pin(slot.pin)).map_err(assembly)?;
        let transport = Arc::new(Mutex::new(transport));
        self.memory("virtio", slot.address, layout::VIRTIO_SIZE, transport.clone())?;
        Ok(transport)
    }

    /// A PCI bus.
    fn pci(&mut self, pci: Pci) -> Result<Pci, MachineError> {
        let root = pci.root();
        for (name, base, length, window) in [
            ("PCI configuration", layout::PCI_ECAM, Root::ECAM_LEN, root.ecam()),
            (
                "PCI devices",
                layout::PCI_WINDOW.into(),
                Root::WINDOW_LEN,
                root.bars(),
            ),
        ] {
            let memory = &mut self.buses.memory;
            memory
                .insert_window(name, base, length, window)
                .map_err(assembly)?;
        }
        self.buses
            .ports
            .insert_window("PCI ports", ports::BASE, ports::LEN, root.ports())
            .map_err(assembly)?;
        Ok(pci)
    }

    /// What every machine has.
    fn fixed_devices(&mut self, console: Box<dyn Write + Send>) -> Result<Driven, MachineError> {
        let serial = Arc::new(Mutex::new(Serial::new(self.pin(Serial::COM1_IRQ), console)));
        let events = Arc::new(Mutex::new(Ged::new(self.pin(layout::EVENTS_PIN))));
        let power = Arc::new(Mutex::new(AcpiPower::new()));
        let keyboard = Arc::new(Mutex::new(I8042::new()));
        let panic = Arc::new(Mutex::new(PvPanic::new()));

        self.ports("serial port", Serial::COM1, Serial::LEN, serial.clone())?;
        self.ports("keyboard controller", I8042::BASE, I8042::LEN, keyboard)?;
        self.ports("panic device", PvPanic::PORT, PvPanic::LEN, panic)?;
        self.ports("power registers", layout::POWER, AcpiPower::LEN, power)?;
        self.memory("event device", layout::EVENTS, Ged::LEN, events.clone())?;
        self.memory(
            "I/O APIC",
            IoapicDevice::BASE,
            IoapicDevice::LEN,
            self.ioapic.clone(),
        )?;
        Ok(Driven { serial, events })
    }
}

fn assembly(error: impl std::fmt::Display) -> MachineError {
    MachineError::Assembly(error.to_string())
}

/// Adds which capabilities are missing, if any are, to what KVM refused.
fn explain(host: &Host, error: KvmError) -> MachineError {
    let missing = host.missing();
    if missing.is_empty() {
        error.into()
    } else {
        MachineError::KvmLacks {
            error,
            missing: missing.join(", "),
        }
    }
}
