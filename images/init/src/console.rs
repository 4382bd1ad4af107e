//! What PID 1 itself has to say, for whoever reads the machine's console.

use std::fmt::Display;
use std::io::{Write, stderr};

/// One line on the console. A console that cannot be written is no reason to stop.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(stderr(), "secovia-init: {line}");
}
