//! What must hold, whichever VMM serves it.

mod clock;
mod containers;
mod hammer;
mod images;
mod lending;
mod life;
mod network;
mod owner;
mod restart;

pub use clock::*;
pub use containers::*;
pub use hammer::*;
pub use images::*;
pub use lending::*;
pub use life::*;
pub use network::*;
pub use owner::*;
pub use restart::*;
