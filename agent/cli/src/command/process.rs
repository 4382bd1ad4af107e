//! `run` and `exec`: processes in a guest, with their streams at this end.

use std::collections::BTreeMap;
use std::ffi::OsString;

use secovia_agent_api::client::{Client, ClientError};
use secovia_agent_api::{Vm, VmCreate};
use secovia_guest_protocol::{GuestErrorCode, ProcessSpec};

use super::started::started;
use crate::args::{EnvVar, ExecArgs, RunArgs};
use crate::failure::{FAILED, Failure, INTERRUPTED};
use crate::output;
use crate::session::console::{Console, window_size};
use crate::session::drive::drive;
use crate::session::follow::follow;
use crate::session::pump::{Outcome, Pump, Purpose};
use crate::terminal;

/// What a shell shows for a program that does not exist, and for one that cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// `secovia run`.
pub(super) async fn run(client: &Client, args: RunArgs) -> Result<u8, Failure> {
    let (detach, tty, interactive) = (args.detach, args.tty, args.interactive);
    let operation = format!("run {}", args.image);
    let create = request(args)?;
    // Before anything is started: a signal from here on must not leave it unattended.
    let console = if detach {
        None
    } else {
        Some(console(tty, interactive)?)
    };
    let vm = client
        .create_vm(&create)
        .await
        .map_err(Failure::agent(operation))?;
    match console {
        Some(console) => follow(client, &vm, interactive, console).await,
        None => detached(client, &vm).await,
    }
}

fn request(args: RunArgs) -> Result<VmCreate, Failure> {
    if args.rm && args.restart != secovia_agent_api::RestartPolicy::No {
        return Err(Failure::usage(format!(
            "run {}: --rm removes what --restart {} would start again; leave one of them out",
            args.image, args.restart
        )));
    }
    let mut create = VmCreate::new(args.image);
    create.name = args.name;
    create.command = args.command;
    create.env = environment(args.env, args.tty, |key| std::env::var_os(key))?;
    create.user = args.user;
    create.working_dir = args.workdir;
    create.cpus = args.cpus;
    create.cpu_millis = args.cpu_share;
    create.memory_mib = args.memory.0;
    create.disk_mib = args.disk.map(|size| size.0);
    create.network = args.network;
    create.publish = args.publish;
    create.restart = args.restart;
    create.rm = args.rm;
    create.tty = args.tty.then(terminal::size);
    create.stdin = args.interactive;
    create.attach = !args.detach;
    Ok(create)
}

/// Returns when the workload runs, so that a start that fails is told here and now.
async fn detached(client: &Client, vm: &Vm) -> Result<u8, Failure> {
    let vm = started(client, "run", vm).await?;
    output::print(&format!("{}\n", vm.name))?;
    Ok(0)
}

/// `secovia exec`.
pub(super) async fn exec(client: &Client, args: ExecArgs) -> Result<u8, Failure> {
    let operation = format!("exec {}", args.name);
    let mut console = console(args.tty, args.interactive)?;
    let agent = |error: ClientError| Failure::agent(operation.clone())(error);
    let vm = client.vm(&args.name).await.map_err(agent)?;
    let purpose = Purpose::Exec {
        container: args.container,
        process: process(&vm, args.command, args.env, args.user, args.workdir, args.tty)?,
        stdin: args.interactive,
    };
    let stream = tokio::select! {
        stream = client.exec(&vm.name) => stream.map_err(agent)?,
        _ = console.signals.next_plea() => return Ok(INTERRUPTED),
    };
    let mut pump = Pump::new(purpose, args.tty);
    let outcome = drive(stream, &mut pump, &mut console)
        .await
        .map_err(|error| Failure::other(format!("{operation}: carry the streams: {error}")))?;
    match outcome {
        Outcome::Exit(status) => {
            console.outputs.finish().await;
            Ok(status.code().clamp(0, 255) as u8)
        }
        Outcome::Refused(error) => Err(Failure::Other {
            message: format!("{operation}: {error}"),
            status: match error.code {
                GuestErrorCode::NotFound => NOT_FOUND,
                GuestErrorCode::NotExecutable => NOT_EXECUTABLE,
                GuestErrorCode::BadRequest
                | GuestErrorCode::AlreadyStarted
                | GuestErrorCode::NotRunning
                | GuestErrorCode::NoSuchUser
                | GuestErrorCode::NoSuchContainer
                | GuestErrorCode::Failed => FAILED,
            },
        }),
        Outcome::HungUp => Err(Failure::other(format!(
            "{operation}: the connection to the guest broke before the command ended; `secovia inspect {}` says \
             whether the microVM is still there",
            args.name
        ))),
        Outcome::Abandoned => Ok(INTERRUPTED),
        Outcome::Unread => Err(Failure::OutputClosed),
    }
}

