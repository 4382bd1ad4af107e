//! What must hold, whichever VMM serves it.

mod hammer;
mod life;
mod restart;

pub use hammer::*;
pub use life::*;
pub use restart::*;
