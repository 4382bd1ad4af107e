//! The node daemon's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    secovia_agent::daemon::main()
}
