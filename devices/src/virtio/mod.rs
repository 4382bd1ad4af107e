//! Virtio 1.2, modern devices only.

pub mod balloon;
pub mod block;
pub mod chain;
pub mod device;
mod limited;
pub mod mem;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod pmem;
mod registers;
pub mod rng;
pub mod transport;
mod used;
pub mod vhost_user;
pub mod vsock;
