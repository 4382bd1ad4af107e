//! Speaking to a guest's PID 1, over its VMM's Unix socket.

mod call;
mod error;
mod stream;
#[cfg(test)]
mod tests;

pub use call::{call, connect, open, try_call};
pub use error::GuestCallError;
pub use stream::{FrameStream, first_frame};
