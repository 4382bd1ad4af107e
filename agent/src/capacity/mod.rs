//! What this machine lends, as plain values: no file is read here, and time is an argument.
//!
//! ```text
//! policy    what the owner has decided           ┐
//! usage     what the owner used of late          ├─> offer    how much is lent at most, and which rule says so
//! resources amounts of CPU, memory and disk      ┘     └─> ledger   who has what; admission
//! scarcity  how much the owner lacks ──> ladder    taking it back, rung by rung
//! ```

pub mod ladder;
pub mod ledger;
pub mod offer;
pub mod policy;
pub mod resources;
pub mod scarcity;
#[cfg(test)]
mod tests;
pub mod usage;
