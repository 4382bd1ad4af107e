//! The daemon, built where its tests find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    secovia_agent::daemon::main()
}
