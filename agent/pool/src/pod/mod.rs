//! Pods as plain values: no request is made here, no clock is read.
//!
//! One Pod is one microVM. Every field of a Pod is decided by name: done, defaulted where Kubernetes' meaning allows that, or
//! refused with its path ([`Refusal`]).
//!
//! | module | what is in it |
//! |---|---|
//! | [`translate()`] | a Pod's microVM; with `container`, `env`, `probe`, `resources`, `security`, `volume` |
//! | [`identity`] | which microVM is which Pod's |
//! | [`status`] | what is reported of a Pod |
//! | [`plan`] | what is to be done, from what is wanted and what is there |

mod container;
mod env;
mod expand;
mod facts;
pub mod identity;
mod needs;
pub mod plan;
mod probe;
mod quantity;
mod refusal;
mod resources;
mod security;
pub mod status;
#[cfg(test)]
mod tests;
pub mod translate;
mod volume;

pub use container::PullPolicy;
pub use env::{Needs, Sources};
pub use expand::expand;
pub use facts::Facts;
pub use identity::{Identity, container_name};
pub use needs::needs;
pub use quantity::{Quantity, QuantityError};
pub use refusal::{Refusal, Trouble};
pub use translate::{Machine, translate};
