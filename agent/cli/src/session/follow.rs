//! Follows a workload to its end, also over a restart of the agent: microVMs outlive it.

#[cfg(test)]
mod tests;

use std::io::Write;
use std::time::Duration;

use secovia_agent_api::client::{Client, ClientError, GuestStream};
use secovia_agent_api::{ErrorCode, KillRequest, RestartPolicy, Vm, VmState, WaitUntil};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::console::Console;
use super::drive::drive;
use super::pump::{Outcome, Pump, Purpose};
use crate::failure::{FAILED, Failure, INTERRUPTED, tell};
use crate::terminal;

/// How long the agent may be away before it is given up.
const ABSENCE: Duration = Duration::from_secs(60);
/// A session that lasted so long had begun well.
const STABLE: Duration = Duration::from_secs(5);
/// How long a machine may take to go after its workload did.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two tries to reach it.
const RETRY: Duration = Duration::from_millis(200);
/// After so long a boot is worth a word.
const SLOW: Duration = Duration::from_millis(1500);

/// What to do after a connection was lost or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// The workload may still be there: attach again.
    Again,
    /// It is about to end: wait for it.
    Wait,
    /// It ended with this status.
    Ended(u8),
    /// It failed: what to tell, and the status.
    Failed(String, u8),
}

/// Attaches to the workload of `vm`, which waits for it, and gives its status when it has ended.
pub(crate) async fn follow(
    client: &Client,
    vm: &Vm,
    stdin: bool,
    mut console: Console,
) -> Result<u8, Failure> {
    // Asked for at once: a microVM that removes itself can be asked nothing afterwards.
    let ended = tokio::spawn({
        let (client, id) = (client.clone(), vm.id.clone());
        async move { client.wait_vm(&id, WaitUntil::Ended).await }
    });
    let mut followed = Followed {
        client,
        vm,
        ended: Some(ended),
        pump: Pump::new(Purpose::Attach { stdin }, console.tty),
    };
    let result = followed.until_the_end(&mut console).await;
    if let Ok(End::Ended(_)) = result {
        // The output first: it is what the person waits for.
        console.outputs.finish().await;
        tokio::select! {
            () = followed.settled() => {}
            _ = console.signals.next_plea() => {}
        }
    }
    result.map(|end| match end {
        End::Ended(status) | End::Left(status) => status,
    })
}

/// How following ended.
enum End {
    /// With the workload, which had this status.
    Ended(u8),
    /// The person left; the workload goes on.
    Left(u8),
}

struct Followed<'a> {
    client: &'a Client,
    vm: &'a Vm,
    /// The answer to the question how the microVM ended; until it is taken.
    ended: Option<JoinHandle<Result<Vm, ClientError>>>,
    pump: Pump,
}

