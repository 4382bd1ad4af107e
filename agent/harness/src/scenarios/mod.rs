//! What must hold, whichever VMM serves it.

mod life;
mod restart;

pub use life::*;
pub use restart::*;
