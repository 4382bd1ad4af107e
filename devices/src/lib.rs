//! Device models of the Secovia VMM.
//!
//! This crate knows guest memory, queues and files; it never knows KVM or the machine that it is part of.
//! A device is driven by register accesses ([`bus`]) and answers with [`bus::Effect`]s; the machine acts on them.
//!
//! Every byte that comes from the guest is hostile: nothing in here may panic on it.
//!
//! # What shows it
//! | where | what |
//! |---|---|
//! | `tests/hostile` | a driver that means harm, a million operations a device, from a seed |
//! | `fuzz` | the same driver led by libFuzzer, under the address sanitizer (`ci/fuzz`) |
//! | `tests/proofs` | the arithmetic that guards memory, for every input of a model with all the edges; no model checker could be had |
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod boot_timer;
pub mod bus;
pub mod ged;
pub mod interrupt;
pub mod ioapic;
pub mod limiter;
pub mod pci;
mod pending;
pub mod power;
pub mod published;
pub mod pvpanic;
mod ring;
pub mod serial;
mod sys;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
pub mod virtio;
pub mod vmgenid;

pub use sys::fill_random;

/// The guest's physical memory. The one place that decides on its backing and on dirty tracking.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// A piece of guest memory that is contiguous on the host too.
pub type GuestSlice<'a> = vm_memory::VolatileSlice<'a, vm_memory::bitmap::MS<'a, GuestMemory>>;
