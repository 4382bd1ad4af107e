//! What may be typed. The comments are the help texts.

#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use secovia_agent_api::{NetworkMode, Publish, RestartPolicy, SOCKET_PATH};

pub(crate) use values::{EnvVar, Mib, Since};

/// Runs microVMs on this node, and looks after them.
#[derive(Debug, Parser)]
#[command(name = "secovia", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 the operation failed, 2 wrong usage; `run` and `exec` pass the \
    guest command's own status on."
)]
pub(crate) struct Cli {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", env = "SECOVIA_SOCKET", default_value = SOCKET_PATH)]
    pub socket: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a microVM from an image and runs a command in it.
    Run(RunArgs),
    /// Lists the microVMs that are active.
    Ps(PsArgs),
    /// Shows all that is known of microVMs.
    Inspect(InspectArgs),
    /// Shows what a microVM's command wrote.
    Logs(LogsArgs),
    /// Runs one more command in a running microVM.
    Exec(ExecArgs),
    /// Stops microVMs: SIGTERM to their command, SIGKILL after a grace.
    Stop(StopArgs),
    /// Starts microVMs that have ended or never ran.
    Start(NamesArgs),
    /// Removes microVMs with their disks and logs.
    Rm(RmArgs),
    /// Ends microVMs at once, or sends a signal to their command.
    Kill(KillArgs),
    /// Waits until microVMs have ended, and prints the status of each.
    Wait(WaitArgs),
    /// Shows once what the running microVMs use.
    Stats(StatsArgs),
    /// Shows what the running microVMs use, live.
    Top(TopArgs),
    /// Looks after the images that microVMs start from.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Shows what this node lends, and which rule decided it.
    Offer(OfferArgs),
    /// Takes the machine back: ends all microVMs in time, and lends nothing until `release`.
    Reclaim(ReclaimArgs),
    /// Lends again, after `reclaim`.
    Release,
    /// Shows and verifies the record of what was done with what is lent.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The region's pool: join, status, leave. `secovia pool --help` lists all of it.
    #[command(disable_help_flag = true)]
    Pool {
        /// What secovia-pool is to do.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        args: Vec<OsString>,
    },
    /// Says whether this host is ready, and what to do where it is not.
    Doctor(DoctorArgs),
    /// Shows the versions of this command and of the agent.
    Version(JsonArgs),
    /// Writes a completion script for a shell.
    Completion(CompletionArgs),
    /// Writes the manual pages.
    Man(ManArgs),
}

/// Starts a microVM.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of the microVM and of its host; made up where none is given.
    #[arg(long)]
    pub name: Option<String>,
    /// Number of vCPUs, 1 to 32.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub cpus: u8,
    /// What its CPU time counts for where it is lent, and weighs where it is scarce: 0.5, 2; all its vCPUs where none is
    /// given. It may use more as long as nobody else wants it.
    #[arg(long, value_name = "CPUS", value_parser = values::cpu_millis)]
    pub cpu_share: Option<u32>,
    /// Memory: 512M, 2G; a bare number is MiB.
    #[arg(long, default_value = "256M", value_name = "SIZE")]
    pub memory: Mib,
    /// Keep what the guest writes on a disk of this size: 512M, 10G; otherwise it is kept in memory, until the
    /// microVM stops.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<Mib>,
    /// Let this port of the host lead to the guest: `[ADDRESS:]HOSTPORT:GUESTPORT[/udp]`. May be repeated.
    #[arg(long, short, value_name = "PORTS")]
    pub publish: Vec<Publish>,
    /// Its network: none, or node, where agent.toml has `[network]`; that is the default there.
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<NetworkMode>,
    /// Environment variable; KEY alone takes the value from here. May be repeated.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<EnvVar>,
    /// Run the command as this user of the image: name, uid, name:group or uid:gid.
    #[arg(long, short)]
    pub user: Option<String>,
    /// Run the command in this directory of the image.
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// What happens when the command ends: no, on-failure, on-failure:N (at most N times) or always.
    #[arg(long, default_value_t = RestartPolicy::No, value_name = "POLICY")]
    pub restart: RestartPolicy,
    /// Return as soon as the command runs, and print the microVM's name.
    #[arg(long, short, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Remove the microVM when it has ended.
    #[arg(long)]
    pub rm: bool,
    /// Pass standard input on to the command.
    #[arg(short, long)]
    pub interactive: bool,
    /// Run the command on a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Name of the image.
    pub image: String,
    /// Command and arguments; the image's own where none are given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Lists microVMs.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that have ended or never ran.
    #[arg(long, short)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Names microVMs, and asks for JSON.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names or identifiers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Print JSON: always a list.
    #[arg(long)]
    pub json: bool,
}

/// Asks for a log.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Of this container, where the microVM has several; the first that is no init container where none is given.
    #[arg(long, short)]
    pub container: Option<String>,
    /// Go on with new output until the microVM ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last N lines.
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// Only what was written since: 90s, 10m, 2h, 1d ago, or a time like 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Put the time before each line.
    #[arg(long, short)]
    pub timestamps: bool,
    /// Print JSON, one record a line.
    #[arg(long, conflicts_with = "timestamps")]
    pub json: bool,
    /// Name or identifier.
    pub name: String,
}

