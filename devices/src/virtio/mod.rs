//! Virtio 1.2, modern devices only.

pub mod balloon;
pub mod block;
pub mod chain;
pub mod device;
mod limited;
pub mod mem;
pub mod mmio;
pub mod net;
pub mod pmem;
pub mod rng;
mod used;
pub mod vsock;
