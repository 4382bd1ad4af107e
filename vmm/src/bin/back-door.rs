//! `secovia-vmm-back-door`: `secovia-vmm` with a device that hands the process to its guest. For tests that break out.

use std::process::ExitCode;

fn main() -> ExitCode {
    secovia_vmm::process::main()
}
