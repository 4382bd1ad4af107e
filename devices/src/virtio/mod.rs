//! Virtio 1.2, modern devices only.

pub mod device;
