//! The jailer, built where the tests find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    secovia_jailer::program::main()
}
