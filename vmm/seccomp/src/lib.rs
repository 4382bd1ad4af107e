//! The system calls that the threads of `secovia-vmm` may make.
//!
//! `rules.json` is the one place where they are written down: each rule names a call, what its arguments must be, the
//! threads that may make it, and why. From it come the filters that the VMM installs ([`Rules::compile`], at build time)
//! and the answer which rules a given call is covered by ([`Rules::covering`]), with which `ci/check` finds rules that no
//! test needs.
//!
//! # Lists
//! A filter that a thread installs is inherited by every thread that it starts and can only be narrowed. [`List::Start`]
//! is therefore what any thread may do: all rules there are. The others are parts of it, which a thread installs on top
//! when it knows what it will be.
//!
//! # A call that no rule covers
//! ends the process (see `confine` in the VMM). One that a rule answers with an error number is only refused.

mod compile;
mod error;
mod file;
mod rules;

pub use compile::Filter;
pub use error::RulesError;
pub use rules::{Answer, Call, Condition, List, OWN_PID, Rule, Rules};

pub use syscalls::Sysno;

/// The rules of this version, as text.
pub const RULES: &str = include_str!("../rules.json");

#[cfg(test)]
mod tests;
