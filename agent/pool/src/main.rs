//! `secovia-pool`: the node's part in its region's Kubernetes. `secovia pool` calls it, and so does its unit.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use secovia_agent_api::client::Client;
use secovia_pool::args::{Cli, Command, JoinArgs};
use secovia_pool::error::PoolError;
use secovia_pool::home::Home;
use secovia_pool::join::{Invitation, join};
use secovia_pool::leave::leave;
use secovia_pool::service::serve;
use secovia_pool::status::{described, status};
use secovia_pool::{logger, plain};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logger::install();
    // One thread is enough: waiting is most of what there is to do.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("start the runtime: {error}")),
    };
    match runtime.block_on(carry_out(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(problem: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "secovia-pool: {}", plain(problem));
    ExitCode::FAILURE
}

async fn carry_out(cli: Cli) -> Result<(), PoolError> {
    let home = Home::new(&cli.dir);
    match cli.command {
        Command::Join(args) => join_pool(&home, args).await,
        Command::Status(args) => {
            let status = status(&home).await?;
            if args.json {
                say(&serde_json::to_string_pretty(&status).unwrap_or_default());
            } else {
                say(described(&status).trim_end());
            }
            Ok(())
        }
        Command::Leave(args) => {
            let left = leave(&home, Duration::from_secs(args.wait), args.force).await?;
            let node = &left.membership.node;
            for pod in &left.pods {
                say(&format!("still there: Pod {}", plain(pod)));
            }
            match &left.node {
                None => say(&format!("node {node} has left {}", left.membership.server)),
                Some(problem) => say(&format!(
                    "node {node} has left {}, whose operator has to remove what it was (kubectl delete node {node}): {}",
                    left.membership.server,
                    plain(problem)
                )),
            }
            Ok(())
        }
        Command::Serve => {
            let agent = Client::new(&cli.socket);
            tokio::select! {
                done = serve(&home, &agent) => done,
                () = told_to_end() => Ok(()),
            }
        }
    }
}

async fn join_pool(home: &Home, args: JoinArgs) -> Result<(), PoolError> {
    let invitation = Invitation {
        server: args.server,
        token: args.token_file,
        ca: args.ca,
        name: args.name,
        address: args.address,
        port: args.port,
        patience: Duration::from_secs(args.wait),
    };
    let tell = |request: &str| {
        let text = format!(
            "asked for a certificate; where nobody approves it by rule: kubectl certificate approve {request}"
        );
        let _ = writeln!(std::io::stderr(), "secovia-pool: {}", plain(&text));
    };
    let joined = join(home, &invitation, tell).await?;
    say(&format!(
        "node {} may join {}; now start the service: systemctl enable --now secovia-pool",
        joined.node, joined.server
    ));
    Ok(())
}

/// A line for whoever called. Where nobody reads it, there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Returns when the service is to end. Nothing has to be put in order for it.
async fn told_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    terminate.recv().await;
}