impl Followed<'_> {
    async fn until_the_end(&mut self, console: &mut Console) -> Result<End, Failure> {
        let name = &self.vm.name;
        let mut lost_at: Option<Instant> = None;
        loop {
            let refusal = match self.attach(console).await? {
                Attached::Interrupted => return Ok(End::Ended(INTERRUPTED)),
                Attached::Refused(error) => Some(error),
                Attached::Stream(stream) => {
                    let begun = Instant::now();
                    let outcome = drive(stream, &mut self.pump, console)
                        .await
                        .map_err(|error| Failure::other(format!("run {name}: carry the streams: {error}")))?;
                    // A guest that hangs up at once, again and again, is not followed for ever.
                    if begun.elapsed() > STABLE {
                        lost_at = None;
                    }
                    match outcome {
                        Outcome::Exit(status) => return Ok(End::Ended(status.code().clamp(0, 255) as u8)),
                        Outcome::Abandoned => {
                            tell(&format!("{name} goes on; `secovia kill {name}` ends it"));
                            return Ok(End::Left(INTERRUPTED));
                        }
                        Outcome::Unread => return Err(Failure::OutputClosed),
                        Outcome::Refused(error) => {
                            return Err(Failure::other(format!("run {name}: {error}")));
                        }
                        Outcome::HungUp => None,
                    }
                }
            };
            let since = *lost_at.get_or_insert_with(Instant::now);
            match self.next().await {
                Ok(Next::Again) => match refusal {
                    Some(error) if !error.is_absence() => {
                        return Err(Failure::agent(format!("run {name}"))(error));
                    }
                    Some(_) | None => {}
                },
                Ok(Next::Wait) => {
                    if let Ok(Ok(vm)) =
                        timeout(ABSENCE, self.client.wait_vm(&self.vm.id, WaitUntil::Ended)).await
                        && let Next::Ended(status) = after_loss(&vm)
                    {
                        self.cut_short();
                        return Ok(End::Ended(status));
                    }
                }
                Ok(Next::Ended(status)) => {
                    self.cut_short();
                    return Ok(End::Ended(status));
                }
                Ok(Next::Failed(message, status)) => return Err(Failure::Other { message, status }),
                Err(error) if !error.is_absence() => {
                    return Err(Failure::agent(format!("run {name}"))(error));
                }
                Err(_) => {}
            }
            if since.elapsed() > ABSENCE {
                return Err(Failure::other(format!(
                    "run {name}: lost the connection, and it could not be taken up again in {} s; the microVM may still \
                     run: see `secovia ps`, `secovia logs {name}`",
                    ABSENCE.as_secs()
                )));
            }
            sleep(RETRY).await;
        }
    }

    /// Waits for the guest; a person who is tired of that ends the microVM with it.
    async fn attach(&self, console: &mut Console) -> Result<Attached, Failure> {
        let progress = Progress::new();
        let attached = self.client.attach(&self.vm.id);
        tokio::pin!(attached);
        let mut told = false;
        loop {
            tokio::select! {
                result = &mut attached => {
                    progress.clear(told);
                    return Ok(match result {
                        Ok(stream) => Attached::Stream(stream),
                        Err(error) => Attached::Refused(error),
                    });
                }
                _ = console.signals.next_plea() => {
                    progress.clear(told);
                    let request = KillRequest::default();
                    let killed = self.client.kill_vm(&self.vm.id, &request);
                    tokio::select! {
                        result = killed => match result {
                            Ok(_) => {}
                            // It was faster.
                            Err(error) if error.code() == Some(ErrorCode::VmNotFound) => {}
                            Err(error) => return Err(Failure::agent(format!("kill {}", self.vm.name))(error)),
                        },
                        _ = console.signals.next_plea() => {}
                    }
                    return Ok(Attached::Interrupted);
                }
                () = sleep(SLOW), if !told => {
                    told = true;
                    progress.show(&self.vm.name);
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Next, ClientError> {
        match self.client.vm(&self.vm.id).await {
            Ok(vm) => Ok(after_loss(&vm)),
            Err(error) if error.code() == Some(ErrorCode::VmNotFound) => {
                // The answer to the early question is there, or on its way.
                match self.ended_as(Duration::from_secs(2)).await {
                    Some(vm) => Ok(after_loss(&vm)),
                    None => Ok(Next::Failed(
                        format!(
                            "run {}: it was removed before its status could be read",
                            self.vm.name
                        ),
                        FAILED,
                    )),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The microVM as it ended, if that is told in time.
    async fn ended_as(&mut self, patience: Duration) -> Option<Vm> {
        match timeout(patience, self.ended.take()?).await {
            Ok(Ok(Ok(vm))) => Some(vm),
            Ok(_) | Err(_) => None,
        }
    }

    /// Waits until the machine is gone too, so that what is typed next finds name and memory free. A policy may start
    /// it again at once: then there is nothing to wait for.
    async fn settled(&mut self) {
        if self.vm.restart != RestartPolicy::No {
            return;
        }
        let deadline = Instant::now() + SETTLED;
        self.ended_as(SETTLED).await;
        while self.vm.rm && Instant::now() < deadline {
            match self.client.vm(&self.vm.id).await {
                Ok(_) => sleep(Duration::from_millis(10)).await,
                Err(_) => return,
            }
        }
    }

    /// The status is known, but the connection broke before all output had come.
    fn cut_short(&self) {
        let name = &self.vm.name;
        tell(&format!(
            "the connection to {name} broke before its end: the last of its output may be missing here, \
             see `secovia logs {name}`"
        ));
    }
}

enum Attached {
    Stream(GuestStream),
    Refused(ClientError),
    Interrupted,
}

/// A microVM that this session was following, and is not any more.
fn after_loss(vm: &Vm) -> Next {
    let name = &vm.name;
    match &vm.state {
        VmState::Starting | VmState::Running => Next::Again,
        VmState::Stopping => Next::Wait,
        VmState::Exited { code } => Next::Ended((*code).clamp(0, 255) as u8),
        VmState::Failed { reason, code } => Next::Failed(
            format!("run {name}: {reason}"),
            code.map_or(FAILED, |code| code.clamp(0, 255) as u8),
        ),
        VmState::BackOff { reason, .. } => Next::Failed(
            format!("run {name}: {reason}; it will be started again, `secovia stop {name}` prevents that"),
            FAILED,
        ),
        VmState::Created => Next::Failed(format!("run {name}: it was never started"), FAILED),
    }
}

/// A word about a slow boot, where a person is there to read it.
struct Progress {
    person: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            person: terminal::stderr_is_terminal(),
        }
    }

    fn show(&self, name: &str) {
        if self.person {
            let _ = write!(std::io::stderr(), "starting {name} ...");
        }
    }

    fn clear(&self, told: bool) {
        if self.person && told {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
