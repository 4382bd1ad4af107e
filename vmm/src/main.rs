//! `secovia-vmm`: one microVM, one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    secovia_vmm::process::main()
}
