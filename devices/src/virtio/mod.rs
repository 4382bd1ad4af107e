//! Virtio 1.2, modern devices only.

pub mod block;
pub mod chain;
pub mod device;
pub mod mmio;
pub mod rng;
pub mod vsock;
