//! Carries out what was typed: one module for each group of commands.

mod audit;
mod image;
mod lending;
mod lifecycle;
mod list;
mod logs;
mod node;
mod pages;
mod pool;
mod process;
mod pull;
mod started;

use secovia_agent_api::client::Client;

use crate::args::{AuditCommand, Cli, Command, ImageCommand};
use crate::failure::Failure;
use crate::{doctor, stats, top};

/// Does what the command line says, and gives the exit status.
pub(crate) fn carry_out(cli: Cli) -> Result<u8, Failure> {
    // One thread is enough: reading, writing and waiting is all there is to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("start the runtime: {error}")))?;
    let client = Client::new(&cli.socket);
    let status = match cli.command {
        Command::Run(args) => runtime.block_on(process::run(&client, args)),
        Command::Exec(args) => runtime.block_on(process::exec(&client, args)),
        Command::Ps(args) => runtime.block_on(list::ps(&client, &args)),
        Command::Inspect(args) => runtime.block_on(list::inspect(&client, &args)),
        Command::Logs(args) => runtime.block_on(logs::logs(&client, args)),
        Command::Stop(args) => runtime.block_on(lifecycle::stop(&client, args)),
        Command::Start(args) => runtime.block_on(lifecycle::start(&client, args)),
        Command::Rm(args) => runtime.block_on(lifecycle::rm(&client, args)),
        Command::Kill(args) => runtime.block_on(lifecycle::kill(&client, args)),
        Command::Wait(args) => runtime.block_on(lifecycle::wait(&client, args)),
        Command::Stats(args) => runtime.block_on(stats::stats(&client, args)),
        Command::Top(args) => top::top(&runtime, &client, args.interval),
        Command::Image(ImageCommand::Import { name, path }) => {
            runtime.block_on(image::import(&client, name, &path))
        }
        Command::Image(ImageCommand::Pull(args)) => runtime.block_on(pull::pull_image(&client, args)),
        Command::Image(ImageCommand::Gc { all, json }) => runtime.block_on(image::gc(&client, all, json)),
        Command::Image(ImageCommand::Ls { json }) => runtime.block_on(image::ls(&client, json)),
        Command::Image(ImageCommand::Rm { names }) => runtime.block_on(image::rm(&client, names)),
        Command::Offer(args) => runtime.block_on(lending::offer(&client, &args)),
        Command::Reclaim(args) => runtime.block_on(lending::reclaim(&client, &args)),
        Command::Release => runtime.block_on(lending::release(&client)),
        Command::Audit(AuditCommand::Show { tail, json }) => {
            runtime.block_on(audit::show(&client, tail, json))
        }
        Command::Audit(AuditCommand::Verify { files, json }) => {
            runtime.block_on(audit::verify(&client, &files, json))
        }
        Command::Pool { args } => return Err(pool::hand_over(&cli.socket, &args)),
        Command::Doctor(args) => runtime.block_on(doctor::doctor(&client, &args)),
        Command::Version(args) => runtime.block_on(node::version(&client, args.json)),
        Command::Completion(args) => pages::completion(args.shell),
        Command::Man(args) => pages::man(args.dir.as_deref()),
    };
    // A thread may still be reading the keyboard: nothing to wait for.
    runtime.shutdown_background();
    status
}
