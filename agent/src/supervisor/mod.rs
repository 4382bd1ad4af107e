//! One task for each VM: it alone moves the VM's life, writes each move down, and then carries its steps out.

mod actor;
mod collect;
mod containers;
mod drive;
mod handle;
mod hint;
mod machine;
mod report;
mod sessions;
mod told;

pub use actor::{Supervised, supervise};
pub use handle::{Begin, Command, CommandError, Context, Handle, View};
pub use sessions::{SessionGuard, Sessions};
