//! A program that is measured, in a jail or not.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::guest::{Jail, name};
use super::job::Error;

/// How it is started and ended.
pub(super) struct Subject<'a> {
    program: &'a Path,
    arguments: Vec<OsString>,
    jail: Option<&'a Jail>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(program: &'a Path, arguments: Vec<OsString>) -> Self {
        Self {
            program,
            arguments,
            jail: None,
        }
    }

    /// `program` is the jailer, which makes this jail.
    pub(super) fn jailed(program: &'a Path, jail: &'a Jail) -> Self {
        Self {
            program,
            arguments: jail.arguments(),
            jail: Some(jail),
        }
    }

    /// Its command line; its output is for the caller to read.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts it.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        command
            .spawn()
            .map_err(Error::host(format!("start {}", self.program.display())))
    }

    /// The process that the machine runs in. In a jail there is none before the guest's first output.
    pub(super) fn process(&self, child: &Child) -> Result<i32, Error> {
        match self.jail {
            None => i32::try_from(child.id()).map_err(|_| self.misbehaved("its process has no ID")),
            Some(jail) => jail.process(),
        }
    }

    /// Waits for the end of the machine's process; its status.
    pub(super) fn end(&self, child: &mut Child) -> Result<Option<i32>, Error> {
        let wait = || format!("wait for {}", self.program.display());
        let status = child.wait().map_err(Error::host(wait()))?;
        match self.jail {
            None => Ok(status.code()),
            // The jailer is gone; the machine is this program's own child.
            Some(jail) if status.success() => {
                let machine = waitpid(Pid::from_raw(jail.process()?), WaitOptions::empty());
                let machine = machine.map_err(|error| Error::host(wait())(error.into()))?;
                Ok(machine.and_then(|(_, status)| status.exit_status()))
            }
            Some(_) => Err(self.misbehaved(status.to_string())),
        }
    }

    /// Ends it by force, where it is still there.
    pub(super) fn kill(&self, child: &mut Child) {
        if let Some(process) = self.process(child).ok().and_then(Pid::from_raw) {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.end(child);
    }

    /// Removes what is left of it after its end.
    pub(super) fn clear(&self) -> Result<(), Error> {
        self.jail.map_or(Ok(()), Jail::remove)
    }

    pub(super) fn misbehaved(&self, reason: impl Into<String>) -> Error {
        Error::Program {
            program: name(self.program),
            reason: reason.into(),
        }
    }
}
