//! The streams of a process in a guest, at this end: `pump` decides (no I/O), `drive` reads and writes, `console` is
//! the terminal or the pipes, `follow` takes a workload up again when the agent was away.

pub(crate) mod console;
pub(crate) mod drive;
pub(crate) mod follow;
pub(crate) mod pump;
