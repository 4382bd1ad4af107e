//! `stop`, `start`, `rm`, `kill`, `wait`: each for several microVMs at once.

use secovia_agent_api::client::{Client, ClientError};
use secovia_agent_api::{KillRequest, StopRequest, Vm, VmState, WaitUntil};

use crate::args::{KillArgs, NamesArgs, RmArgs, StopArgs, WaitArgs};
use crate::failure::{FAILED, Failure};
use crate::output::{human, print, print_json};

/// `secovia stop`.
pub(super) async fn stop(client: &Client, args: StopArgs) -> Result<u8, Failure> {
    let request = StopRequest { grace_s: args.grace };
    let work = |client: Client, name: String| {
        let request = request.clone();
        async move { client.stop_vm(&name, &request).await }
    };
    named(all(client, "stop", args.names, work).await)
}

/// `secovia start`.
pub(super) async fn start(client: &Client, args: NamesArgs) -> Result<u8, Failure> {
    let work = |client: Client, name: String| async move {
        let vm = client.start_vm(&name).await?;
        client.wait_vm(&vm.id, WaitUntil::Started).await
    };
    let mut done = Vec::new();
    for (name, result) in all(client, "start", args.names, work).await {
        done.push((name, result.and_then(started)));
    }
    named(done)
}

/// A start that failed is no answer of the agent's, but it is a failure.
fn started(vm: Vm) -> Result<Vm, Failure> {
    match &vm.state {
        VmState::Failed { reason, .. } | VmState::BackOff { reason, .. } => {
            Err(Failure::other(format!("start {}: {reason}", vm.name)))
        }
        VmState::Created
        | VmState::Starting
        | VmState::Running
        | VmState::Stopping
        | VmState::Exited { .. } => Ok(vm),
    }
}

/// `secovia rm`.
pub(super) async fn rm(client: &Client, args: RmArgs) -> Result<u8, Failure> {
    let force = args.force;
    let work = |client: Client, name: String| async move { client.delete_vm(&name, force).await };
    named(all(client, "rm", args.names, work).await)
}

/// `secovia kill`.
pub(super) async fn kill(client: &Client, args: KillArgs) -> Result<u8, Failure> {
    let signal = args.signal;
    let work =
        |client: Client, name: String| async move { client.kill_vm(&name, &KillRequest { signal }).await };
    named(all(client, "kill", args.names, work).await)
}

/// `secovia wait`.
pub(super) async fn wait(client: &Client, args: WaitArgs) -> Result<u8, Failure> {
    let work = |client: Client, name: String| async move { client.wait_vm(&name, WaitUntil::Ended).await };
    let mut status = 0;
    let mut vms = Vec::new();
    for (_, result) in all(client, "wait", args.names, work).await {
        match result {
            Ok(vm) => vms.push(vm),
            Err(failure) => {
                failure.tell();
                status = FAILED;
            }
        }
    }
    if args.json {
        print_json(&vms)?;
    } else {
        let now_ms = human::now_ms();
        let lines: String = vms.iter().map(|vm| ended(vm, now_ms) + "\n").collect();
        print(&lines)?;
    }
    Ok(status)
}

/// The status where there is one, else the state.
fn ended(vm: &Vm, now_ms: u64) -> String {
    match &vm.state {
        VmState::Exited { code } => code.to_string(),
        VmState::Failed { reason, .. } => format!("failed: {}", crate::output::printable(reason)),
        VmState::Created
        | VmState::Starting
        | VmState::Running
        | VmState::Stopping
        | VmState::BackOff { .. } => human::state(vm, now_ms),
    }
}

/// Does the work for all of them side by side; the results come in the order of the names.
async fn all<T, F>(
    client: &Client,
    operation: &str,
    names: Vec<String>,
    work: impl Fn(Client, String) -> F,
) -> Vec<(String, Result<T, Failure>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let tasks: Vec<_> = names
        .into_iter()
        .map(|name| {
            let task = tokio::spawn(work(client.clone(), name.clone()));
            (name, task)
        })
        .collect();
    let mut results = Vec::with_capacity(tasks.len());
    for (name, task) in tasks {
        let operation = format!("{operation} {name}");
        let result = match task.await {
            Ok(result) => result.map_err(Failure::agent(operation)),
            Err(error) => Err(Failure::other(format!("{operation}: {error}"))),
        };
        results.push((name, result));
    }
    results
}

/// Prints the names of those that are done, tells of the others.
fn named<T>(results: Vec<(String, Result<T, Failure>)>) -> Result<u8, Failure> {
    let mut failed = false;
    for (name, result) in results {
        match result {
            Ok(_) => print(&format!("{name}\n"))?,
            Err(failure) => {
                failure.tell();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(0) }
}
