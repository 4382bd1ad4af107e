//! bzImage: the payload is unpacked here, by libraries on the host, so that the guest does not unpack itself; a
//! payload in an unknown format is left to the image's own 64-bit entry.

use linux_loader::loader::bootparam::setup_header;
use secovia_devices::GuestMemory;
use vm_memory::ByteValued;

use super::entry::{Entry, Loaded};
use super::error::KernelFault;
use super::image::Image;
use super::{elf, payload};
use crate::layout;

/// Where the setup header starts in the image and in the zero page.
const START: u64 = 0x1f1;
const SECTOR: u64 = 512;
const BOOT_FLAG: u16 = 0xaa55;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
/// `XLF_KERNEL_64`: the image has a 64-bit entry, 0x200 bytes after its start.
const KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// The newest field that is used, `init_size`, came with 2.10, the 64-bit entry's flag with 2.12.
const PROTOCOL: u16 = 0x020c;

/// Reads the setup header; `None` where its magic numbers say that this is no bzImage.
pub(super) fn find_header(image: &Image<'_>) -> Result<Option<setup_header>, KernelFault> {
    let mut header = setup_header::default();
    if image.len() < START + size_of::<setup_header>() as u64 {
        return Ok(None);
    }
    image.read_at(START, header.as_mut_slice())?;
    let is_linux = header.boot_flag == BOOT_FLAG && header.header == HDRS;
    Ok(is_linux.then_some(header))
}

/// Loads a bzImage.
pub(super) fn load(
    memory: &GuestMemory,
    low_end: u64,
    image: &Image<'_>,
    header: setup_header,
) -> Result<Loaded, KernelFault> {
    let version = header.version;
    if version < PROTOCOL {
        let [minor, major] = version.to_le_bytes();
        return Err(KernelFault::Protocol { major, minor });
    }
    // The real-mode part comes first: the boot sector and `setup_sects` more (0 means 4).
    let sectors = if header.setup_sects == 0 {
        4
    } else {
        header.setup_sects
    };
    let code = (u64::from(sectors) + 1) * SECTOR;
    let length = image.len();
    let code_end = code + u64::from(header.syssize) * 16;
    // `syssize` counts units of 16 bytes, rounded up: the file may end up to 15 bytes before.
    if code_end > length + 15 || code >= length {
        return Err(KernelFault::Truncated {
            what: "the kernel proper",
            needed: code_end,
            length,
        });
    }

    let start = code + u64::from(header.payload_offset);
    let end = start + u64::from(header.payload_length);
    if end > length {
        return Err(KernelFault::Truncated {
            what: "the payload",
            needed: end,
            length,
        });
    }
    let mut packed = vec![0; header.payload_length as usize];
    image.read_at(start, &mut packed)?;

    let mut loaded = match payload::unpack(&packed, low_end)? {
        Some(kernel) => {
            drop(packed);
            elf::load(memory, low_end, &Image::Bytes(&kernel))?
        }
        None => unpacks_itself(memory, low_end, image, &header, code)?,
    };
    loaded.initrd_max = loaded.initrd_max.min(header.initrd_addr_max.into());
    loaded.command_line_max = loaded.command_line_max.min(header.cmdline_size as usize);
    loaded.header = Some(header);
    Ok(loaded)
}

/// Loads the protected-mode part as it is, to unpack itself.
fn unpacks_itself(
    memory: &GuestMemory,
    low_end: u64,
    image: &Image<'_>,
    header: &setup_header,
    code: u64,
) -> Result<Loaded, KernelFault> {
    let xloadflags = header.xloadflags;
    if xloadflags & KERNEL_64 == 0 {
        return Err(KernelFault::Machine("32-bit x86".into()));
    }
    let address = header.pref_address;
    if address < layout::KERNEL_START {
        return Err(KernelFault::TooLow(address));
    }
    let size = image.len() - code;
    let end = elf::fits(address, size.max(header.init_size.into()), low_end)?;
    log::debug!("the kernel's payload has an unknown format: it unpacks itself");
    image.copy_to(memory, code, address, size)?;
    Ok(Loaded {
        entry: Entry::Long {
            address: address + ENTRY_64,
        },
        end,
        initrd_max: u64::MAX,
        command_line_max: usize::MAX,
        header: None,
    })
}
