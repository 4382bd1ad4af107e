//! `stop`, `start`, `rm`, `kill`, `wait`: each for several microVMs at once.

use secovia_agent_api::client::Client;
use secovia_agent_api::{KillRequest, StopRequest, Vm, VmState, WaitUntil};

use super::started::started;
use crate::args::{KillArgs, NamesArgs, RmArgs, StopArgs, WaitArgs};
use crate::failure::{FAILED, Failure};
use crate::output::{human, print, print_json};

/// `secovia stop`.
pub(super) async fn stop(client: &Client, args: StopArgs) -> Result<u8, Failure> {
    let request = StopRequest { grace_s: args.grace };
    let work = |client: Client, name: String| {
        let request = request.clone();
        async move {
            client
                .stop_vm(&name, &request)
                .await
                .map_err(Failure::agent(format!("stop {name}")))
        }
    };
    named(all(client, args.names, work).await)
}

/// `secovia start`.
pub(super) async fn start(client: &Client, args: NamesArgs) -> Result<u8, Failure> {
    let work = |client: Client, name: String| async move {
        let vm = client
            .start_vm(&name)
            .await
            .map_err(Failure::agent(format!("start {name}")))?;
        started(&client, "start", &vm).await
    };
    named(all(client, args.names, work).await)
}

/// `secovia rm`.
pub(super) async fn rm(client: &Client, args: RmArgs) -> Result<u8, Failure> {
    let force = args.force;
    let work = |client: Client, name: String| async move {
        client
            .delete_vm(&name, force)
            .await
            .map_err(Failure::agent(format!("rm {name}")))
    };
    named(all(client, args.names, work).await)
}

/// `secovia kill`.
pub(super) async fn kill(client: &Client, args: KillArgs) -> Result<u8, Failure> {
    let signal = args.signal;
    let work = |client: Client, name: String| async move {
        client
            .kill_vm(&name, &KillRequest { signal })
            .await
            .map_err(Failure::agent(format!("kill {name}")))
    };
    named(all(client, args.names, work).await)
}

/// `secovia wait`.
pub(super) async fn wait(client: &Client, args: WaitArgs) -> Result<u8, Failure> {
    let work = |client: Client, name: String| async move {
        client
            .wait_vm(&name, WaitUntil::Ended)
            .await
            .map_err(Failure::agent(format!("wait {name}")))
    };
    let mut status = 0;
    let mut vms = Vec::new();
    for (_, result) in all(client, args.names, work).await {
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
    names: Vec<String>,
    work: impl Fn(Client, String) -> F,
) -> Vec<(String, Result<T, Failure>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
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
        let result = match task.await {
            Ok(result) => result,
            Err(error) => Err(Failure::other(format!("{name}: {error}"))),
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
