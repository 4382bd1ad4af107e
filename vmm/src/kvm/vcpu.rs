//! One vCPU: its registers, and the run that ends in an exit.

use std::cell::Cell;
use std::ptr;

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_regs, kvm_run, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::{KvmError, failed};
use crate::cpuid::Bits;

/// Why the guest stopped for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A triple fault, or another reset by the processor itself.
    Reset,
    /// KVM cannot go on; says why.
    Broken(String),
}

/// Why KVM came back from the guest.
#[derive(Debug)]
pub enum VcpuExit<'a> {
    /// A port is written `size` bytes at a time.
    PortWrite {
        /// Which port.
        port: u16,
        /// One access after the other.
        accesses: std::slice::Chunks<'a, u8>,
    },
    /// A port is read `size` bytes at a time.
    PortRead {
        /// Which port.
        port: u16,
        /// One access after the other.
        accesses: std::slice::ChunksMut<'a, u8>,
    },
    /// Memory that is not there is written.
    MemoryWrite(u64, &'a [u8]),
    /// Memory that is not there is read.
    MemoryRead(u64, &'a mut [u8]),
    /// A signal came, or it was asked to come back at once.
    Interrupted,
    /// The end.
    Stop(Stop),
}

/// One vCPU. Used by one thread at a time.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
}

