use std::io::Write;

use super::*;
use linux_loader::loader::bootparam::{boot_params, setup_header};
use vm_memory::ByteValued;

const MIB: u64 = 1 << 20;

fn file(bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!(
        "secovia-boot-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn config(kernel: &[u8]) -> BootConfig {
    BootConfig {
        kernel: file(kernel),
        kernel_path: "vmlinux".into(),
        initrd: None,
        command_line: "console=ttyS0".into(),
    }
}

fn try_load(kernel: &[u8]) -> Result<(GuestMemory, Entry), BootError> {
    let memory = memory::create(64 * MIB, memory::Pages::Huge).unwrap();
    let entry = load(&memory, 64 * MIB, &config(kernel), 0xe_0000)?;
    Ok((memory, entry))
}

/// What a person would read.
fn fault(kernel: &[u8]) -> String {
    try_load(kernel).unwrap_err().to_string()
}

fn with<const N: usize>(mut bytes: Vec<u8>, offset: usize, value: [u8; N]) -> Vec<u8> {
    bytes[offset..offset + N].copy_from_slice(&value);
    bytes
}

fn elf() -> Vec<u8> {
    secovia_stub_guests::HELLO.elf()
}

/// A bzImage around `payload`, which unpacks to an ELF.
fn bz_image(payload: &[u8], change: impl FnOnce(&mut setup_header)) -> Vec<u8> {
    let mut header = setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x020f,
        xloadflags: 1,
        pref_address: 16 * MIB,
        init_size: MIB as u32,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: 2047,
        payload_offset: 32,
        payload_length: payload.len() as u32,
        syssize: (32 + payload.len()).div_ceil(16) as u32,
        ..Default::default()
    };
    change(&mut header);
    let mut image = vec![0; 1024 + 32];
    image[0x1f1..0x1f1 + header.as_slice().len()].copy_from_slice(header.as_slice());
    image.extend_from_slice(payload);
    image
}

fn packed_elf() -> Vec<u8> {
    let elf = elf();
    let block = lz4_flex::block::compress(&elf);
    let mut payload = b"\x02\x21\x4c\x18".to_vec();
    payload.extend_from_slice(&(block.len() as u32).to_le_bytes());
    payload.extend_from_slice(&block);
    payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
    payload
}

fn params(memory: &GuestMemory) -> boot_params {
    memory.read_obj(GuestAddress(layout::ZERO_PAGE)).unwrap()
}

#[test]
fn an_elf_is_entered_in_long_mode_with_a_zero_page() {
    let (memory, entry) = try_load(&elf()).unwrap();
    assert_eq!(entry, Entry::Long { address: 0x10_0000 });
    let params = params(&memory);
    let (rsdp, line, e820) = (
        params.acpi_rsdp_addr,
        params.hdr.cmd_line_ptr,
        params.e820_entries,
    );
    assert_eq!((rsdp, u64::from(line), e820), (0xe_0000, layout::COMMAND_LINE, 3));
    let mut line = [0; 14];
    memory
        .read_slice(&mut line, GuestAddress(layout::COMMAND_LINE))
        .unwrap();
    assert_eq!(&line, b"console=ttyS0\0");
}

#[test]
fn a_pvh_note_wins() {
    let (memory, entry) = try_load(&secovia_stub_guests::HELLO.pvh_elf()).unwrap();
    assert_eq!(entry, Entry::Pvh { address: 0x10_0000 });
    assert_eq!(
        memory.read_obj::<u32>(GuestAddress(layout::PVH_INFO)).unwrap(),
        0x336e_c578
    );
}

#[test]
fn a_bz_image_is_unpacked_on_the_host() {
    let (memory, entry) = try_load(&bz_image(&packed_elf(), |_| {})).unwrap();
    assert_eq!(entry, Entry::Long { address: 0x10_0000 });
    let code: u64 = memory.read_obj(GuestAddress(0x10_0000)).unwrap();
    assert_ne!(code, 0);
    // Its header is passed on.
    let version = params(&memory).hdr.version;
    assert_eq!(version, 0x020f);
}

#[test]
fn a_bz_image_in_an_unknown_format_unpacks_itself() {
    let (_, entry) = try_load(&bz_image(b"BZh9 what is this?", |_| {})).unwrap();
    assert_eq!(
        entry,
        Entry::Long {
            address: 16 * MIB + 0x200
        }
    );
}

#[test]
fn memory_is_described_without_the_gap() {
    let map = linux::memory_map(5 << 30);
    let ram: Vec<_> = map
        .iter()
        .filter(|range| range.kind == 1)
        .map(|range| (range.address, range.size))
        .collect();
    assert_eq!(ram, [(0, 0x9_fc00), (MIB, (3 << 30) - MIB), (4 << 30, 2 << 30)]);
}

