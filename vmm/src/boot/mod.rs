//! From kernel, initial RAM disk and command line to guest memory and an entry point.
//!
//! Every byte of a kernel file is untrusted: a reader in here checks before it uses, and says what is wrong.

mod bzimage;
mod elf;
mod entry;
mod error;
mod image;
mod linux;
mod payload;
mod pvh;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::PathBuf;

use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use self::entry::{Loaded, Placed};
use self::image::Image;
use crate::{layout, memory};

pub use entry::Entry;
pub use error::{BootError, InitrdFault, KernelFault};

/// What boots: files that are open, and a command line that fits.
#[derive(Debug)]
pub struct BootConfig {
    /// The kernel's file.
    pub kernel: File,
    /// Its name, for messages.
    pub kernel_path: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<(File, PathBuf)>,
    /// The command line, without a zero byte.
    pub command_line: String,
}

/// Loads everything that `config` names, with the ACPI tables' root at `rsdp`.
pub fn load(memory: &GuestMemory, size: u64, config: &BootConfig, rsdp: u64) -> Result<Entry, BootError> {
    let low_end = memory::low_end(size);
    let kernel = load_kernel(memory, low_end, &config.kernel).map_err(|fault| BootError::Kernel {
        path: config.kernel_path.clone(),
        fault,
    })?;
    let initrd = match &config.initrd {
        Some((file, path)) => {
            let place = load_initrd(memory, low_end, &kernel, file);
            Some(place.map_err(|fault| BootError::Initrd {
                path: path.clone(),
                fault,
            })?)
        }
        None => None,
    };

    let text = config.command_line.as_bytes();
    if text.len() > kernel.command_line_max {
        return Err(BootError::CommandLine {
            length: text.len(),
            max: kernel.command_line_max,
        });
    }
    // The memory is fresh, so the terminating zero is there.
    memory.write_slice(text, GuestAddress(layout::COMMAND_LINE))?;

    let map = linux::memory_map(size);
    match kernel.entry {
        Entry::Long { .. } => linux::write(memory, &map, kernel.header, initrd, text.len(), rsdp)?,
        Entry::Pvh { .. } => pvh::write(memory, &map, initrd, rsdp)?,
    }
    Ok(kernel.entry)
}

fn load_kernel(memory: &GuestMemory, low_end: u64, file: &File) -> Result<Loaded, KernelFault> {
    let image = Image::of_file(file)?;
    if elf::is_elf(&image)? {
        elf::load(memory, low_end, &image)
    } else if let Some(header) = bzimage::find_header(&image)? {
        bzimage::load(memory, low_end, &image, header)
    } else {
        Err(KernelFault::Format)
    }
}

/// Puts the initial RAM disk as high as memory and kernel allow, so that it is out of the way of the kernel's growth.
fn load_initrd(
    memory: &GuestMemory,
    low_end: u64,
    kernel: &Loaded,
    file: &File,
) -> Result<Placed, InitrdFault> {
    let image = Image::of_file(file).map_err(InitrdFault::Read)?;
    let size = image.len();
    let top = low_end.min(kernel.initrd_max.saturating_add(1));
    let address = top.checked_sub(size).map(|address| address & !0xfff);
    match address.filter(|address| *address >= kernel.end) {
        Some(address) => {
            image
                .copy_to(memory, 0, address, size)
                .map_err(InitrdFault::Read)?;
            Ok(Placed { address, size })
        }
        None => Err(InitrdFault::TooLarge {
            size: size.div_ceil(1 << 20),
            kernel_end: kernel.end.div_ceil(1 << 20),
            available: low_end >> 20,
        }),
    }
}
