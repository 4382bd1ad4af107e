//! `secovia`: microVMs, images and the state of this node, for people and scripts.
//!
//! `args` says what may be typed, `command` carries it out through the agent's local API, `session` carries a guest
//! process's streams, `doctor` looks at the host without the agent, `output` is what people and scripts read.
//!
//! Exit status: 0 done, 1 the operation failed, 2 wrong usage; `run` and `exec` pass the guest command's own on.

mod args;
mod command;
mod doctor;
mod failure;
mod output;
mod session;
mod stats;
mod terminal;
mod top;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    terminal::restore_on_panic();
    match command::carry_out(cli) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.status())
        }
    }
}
