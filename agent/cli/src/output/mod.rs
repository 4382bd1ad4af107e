//! What people and scripts read on standard output.

pub(crate) mod human;
pub(crate) mod log;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, Write};

use serde::Serialize;

pub(crate) use table::{Table, printable};

use crate::failure::Failure;

/// Prints a text as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::output(&error))
}

/// Prints a value as JSON, for programs.
pub(crate) fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::other(format!("put the answer into JSON: {error}")))?;
    print(&(text + "\n"))
}
