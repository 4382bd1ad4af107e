//! Lending as the host has it: what is read, written and kept for the plain values of [`crate::capacity`].
//!
//! ```text
//! desk      admission, orders, the offer of the moment   ──> journal   the audit log
//!                                                        ──> keep      what outlives the agent
//! measure   what the machine has, and what its owner uses
//! pressure  the owner's processes wait: told by the kernel
//! slice     what the kernel does by itself for the owner
//! ```

pub mod desk;
pub mod journal;
pub mod keep;
pub mod measure;
pub mod pressure;
pub mod slice;
