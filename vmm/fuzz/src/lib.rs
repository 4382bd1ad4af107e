//! What the targets share: a kernel's bytes in a file, guest memory to load it into, and what must hold afterwards.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;

use linux_loader::loader::bootparam::setup_header;
use nix::sys::memfd::{MFdFlags, memfd_create};
use secovia_vmm::boot::{self, BootConfig, Entry};
use vm_memory::mmap::GuestMemoryMmap;
use vm_memory::{ByteValued, GuestAddress};

/// Guest memory, the least that a machine can have. A payload may not unpack to more.
pub const MEMORY: u64 = 64 << 20;

/// Where the ACPI tables would be.
const RSDP: u64 = 0xe_0000;

/// An open file of these bytes, without a name.
pub fn file(bytes: &[u8]) -> File {
    let fd = memfd_create("input", MFdFlags::MFD_CLOEXEC).expect("memory for an input");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("room for an input");
    file
}

/// Loads `kernel` as the VMM would. Whatever it is, there is an error or an entry point inside of memory.
pub fn load(kernel: &[u8], initrd: Option<&[u8]>) {
    thread_local! {
        // Mapped once: a fuzzer calls this thousands of times a second. What one kernel leaves in it, the next overwrites.
        static GUEST: RefCell<Option<GuestMemoryMmap>> = const { RefCell::new(None) };
    }
    let config = BootConfig {
        kernel: file(kernel),
        kernel_path: "kernel".into(),
        initrd: initrd.map(|initrd| (file(initrd), "initrd".into())),
        command_line: "console=ttyS0 panic=1".into(),
    };
    GUEST.with_borrow_mut(|guest| {
        let memory = guest.get_or_insert_with(|| {
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("guest memory")
        });
        match boot::load(memory, MEMORY, &config, RSDP) {
            Ok(Entry::Long { address }) => assert!(address < MEMORY, "entered at {address:#x}"),
            // Where a note says so; the guest's own business, like all that it does once it runs.
            Ok(Entry::Pvh { .. }) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

/// A bzImage that holds together, around `payload`.
pub fn bz_image(payload: &[u8]) -> Vec<u8> {
    const SECTOR: usize = 512;
    let header = setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x020f,
        xloadflags: 1,
        pref_address: 16 << 20,
        init_size: 1 << 20,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: 2047,
        payload_length: payload.len() as u32,
        syssize: payload.len().div_ceil(16) as u32,
        ..Default::default()
    };
    let mut image = vec![0; 2 * SECTOR];
    image[0x1f1..][..header.as_slice().len()].copy_from_slice(header.as_slice());
    image.extend_from_slice(payload);
    image
}

/// A payload whose compression format begins with `magic`; the rest, the unpacked size at its end included, is the
/// fuzzer's.
pub fn packed(magic: &[u8], data: &[u8]) {
    load(&bz_image(&[magic, data].concat()), None);
}
