//! What may be typed. The comments are the help texts.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use secovia_agent_api::SOCKET_PATH;

use crate::home::USUAL_PORT;

/// This node's part in its region's Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "secovia-pool", version, max_term_width = 100)]
#[command(after_help = "Exit status: 0 done, 1 the operation failed, 2 wrong usage.")]
pub struct Cli {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", env = "SECOVIA_SOCKET", default_value = SOCKET_PATH)]
    pub socket: PathBuf,

    /// Where the pool's name and this node's keys are kept.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "SECOVIA_POOL_DIR",
        default_value = "/var/lib/secovia-pool"
    )]
    pub dir: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Joins the pool: asks the region for a certificate of this node's own. The service does the rest.
    Join(JoinArgs),
    /// Shows what this node is in its region, as the region sees it.
    Status(StatusArgs),
    /// Leaves the pool: no new Pods, those that are here are evicted, the node is deleted, and its keys with it.
    Leave(LeaveArgs),
    /// Runs in the foreground what the service runs.
    Serve,
}

/// `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The region's API server, as https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// A file with the token that the region's operator gave; nobody else may read it.
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// A file with the certificate that the API server is known by.
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// What this node is to be called; its host name where nothing is said.
    #[arg(long)]
    pub name: Option<String>,
    /// The address at which the region reaches this node; the one that leads to the server where nothing is said.
    #[arg(long)]
    pub address: Option<IpAddr>,
    /// The port at which the region asks this node for logs and figures of Pods.
    #[arg(long, default_value_t = USUAL_PORT, value_parser = clap::value_parser!(u16).range(1024..))]
    pub port: u16,
    /// How long to wait until the region signs, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: u64,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `leave`.
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// How long the Pods may take to end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub wait: u64,
    /// Leaves also where the region does not answer: the keys go, and the region's operator deletes the node.
    #[arg(long)]
    pub force: bool,
}