#[test]
fn bad_kernels_are_named_with_a_remedy() {
    let phoff = 64;
    for (kernel, expected) in [
        (Vec::new(), "neither an ELF vmlinux nor a bzImage"),
        (b"#!/bin/sh\n".repeat(100), "neither an ELF vmlinux nor a bzImage"),
        (
            with(elf(), 18, 183u16.to_le_bytes()),
            "an ELF for AArch64; give a vmlinux or bzImage for x86-64",
        ),
        (with(elf(), 4, [1]), "an ELF for a 32-bit or big-endian machine"),
        (
            elf()[..40].to_vec(),
            "truncated: the ELF header ends at byte 64, the file has 40",
        ),
        (elf()[..100].to_vec(), "truncated: the program header table"),
        (elf()[..260].to_vec(), "truncated: a segment"),
        (with(elf(), 56, 0u16.to_le_bytes()), "number of program headers"),
        (
            with(elf(), 56, 0xffffu16.to_le_bytes()),
            "number of program headers",
        ),
        (
            with(elf(), 54, 32u16.to_le_bytes()),
            "program headers have an unknown size",
        ),
        (
            with(elf(), 24, 0x50_0000u64.to_le_bytes()),
            "entry point is outside",
        ),
        (with(elf(), phoff, 0u32.to_le_bytes()), "no segment to load"),
        (
            with(elf(), phoff + 24, 0x8000u64.to_le_bytes()),
            "is to be loaded at 0x8000, below 1 MiB",
        ),
        (
            with(elf(), phoff + 24, (64 * MIB).to_le_bytes()),
            "needs memory up to 65 MiB, the machine has 64 MiB; raise machine-config.mem_size_mib",
        ),
        (
            with(elf(), phoff + 40, u64::MAX.to_le_bytes()),
            "outside of every memory",
        ),
        (
            with(elf(), phoff + 40, 1u64.to_le_bytes()),
            "larger in the file than in memory",
        ),
        (
            with(elf(), phoff + 8, u64::MAX.to_le_bytes()),
            "outside of every file",
        ),
        (
            bz_image(&packed_elf(), |header| header.version = 0x0205),
            "boot protocol 2.5",
        ),
        (
            bz_image(&packed_elf(), |header| header.syssize = 1 << 20),
            "truncated: the kernel proper",
        ),
        (
            bz_image(&packed_elf(), |header| header.payload_length = 1 << 20),
            "truncated: the payload",
        ),
        (
            bz_image(b"BZh9", |header| header.xloadflags = 0),
            "an ELF for 32-bit x86",
        ),
        (
            bz_image(b"BZh9", |header| header.init_size = 1 << 30),
            "needs memory up to 1040 MiB",
        ),
        (
            bz_image(b"\x02\x21\x4c\x18\x10\0\0\0\0\0\x01\0", |_| {}),
            "unpack its LZ4 payload",
        ),
    ] {
        let message = fault(&kernel);
        assert!(
            message.starts_with("boot-source.kernel_image_path: vmlinux: "),
            "{message}"
        );
        assert!(
            message.contains(expected),
            "{message}\nshould contain: {expected}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn no_change_of_one_byte_in_the_headers_panics() {
    for kernel in [
        secovia_stub_guests::HELLO.pvh_elf(),
        bz_image(&packed_elf(), |_| {}),
    ] {
        let memory = memory::create(64 * MIB, memory::Pages::Huge).unwrap();
        let step = if kernel.len() > 1024 { 0x1e0..0x280 } else { 0..256 };
        for offset in step {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let changed = with(kernel.clone(), offset, [value]);
                let _ = load(&memory, 64 * MIB, &config(&changed), 0xe_0000);
            }
        }
    }
}

#[test]
fn the_initial_ram_disk_lies_at_the_top_and_must_fit() {
    let memory = memory::create(64 * MIB, memory::Pages::Huge).unwrap();
    let mut config = config(&elf());
    config.initrd = Some((file(&[7; 5000]), "initrd".into()));
    load(&memory, 64 * MIB, &config, 0).unwrap();
    let header = params(&memory).hdr;
    let (address, size) = (header.ramdisk_image, header.ramdisk_size);
    assert_eq!((u64::from(address), size), (64 * MIB - 8192, 5000));
    assert_eq!(
        memory
            .read_obj::<u8>(GuestAddress(u64::from(address) + 4999))
            .unwrap(),
        7
    );

    let large = file(&[]);
    large.set_len(64 * MIB).unwrap();
    config.initrd = Some((large, "initrd".into()));
    let message = load(&memory, 64 * MIB, &config, 0).unwrap_err().to_string();
    assert!(
        message.starts_with("boot-source.initrd_path: initrd: 64 MiB do not fit above the kernel"),
        "{message}"
    );
}

#[test]
fn a_command_line_beyond_the_kernels_limit_is_refused() {
    let memory = memory::create(64 * MIB, memory::Pages::Huge).unwrap();
    let mut config = config(&elf());
    config.command_line = "x".repeat(2048);
    let message = load(&memory, 64 * MIB, &config, 0).unwrap_err().to_string();
    assert!(
        message.contains("2048 bytes, this kernel takes at most 2047"),
        "{message}"
    );
}
