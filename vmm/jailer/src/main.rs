//! `secovia-jailer`: one VMM into its jail.

use std::process::ExitCode;

fn main() -> ExitCode {
    secovia_jailer::program::main()
}
