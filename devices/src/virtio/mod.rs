//! Virtio 1.2, modern devices only.

pub mod chain;
pub mod device;
