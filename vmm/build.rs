//! Compiles the rules of system calls to filters, so that a start does not have to.

use std::fmt::Write;
use std::path::Path;

use secovia_seccomp::{List, RULES, Rules};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let rules = Rules::parse(RULES)?;
    let mut text = String::new();
    for list in List::ALL {
        let filter = rules.compile(list)?;
        writeln!(text, "/// Filter of the list {:?}.", list.name())?;
        writeln!(text, "static {}: &[sock_filter] = &[", list.name().to_uppercase())?;
        for instruction in filter.program() {
            writeln!(text, "    {instruction:?},")?;
        }
        writeln!(text, "];")?;
    }
    let folder = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(Path::new(&folder).join("filters.rs"), text)?;
    Ok(())
}
