//! vCPUs: what state they start in ([`entry`]), what they should be doing ([`state`]), and the thread that does it
//! ([`thread`]).

pub mod counters;
pub mod entry;
pub mod state;
pub mod thread;
