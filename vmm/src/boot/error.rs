//! What is wrong with what should boot.

use std::path::PathBuf;

/// What is wrong with what should boot. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel cannot boot.
    #[error("boot-source.kernel_image_path: {path}: {fault}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: KernelFault,
    },
    /// The initial RAM disk cannot be loaded.
    #[error("boot-source.initrd_path: {path}: {fault}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: InitrdFault,
    },
    /// The command line is too long for this kernel.
    #[error("boot-source.boot_args: {length} bytes, this kernel takes at most {max}; shorten it")]
    CommandLine {
        /// Its length.
        length: usize,
        /// The most it may have.
        max: usize,
    },
    /// The VMM's own structures did not fit, which no valid configuration leads to.
    #[error("write boot structures to guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// What is wrong with a kernel image.
#[derive(Debug, thiserror::Error)]
pub enum KernelFault {
    /// The file cannot be read.
    #[error("read: {0}")]
    Read(#[from] std::io::Error),
    /// No format that boots.
    #[error("neither an ELF vmlinux nor a bzImage; give one of the two")]
    Format,
    /// Made for something else.
    #[error("an ELF for {0}; give a vmlinux or bzImage for x86-64")]
    Machine(String),
    /// The file ends too early.
    #[error("truncated: {what} ends at byte {needed}, the file has {length}; copy the kernel again")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where it ends.
        needed: u64,
        /// How long the file is.
        length: u64,
    },
    /// The headers contradict themselves.
    #[error("damaged: {0}; copy or build the kernel again")]
    Damaged(&'static str),
    /// It does not fit.
    #[error(
        "needs memory up to {needed} MiB, the machine has {available} MiB; raise machine-config.mem_size_mib"
    )]
    TooLarge {
        /// Where it would end.
        needed: u64,
        /// How much there is below 3 GiB.
        available: u64,
    },
    /// It wants to lie where the VMM puts its own structures.
    #[error("is to be loaded at {0:#x}, below 1 MiB; link it at 1 MiB or above")]
    TooLow(u64),
    /// A bzImage of an ancient kernel.
    #[error("boot protocol {major}.{minor}, 2.12 (Linux 3.8) is needed; use a newer kernel")]
    Protocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The payload does not unpack.
    #[error("unpack its {format} payload: {reason}; copy or build the kernel again")]
    Payload {
        /// How it is packed.
        format: &'static str,
        /// What the library says.
        reason: String,
    },
}

/// What is wrong with an initial RAM disk.
#[derive(Debug, thiserror::Error)]
pub enum InitrdFault {
    /// The file cannot be read.
    #[error("read: {0}")]
    Read(std::io::Error),
    /// It does not fit beside the kernel.
    #[error(
        "{size} MiB do not fit above the kernel, which ends at {kernel_end} MiB of {available}; raise machine-config.mem_size_mib"
    )]
    TooLarge {
        /// Its size.
        size: u64,
        /// Where the kernel ends.
        kernel_end: u64,
        /// How much memory there is below 3 GiB.
        available: u64,
    },
}