/// A process beside the workload, in the workload's world where nothing else is said.
fn process(
    vm: &Vm,
    command: Vec<String>,
    env: Vec<EnvVar>,
    user: Option<String>,
    workdir: Option<String>,
    tty: bool,
) -> Result<ProcessSpec, Failure> {
    let mut merged = vm.env.clone();
    merged.extend(environment(env, tty, |key| std::env::var_os(key))?);
    Ok(ProcessSpec {
        argv: command,
        env: merged,
        cwd: workdir.or_else(|| vm.working_dir.clone()),
        user: user.or_else(|| vm.user.clone()),
        tty: tty.then(window_size),
    })
}

/// The variables that were asked for, and for a terminal its kind.
fn environment(
    variables: Vec<EnvVar>,
    tty: bool,
    here: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut environment = BTreeMap::new();
    if tty && let Some(term) = here("TERM").and_then(|term| term.into_string().ok()) {
        environment.insert("TERM".to_string(), term);
    }
    for EnvVar { key, value } in variables {
        let value = match (value, here(&key)) {
            (Some(value), _) => value,
            (None, Some(value)) => value.into_string().map_err(|_| {
                Failure::usage(format!(
                    "--env {key}: its value here is not UTF-8; give it as {key}=VALUE"
                ))
            })?,
            // As a shell does: what is not set here is not set there.
            (None, None) => continue,
        };
        environment.insert(key, value);
    }
    Ok(environment)
}

fn console(tty: bool, interactive: bool) -> Result<Console, Failure> {
    Console::open(tty, interactive)
        .map_err(|error| Failure::other(format!("take over the terminal: {error}")))
}

#[cfg(test)]
mod tests {
    use secovia_agent_api::VmState;

    use super::*;

    #[test]
    fn the_environment_takes_values_from_here_where_none_is_given() {
        let here = |key: &str| match key {
            "TERM" => Some("xterm".into()),
            "HOME" => Some("/home/x".into()),
            _ => None,
        };
        let var = |text: &str| text.parse::<EnvVar>().unwrap();
        let variables = || vec![var("A=b=c"), var("HOME"), var("NOWHERE"), var("EMPTY=")];
        let environment = |tty| super::environment(variables(), tty, here).unwrap();
        let plain = environment(false);
        let pairs: Vec<(&str, &str)> = plain.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "b=c"), ("EMPTY", ""), ("HOME", "/home/x")]);
        assert_eq!(environment(true)["TERM"], "xterm");
        let chosen = super::environment(vec![var("TERM=dumb")], true, here).unwrap();
        assert_eq!(chosen["TERM"], "dumb");
    }

    #[test]
    fn exec_runs_in_the_workloads_world() {
        let mut vm = crate::output::tests::vm("web", VmState::Running);
        vm.env.insert("PATH".into(), "/bin".into());
        vm.user = Some("www".into());
        vm.working_dir = Some("/srv".into());
        let spec = process(
            &vm,
            vec!["id".into()],
            vec!["PATH=/x".parse().unwrap()],
            None,
            Some("/".into()),
            false,
        )
        .unwrap();
        assert_eq!(spec.env["PATH"], "/x");
        assert_eq!(spec.user.as_deref(), Some("www"));
        assert_eq!(spec.cwd.as_deref(), Some("/"));
        assert_eq!(spec.tty, None);
    }
}
