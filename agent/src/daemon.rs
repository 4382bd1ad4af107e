//! The daemon's program: arguments, threads, signals.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nix::sys::stat::{Mode, umask};
use sd_notify::NotifyState;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, timeout};

use crate::api::{self, Socket};
use crate::config::{Config, DEFAULT_PATH};
use crate::logger;
use crate::network;
use crate::node::Node;
use crate::process::Cgroups;
use crate::rights;

/// How long requests that are under way may take when the agent ends. Waits and followed logs have no end of their own.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// The Secovia node agent: runs microVMs, answers on a local socket.
#[derive(Debug, Parser)]
#[command(name = "secovia-agent", version)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,

    /// Check the configuration and the files that it names, then end.
    #[arg(long)]
    check: bool,

    /// Make the control group that all microVMs' groups are made in, then end. Needs rights that the daemon drops.
    #[arg(long)]
    make_slice: bool,

    /// Pin the host's network where the daemon finds it, then end. Needs rights that the daemon drops; without a [network]
    /// there is nothing to do.
    #[arg(long)]
    pin_network: bool,

    /// Print the OpenAPI description of the local API, then end.
    #[arg(long)]
    openapi: bool,
}

/// Runs the daemon with the process's arguments, to its end.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("secovia-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.openapi {
        print!("{}", api::openapi());
        return Ok(());
    }
    if arguments.make_slice {
        // A host without control groups is one that `secovia doctor` complains of; the agent works there.
        Cgroups::detect();
        return Ok(());
    }
    let config = Config::load(&arguments.config)?;
    if arguments.pin_network {
        if config.network.is_some() {
            let pinned = network::pin_host(&config.runtime_dir);
            pinned.map_err(|error| {
                format!(
                    "pin the host's network in {}: {error}",
                    config.runtime_dir.display()
                )
            })?;
        }
        return Ok(());
    }
    if arguments.check {
        config.check_files(&arguments.config)?;
        println!("{}: ok", arguments.config.display());
        return Ok(());
    }
    logger::start(config.log_level);
    // What this process makes is for itself, unless it says otherwise.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    rights::keep_what_is_needed(config.network.is_some())
        .map_err(|error| format!("drop capabilities: {error}"))?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("agent")
        .enable_all()
        .build()
        .map_err(|error| format!("start threads: {error}"))?;
    let result = runtime.block_on(serve(config, &arguments.config));
    // Tasks of VMs have no end of their own; the VMs go on without them.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let path = config.runtime_dir.join("agent.sock");
    let group = config.socket_group.clone();
    let node = Node::open(config).await?;
    let socket = Socket::bind(&path, &group)?;
    log::info!(
        "secovia-agent {} serves {}",
        env!("CARGO_PKG_VERSION"),
        path.display()
    );
    // To the service manager, if one has asked: whoever starts the agent and then uses it must find it.
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("tell the service manager that the agent is ready: {error}");
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut stopping = stopped.clone();
    let serving = api::serve(Arc::clone(&node), socket, async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    tokio::pin!(serving);
    loop {
        tokio::select! {
            result = &mut serving => return Ok(result?),
            _ = reload.recv() => {
                reload_policy(&node, file);
                continue;
            }
            _ = terminate.recv() => log::info!("SIGTERM: ending, microVMs go on"),
            _ = interrupt.recv() => log::info!("SIGINT: ending, microVMs go on"),
        }
        break;
    }
    stop.send_replace(true);
    match timeout(LAST_REQUESTS, serving).await {
        Ok(result) => Ok(result?),
        Err(_) => Ok(()),
    }
}

/// Puts the policy that the file has now in force, or keeps the present one whole where the file is wrong anywhere.
fn reload_policy(node: &Node, file: &Path) {
    match Config::load(file) {
        Ok(config) => {
            if !config.is_same_but_for_policy(node.config()) {
                log::warn!(
                    "SIGHUP: {} also changed keys outside of reserve, cap, schedule, measure, reclaim and labels; \
                     they count when the agent is restarted",
                    file.display()
                );
            }
            node.apply(config.policy);
            log::info!("SIGHUP: the policy of {} is in force", file.display());
        }
        Err(error) => log::error!("SIGHUP: nothing is reloaded: {error}"),
    }
}