thread_local! {
    /// The run area of the vCPU that this thread runs; null where it runs none. For the signal handler alone.
    static RUN_AREA: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

/// Installs the handler of the signal that fetches a vCPU's thread back from the guest; once for the process.
///
/// The handler sets `immediate_exit`, so that a signal which arrives just before KVM_RUN is not lost.
pub fn install_kick_handler() -> Result<(), KvmError> {
    extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        RUN_AREA.with(|area| {
            let area = area.get();
            if !area.is_null() {
                // SAFETY: the pointer is this thread's own run area, mapped while `Vcpu::on_this_thread` runs (it takes
                // the pointer back before it returns); KVM reads this byte at the start of KVM_RUN only.
                unsafe { (&raw mut (*area).immediate_exit).write_volatile(1) };
            }
        });
    }
    register_signal_handler(SIGRTMIN(), handler)
        .map_err(|error| kvm_ioctls::Error::new(error.errno()))
        .map_err(failed("install the signal handler that stops vCPUs"))
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd) -> Self {
        Self { fd }
    }

    /// What CPUID says on this vCPU.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), KvmError> {
        self.fd.set_cpuid2(cpuid).map_err(failed("set CPUID"))
    }

    /// The special registers.
    pub fn special_registers(&self) -> Result<kvm_sregs, KvmError> {
        self.fd.get_sregs().map_err(failed("get special registers"))
    }

    /// Sets general and special registers.
    pub fn set_registers(&self, general: &kvm_regs, special: &kvm_sregs) -> Result<(), KvmError> {
        self.fd
            .set_sregs(special)
            .map_err(failed("set special registers"))?;
        self.fd.set_regs(general).map_err(failed("set general registers"))
    }

    /// Sets model-specific registers. One that KVM refuses is left out with a debug line, and the rest is set.
    pub fn set_msrs(&self, mut wanted: &[(u32, u64)]) -> Result<(), KvmError> {
        while !wanted.is_empty() {
            let entries: Vec<_> = wanted
                .iter()
                .map(|&(index, data)| kvm_msr_entry {
                    index,
                    data,
                    ..Default::default()
                })
                .collect();
            let Ok(msrs) = Msrs::from_entries(&entries) else {
                return Err(KvmError::Msr(wanted.first().map_or(0, |msr| msr.0)));
            };
            // KVM stops at the first register that it refuses and says how many it took.
            let taken = self
                .fd
                .set_msrs(&msrs)
                .map_err(failed("set model-specific registers"))?;
            wanted = wanted.get(taken..).unwrap_or_default();
            if let Some((refused, rest)) = wanted.split_first() {
                log::debug!("KVM refuses model-specific register {:#x}", refused.0);
                wanted = rest;
            }
        }
        Ok(())
    }

    /// Changes bits of model-specific registers, each of which KVM must have.
    pub fn change_msrs(&self, changes: &[(u32, Bits)]) -> Result<(), KvmError> {
        for &(index, bits) in changes {
            let missing = || KvmError::Msr(index);
            let entry = kvm_msr_entry {
                index,
                ..Default::default()
            };
            let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| missing())?;
            // How many it has of one.
            if !matches!(self.fd.get_msrs(&mut msrs), Ok(1)) {
                return Err(missing());
            }
            for msr in msrs.as_mut_slice() {
                msr.data = bits.apply(msr.data);
            }
            if !matches!(self.fd.set_msrs(&msrs), Ok(1)) {
                return Err(missing());
            }
        }
        Ok(())
    }

    /// Runs `body` with this vCPU bound to this thread, so that the kick signal reaches it.
    pub fn on_this_thread<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        RUN_AREA.set(self.fd.get_kvm_run());
        let result = body(self);
        RUN_AREA.set(ptr::null_mut());
        result
    }

    /// Takes a kick back that was answered.
    pub fn clear_kick(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Runs the guest until it needs something.
    pub fn run(&mut self) -> Result<VcpuExit<'_>, KvmError> {
        use kvm_ioctls::VcpuExit as Raw;

        // Pointers and lengths leave the match instead of slices: the size of a port's accesses is to be read while
        // nothing borrows the run area. (String instructions move several accesses in one exit; kvm-ioctls gives all
        // their bytes, but not their size.)
        enum Access {
            PortWrite(u16, *const u8, usize),
            PortRead(u16, *mut u8, usize),
            MemoryWrite(u64, *const u8, usize),
            MemoryRead(u64, *mut u8, usize),
        }
        let access = match self.fd.run() {
            Ok(Raw::IoOut(port, data)) => Access::PortWrite(port, data.as_ptr(), data.len()),
            Ok(Raw::IoIn(port, data)) => Access::PortRead(port, data.as_mut_ptr(), data.len()),
            Ok(Raw::MmioWrite(address, data)) => Access::MemoryWrite(address, data.as_ptr(), data.len()),
            Ok(Raw::MmioRead(address, data)) => Access::MemoryRead(address, data.as_mut_ptr(), data.len()),
            Ok(Raw::Shutdown) => return Ok(VcpuExit::Stop(Stop::Reset)),
            Ok(Raw::Intr | Raw::IrqWindowOpen) => return Ok(VcpuExit::Interrupted),
            Ok(other) => return Ok(VcpuExit::Stop(Stop::Broken(format!("{other:?}")))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(VcpuExit::Interrupted);
            }
            Err(error) => return Err(failed("run a vCPU")(error)),
        };

        Ok(match access {
            Access::PortWrite(port, data, length) => {
                let size = self.port_access_size();
                // SAFETY: here and below, pointer and length are those of kvm-ioctls' own slice of the run area, which
                // lives as long as the descriptor that `self` owns; the result borrows `self`, and nothing else refers
                // to the slice any more.
                let data = unsafe { std::slice::from_raw_parts(data, length) };
                let accesses = data.chunks(size);
                VcpuExit::PortWrite { port, accesses }
            }
            Access::PortRead(port, data, length) => {
                let size = self.port_access_size();
                // SAFETY: as above; the area is writable.
                let data = unsafe { std::slice::from_raw_parts_mut(data, length) };
                let accesses = data.chunks_mut(size);
                VcpuExit::PortRead { port, accesses }
            }
            Access::MemoryWrite(address, data, length) => {
                // SAFETY: as above.
                VcpuExit::MemoryWrite(address, unsafe { std::slice::from_raw_parts(data, length) })
            }
            Access::MemoryRead(address, data, length) => {
                // SAFETY: as above; the area is writable.
                VcpuExit::MemoryRead(address, unsafe { std::slice::from_raw_parts_mut(data, length) })
            }
        })
    }

    /// How many bytes each access of a port exit has; to be called after one.
    fn port_access_size(&mut self) -> usize {
        // SAFETY: after KVM_EXIT_IO this member of the union is the one in use; after any other exit it would be a
        // number without meaning, but still a number.
        let size = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.size };
        usize::from(size.max(1))
    }
}
