//! Where a machine starts, and what a kernel's loader says about it.

use linux_loader::loader::bootparam::setup_header;

/// Where and how the first vCPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode, with the zero page in %rsi (Linux boot protocol).
    Long {
        /// The first instruction.
        address: u64,
    },
    /// In 32-bit mode without paging, with the start information in %ebx (PVH).
    Pvh {
        /// The first instruction.
        address: u32,
    },
}

/// What the formats' loaders find out about a kernel.
pub(super) struct Loaded {
    pub(super) entry: Entry,
    /// The first free address above it.
    pub(super) end: u64,
    /// The last address that the initial RAM disk may touch.
    pub(super) initrd_max: u64,
    /// The longest command line, without the terminating zero.
    pub(super) command_line_max: usize,
    /// A bzImage's setup header, which the zero page repeats.
    pub(super) header: Option<setup_header>,
}

/// A range of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) address: u64,
    pub(super) size: u64,
}
