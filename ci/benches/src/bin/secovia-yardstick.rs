//! The least that a program must ask of KVM to run a guest: what every VMM pays, however it is made.
//!
//! One machine of 128 MiB, the interrupt controller split, one vCPU in 64-bit mode; it runs a stub guest that writes a
//! few bytes to the serial port and resets. No configuration, no kernel file, no device but the port, no thread, no
//! event loop. `secovia-bench start` holds the VMM's start against this one's.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::ptr;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit};
use secovia_stub_guests::{HELLO, machine};

const MEMORY: usize = 128 << 20;
const PAGE_TABLES: usize = 0x9000;

fn main() -> ExitCode {
    match run() {
        // The status of a guest's reset, as secovia-vmm has it.
        Ok(()) => ExitCode::from(3),
        Err(error) => {
            eprintln!("secovia-yardstick: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;

    // SAFETY: a fresh anonymous mapping, which nothing else knows.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            MEMORY,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().into());
    }
    let write = |address: usize, bytes: &[u8]| {
        assert!(address + bytes.len() <= MEMORY);
        // SAFETY: inside of the mapping, as was just checked; the guest does not run yet.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast::<u8>().add(address), bytes.len()) };
    };
    let slot = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: memory as u64,
        ..Default::default()
    };
    // SAFETY: the mapping stays for as long as the process.
    unsafe { vm.set_user_memory_region(slot) }?;
    vm.set_tss_address(0xfffb_d000)?;
    let mut split = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..Default::default()
    };
    split.args[0] = 24;
    vm.enable_cap(&split)?;

    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;

    write(machine::LOAD_ADDRESS as usize, HELLO.code());
    write(PAGE_TABLES, &(PAGE_TABLES as u64 + 0x1003).to_le_bytes());
    write(PAGE_TABLES + 0x1000, &(PAGE_TABLES as u64 + 0x2003).to_le_bytes());
    write(PAGE_TABLES + 0x2000, &0x83u64.to_le_bytes());

    let mut special = vcpu.get_sregs()?;
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x18,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    special.cs = kvm_segment {
        selector: 0x10,
        type_: 0xb,
        db: 0,
        l: 1,
        ..data
    };
    (special.ds, special.es, special.ss) = (data, data, data);
    special.cr0 = 0x8000_0011;
    special.cr3 = PAGE_TABLES as u64;
    special.cr4 = 0x20;
    special.efer = 0x500;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs {
        rip: machine::LOAD_ADDRESS,
        rflags: 2,
        ..Default::default()
    })?;

    // Unbuffered, as a console is.
    let mut output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(machine::SERIAL, data) => output.write_all(data)?,
            VcpuExit::IoOut(machine::KEYBOARD, [0xfe]) => return Ok(()),
            other => return Err(format!("unexpected exit: {other:?}").into()),
        }
    }
}
