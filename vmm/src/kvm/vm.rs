//! One virtual machine.

use std::io;

use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_CAP_SPLIT_IRQCHIP, KVM_PMU_CAP_DISABLE};
use kvm_bindings::{KVM_MEM_READONLY, kvm_enable_cap, kvm_msi, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use secovia_devices::interrupt::{Msi, MsiSink};
use secovia_devices::{GuestMemory, ioapic};
use vm_memory::GuestMemoryBackend;

use super::{KvmError, Optional, Vcpu, failed};
use crate::memory::Window;
use crate::{layout, memory};

/// A virtual machine with its memory; shared by everything that raises interrupts.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    /// KVM uses the memory for as long as the machine exists, so the machine holds it.
    memory: GuestMemory,
}

impl Vm {
    /// Furnishes the machine: memory slots, task state segment, interrupt controller, in this order (see the module).
    pub fn furnish(
        fd: VmFd,
        memory: GuestMemory,
        windows: &[Window],
        optional: Optional,
    ) -> Result<Self, KvmError> {
        let ram = memory.iter().map(|region| {
            let (guest, length) = memory::extent(region);
            (guest, length, memory::host_address(region), false)
        });
        let files = windows
            .iter()
            .map(|window| (window.guest, window.length, window.host, window.read_only));
        let slots = ram.chain(files);
        for (slot, (guest_phys_addr, memory_size, userspace_addr, read_only)) in slots.enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: if read_only { KVM_MEM_READONLY } else { 0 },
                guest_phys_addr,
                memory_size,
                userspace_addr,
            };
            // SAFETY: `memory_size` bytes are mapped at `userspace_addr` and stay so for as long as the machine: a region is
            // held by `self.memory`, which is dropped after `self.fd`; a window is never unmapped.
            unsafe { fd.set_user_memory_region(slot) }.map_err(failed("register guest memory"))?;
        }

        // Only Intel without unrestricted guests needs it; elsewhere it is a call that does nothing.
        if let Err(error) = fd.set_tss_address(layout::KVM_TSS) {
            log::debug!("KVM: set the task state segment's address: {error}");
        }

        let mut split = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        };
        split.args[0] = ioapic::PINS.into();
        fd.enable_cap(&split)
            .map_err(failed("enable the split interrupt controller"))?;

        if optional.pmu_off {
            let mut pmu = kvm_enable_cap {
                cap: KVM_CAP_PMU_CAPABILITY,
                ..Default::default()
            };
            pmu.args[0] = KVM_PMU_CAP_DISABLE.into();
            if let Err(error) = fd.enable_cap(&pmu) {
                log::debug!("KVM: switch performance counters off: {error}");
            }
        }

        Ok(Self { fd, memory })
    }

    /// The machine's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Adds vCPU `index`; its APIC has the same number.
    pub fn create_vcpu(&self, index: u8) -> Result<Vcpu, KvmError> {
        let fd = self
            .fd
            .create_vcpu(index.into())
            .map_err(failed("create a vCPU"))?;
        Ok(Vcpu::new(fd))
    }
}

impl MsiSink for Vm {
    fn signal(&self, msi: Msi) -> io::Result<()> {
        let message = kvm_msi {
            address_lo: msi.address as u32,
            address_hi: (msi.address >> 32) as u32,
            data: msi.data,
            ..Default::default()
        };
        // A result of 0 says that the guest blocked the interrupt, which is the guest's affair.
        self.fd
            .signal_msi(message)
            .map(drop)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}
