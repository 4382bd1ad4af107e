//! Waits until a microVM that is being started runs, or has failed to.

use std::time::Duration;

use secovia_agent_api::client::{Client, ClientError};
use secovia_agent_api::{Vm, VmState, WaitUntil};
use tokio::time::{Instant, sleep};

use crate::failure::{FAILED, Failure};

/// How long an agent that is restarting is waited for.
const ABSENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// The microVM as it is after its start; a start that failed is told as a failure of `operation`.
pub(super) async fn started(client: &Client, operation: &str, vm: &Vm) -> Result<Vm, Failure> {
    // Asked for at once: a microVM that removes itself can be asked nothing afterwards.
    let ended = tokio::spawn({
        let (client, id) = (client.clone(), vm.id.clone());
        async move { wait(&client, &id, WaitUntil::Ended).await }
    });
    let failed = Failure::agent(format!("{operation} {}", vm.name));
    let vm = match wait(client, &vm.id, WaitUntil::Started).await {
        // A guest that could not start its command is on its way out; only its end has the reason.
        Ok(vm) if vm.state == VmState::Stopping => match ended.await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => vm,
        },
        result => {
            ended.abort();
            result.map_err(failed)?
        }
    };
    judge(operation, vm)
}

/// Waits, also for an agent that is restarting.
async fn wait(client: &Client, id: &str, until: WaitUntil) -> Result<Vm, ClientError> {
    let deadline = Instant::now() + ABSENCE;
    loop {
        match client.wait_vm(id, until).await {
            Err(error) if error.is_absence() && Instant::now() < deadline => sleep(RETRY).await,
            result => return result,
        }
    }
}

fn judge(operation: &str, vm: Vm) -> Result<Vm, Failure> {
    let name = &vm.name;
    match &vm.state {
        VmState::Failed { reason, code } => Err(Failure::Other {
            message: format!("{operation} {name}: {reason}"),
            status: code.map_or(FAILED, |code| code.clamp(0, 255) as u8),
        }),
        VmState::BackOff { reason, .. } => Err(Failure::other(format!(
            "{operation} {name}: {reason}; it will be started again, `secovia stop {name}` prevents that"
        ))),
        VmState::Created
        | VmState::Starting
        | VmState::Running
        | VmState::Stopping
        | VmState::Exited { .. } => Ok(vm),
    }
}
