//! Pods as plain values: no request is made here, no clock is read.
//!
//! One Pod is one microVM. Every field of a Pod is decided by name: done, defaulted where Kubernetes' meaning allows that, or
//! refused with its path ([`Refusal`]).

mod quantity;
mod refusal;

pub use quantity::{Quantity, QuantityError};
pub use refusal::Refusal;
