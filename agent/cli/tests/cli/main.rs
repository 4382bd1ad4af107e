//! The program itself, against a fake agent on a Unix socket.

mod fake;
mod listings;
mod runs;
mod terminal;