/// Runs one more command.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// In this container, where the microVM has several; the first that is no init container where none is given.
    #[arg(long, short)]
    pub container: Option<String>,
    /// Pass standard input on to the command.
    #[arg(short, long)]
    pub interactive: bool,
    /// Run the command on a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Environment variable; KEY alone takes the value from here. May be repeated.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<EnvVar>,
    /// Run the command as this user of the image: name, uid, name:group or uid:gid; the microVM's where none is given.
    #[arg(long, short)]
    pub user: Option<String>,
    /// Run the command in this directory of the image; the microVM's where none is given.
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Name or identifier.
    pub name: String,
    /// Command and arguments.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "CMD"
    )]
    pub command: Vec<String>,
}

/// Stops microVMs.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// How long the command may take before it is killed: 10s, 1m; a bare number is seconds.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = values::seconds)]
    pub grace: u32,
    /// Names or identifiers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Names microVMs.
#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// Names or identifiers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Removes microVMs.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// End them first where they are active.
    #[arg(long, short)]
    pub force: bool,
    /// Names or identifiers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Kills microVMs.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Send this signal to the command (HUP, SIGHUP, 1) and leave the microVM as it is.
    #[arg(long, short, value_name = "SIGNAL", value_parser = values::signal)]
    pub signal: Option<i32>,
    /// Names or identifiers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Waits for microVMs.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names or identifiers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Print JSON: the microVMs as they ended.
    #[arg(long)]
    pub json: bool,
}

/// Asks what microVMs use.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Only these; all that run where none are given.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks what microVMs use, live.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Time between two looks: 1s, 500ms.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = values::interval)]
    pub interval: std::time::Duration,
}

/// Images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Takes an image into the agent's store.
    ///
    /// PATH is a tar that `docker save`, `podman save`, `skopeo copy` or `buildctl` wrote, uncompressed; a directory in
    /// OCI's layout; or a folder with manifest.json and rootfs.erofs, which has a name already. You must be able to
    /// read it yourself. The image must be for linux/amd64.
    #[command(allow_missing_positional = true)]
    Import {
        /// The name that the image is to have.
        name: Option<String>,
        /// The image.
        path: PathBuf,
    },
    /// Fetches an image from an OCI registry, and takes it into the agent's store.
    ///
    /// It is fetched by this command, with your rights, and not by the agent. What a break leaves is kept in
    /// ~/.cache/secovia/pull and gone on with by the next pull. Without TLS only registries on this machine are
    /// spoken to, and those in `images.insecure_registries` of agent.toml.
    Pull(PullArgs),
    /// Lists the images.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes images that no microVM uses, the one used longest ago first, until all take no more than `images.quota` in
    /// agent.toml. The agent does so itself where an import needs room.
    Gc {
        /// Remove all that no microVM uses.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes images by name that no microVM uses.
    Rm {
        /// Names of images.
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
    },
}

/// Fetches an image.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// REGISTRY/REPOSITORY:TAG, or REGISTRY/REPOSITORY@DIGEST.
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The name that the image is to have; the last part of its repository where none is given.
    #[arg(long)]
    pub name: Option<String>,
    /// Who you are to the registry: a file of yours that nobody else may read, as `docker login` or `skopeo login
    /// --authfile` writes it.
    #[arg(long, value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,
    /// The agent's configuration: it says which registries do without TLS, and how large an image may be.
    #[arg(long, value_name = "FILE", default_value = "/etc/secovia/agent.toml")]
    pub config: PathBuf,
}

/// Asks what is lent.
#[derive(Debug, Args)]
pub(crate) struct OfferArgs {
    /// Show the sum behind each number.
    #[arg(long)]
    pub explain: bool,
    /// Print JSON: always with the sums.
    #[arg(long)]
    pub json: bool,
}

/// Takes the machine back.
#[derive(Debug, Args)]
pub(crate) struct ReclaimArgs {
    /// Do it now. There is no other way yet; the word is asked for because microVMs end by it.
    #[arg(long, required = true)]
    pub now: bool,
    /// Be done within this time: 10s, 2m; a bare number is seconds. What agent.toml says where none is given.
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    pub deadline: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Shows the records, oldest first.
    Show {
        /// Only the last N.
        #[arg(long, value_name = "N")]
        tail: Option<usize>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Recomputes the chain of hashes, and names the first line that is wrong.
    Verify {
        /// Verify these files instead of the agent's log, oldest first; needs no agent.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Looks at the host.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The agent's configuration: it says where kernel, VMM and state are.
    #[arg(long, value_name = "FILE", default_value = "/etc/secovia/agent.toml")]
    pub config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks for JSON.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Names a shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    pub shell: Shell,
}

/// Asks for manual pages.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory; otherwise the main page goes to standard output.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
