//! Lending as the host has it: what is read, written and kept for the plain values of [`crate::capacity`].
//!
//! ```text
//! desk      admission, orders, the offer of the moment   ──> journal   the audit log
//!                                                        ──> keep      what outlives the agent
//! measure   what the machine has, and what its owner uses
//! ```

pub mod desk;
pub mod journal;
pub mod keep;
pub mod measure;
