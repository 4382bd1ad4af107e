//! The registers with which the first vCPU enters the kernel: plain values.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::boot::Entry;
use crate::layout;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Selectors that the Linux boot protocol asks for (`__BOOT_CS`, `__BOOT_DS`).
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_TASK: u8 = 0xb;

/// `IA32_MISC_ENABLE`: fast strings.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
/// `IA32_MTRR_DEF_TYPE`: enabled, write-back. Off, as after reset, Linux would take all memory for uncached.
const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 0x806);

/// Model-specific registers of every vCPU that differ from KVM's own reset values.
pub const MSRS: [(u32, u64); 2] = [MISC_ENABLE, MTRR_DEF_TYPE];

/// Writes the tables that the entry state refers to.
pub fn write_tables(memory: &GuestMemory, entry: Entry) -> Result<(), GuestMemoryError> {
    let table = [
        0,
        0,
        descriptor(code(entry)),
        descriptor(data()),
        descriptor(task()),
    ];
    for (index, descriptor) in table.into_iter().enumerate().skip(2) {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + 8 * index as u64))?;
    }
    if let Entry::Long { .. } = entry {
        // The first gigabyte, one to one, in pages of 2 MiB: present, writable, (in the last level) large.
        let [top, middle, bottom] = [0, 1, 2].map(|n| layout::PAGE_TABLES + n * 0x1000);
        memory.write_obj(middle | 3, GuestAddress(top))?;
        memory.write_obj(bottom | 3, GuestAddress(middle))?;
        let mut directory = [0; 4096];
        for (index, entry) in directory.chunks_exact_mut(8).enumerate() {
            entry.copy_from_slice(&((index as u64) << 21 | 0x83).to_le_bytes());
        }
        memory.write_slice(&directory, GuestAddress(bottom))?;
    }
    Ok(())
}

/// The general registers.
pub fn general(entry: Entry) -> kvm_regs {
    match entry {
        Entry::Long { address } => kvm_regs {
            rip: address,
            rsi: layout::ZERO_PAGE,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        },
        Entry::Pvh { address } => kvm_regs {
            rip: address.into(),
            rbx: layout::PVH_INFO,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        },
    }
}

/// The special registers: those after reset (`reset`, with the local APIC's base in them), changed for `entry`.
pub fn special(reset: kvm_sregs, entry: Entry) -> kvm_sregs {
    let data = data();
    let mut special = kvm_sregs {
        cs: code(entry),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task(),
        gdt: kvm_dtable {
            base: layout::GDT,
            limit: 5 * 8 - 1,
            ..Default::default()
        },
        idt: kvm_dtable {
            base: layout::IDT,
            limit: 7,
            ..Default::default()
        },
        cr0: CR0_PE | CR0_ET,
        cr4: 0,
        efer: 0,
        ..reset
    };
    if let Entry::Long { .. } = entry {
        special.cr0 |= CR0_PG;
        special.cr3 = layout::PAGE_TABLES;
        special.cr4 = CR4_PAE;
        special.efer = EFER_LME | EFER_LMA;
    }
    special
}

fn segment(type_: u8, selector: u16) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

fn code(entry: Entry) -> kvm_segment {
    let (l, db) = match entry {
        Entry::Long { .. } => (1, 0),
        Entry::Pvh { .. } => (0, 1),
    };
    kvm_segment {
        l,
        db,
        ..segment(TYPE_CODE, CODE_SELECTOR)
    }
}

fn data() -> kvm_segment {
    kvm_segment {
        db: 1,
        ..segment(TYPE_DATA, DATA_SELECTOR)
    }
}

/// A task state segment, which the processor wants to see but nothing uses.
fn task() -> kvm_segment {
    kvm_segment {
        s: 0,
        g: 0,
        limit: 0x67,
        ..segment(TYPE_TASK, TASK_SELECTOR)
    }
}

/// A segment as its descriptor table has it (Intel SDM 3A, 3.4.5).
fn descriptor(segment: kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let base = segment.base;
    let bit = |value: u8, shift: u32| u64::from(value) << shift;
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | bit(segment.type_, 40)
        | bit(segment.s, 44)
        | bit(segment.dpl, 45)
        | bit(segment.present, 47)
        | (limit & 0xf_0000) << 32
        | bit(segment.avl, 52)
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (base & 0xff00_0000) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_the_boot_protocol() {
        let long = Entry::Long { address: 0 };
        let pvh = Entry::Pvh { address: 0 };
        assert_eq!(descriptor(code(long)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(code(pvh)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(task()), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn long_mode_pages_and_pvh_does_not() {
        let reset = kvm_sregs {
            apic_base: 0xfee0_0900,
            ..Default::default()
        };
        let long = special(reset, Entry::Long { address: 0x100_0000 });
        assert_eq!(long.apic_base, 0xfee0_0900);
        assert_eq!((long.cr0, long.cr4, long.efer), (0x8000_0011, 0x20, 0x500));
        let pvh = special(reset, Entry::Pvh { address: 0x100_0000 });
        assert_eq!((pvh.cr0, pvh.cr3, pvh.cr4, pvh.efer), (0x11, 0, 0, 0));
    }

    #[test]
    fn the_first_gigabyte_is_mapped_one_to_one() {
        let memory = crate::memory::create(64 << 20, crate::memory::Pages::Huge).unwrap();
        write_tables(&memory, Entry::Long { address: 0 }).unwrap();
        let read = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        let middle = read(layout::PAGE_TABLES) & !0xfff;
        let bottom = read(middle) & !0xfff;
        assert_eq!(read(bottom), 0x83);
        assert_eq!(read(bottom + 511 * 8), 511 << 21 | 0x83);
    }
}
