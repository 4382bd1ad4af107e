//! All that is looked up in the image before a command starts.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid};
use secovia_guest_protocol::{GuestError, GuestErrorCode, ProcessSpec};

use crate::program::{DEFAULT_PATH, ProgramError, find};
use crate::sys;
use crate::users::{Identity, resolve};

pub(crate) fn refused(code: GuestErrorCode, message: impl ToString) -> GuestError {
    GuestError {
        code,
        message: message.to_string(),
    }
}

/// All of it.
pub(crate) struct Plan {
    program: PathBuf,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: CString,
    identity: Option<Identity>,
}

impl Plan {
    /// Looks everything up; an error names what is missing.
    pub(crate) fn new(spec: &ProcessSpec) -> Result<Self, GuestError> {
        let bad = |message: &str| refused(GuestErrorCode::BadRequest, message);
        let name = spec.argv.first().ok_or_else(|| bad("the command is empty"))?;
        let mut words = spec.argv.iter().chain(spec.env.keys()).chain(spec.env.values());
        if words.any(|word| word.contains('\0')) {
            return Err(bad("the command or its environment holds a zero byte"));
        }
        if let Some(key) = spec.env.keys().find(|key| key.is_empty() || key.contains('=')) {
            return Err(bad(&format!(
                "{key:?} cannot be the name of an environment variable"
            )));
        }

        let (passwd, group) = (image_file("/etc/passwd"), image_file("/etc/group"));
        let look_up = |user: &str| resolve(user, &passwd, &group);
        let identity = match &spec.user {
            Some(user) => Some(look_up(user).map_err(|e| refused(GuestErrorCode::NoSuchUser, e))?),
            None => None,
        };
        let home = match &identity {
            Some(identity) => identity.home.clone(),
            None => look_up("0").map_or_else(|_| "/".to_string(), |root| root.home),
        };
        let mut env = spec.env.clone();
        env.entry("HOME".to_string()).or_insert(home);
        if spec.tty.is_some() {
            env.entry("TERM".to_string())
                .or_insert_with(|| "xterm".to_string());
        }
        let path = env
            .entry("PATH".to_string())
            .or_insert_with(|| DEFAULT_PATH.to_string())
            .clone();

        let cwd = spec.cwd.as_deref().unwrap_or("/");
        if !Path::new(cwd).is_absolute() || !Path::new(cwd).is_dir() {
            let message = format!("working directory {cwd:?} is not a directory of the image");
            return Err(refused(GuestErrorCode::BadRequest, message));
        }
        let program = find(name, &path, Path::new(cwd)).map_err(|error| {
            let code = match error {
                ProgramError::NotFound(_) => GuestErrorCode::NotFound,
                ProgramError::NotExecutable(_) => GuestErrorCode::NotExecutable,
            };
            refused(code, error)
        })?;
        let cwd = CString::new(cwd).map_err(|_| bad("the working directory holds a zero byte"))?;
        Ok(Self {
            program,
            argv: spec.argv.clone(),
            env: env.into_iter().collect(),
            cwd,
            identity,
        })
    }

    /// The file that will be executed.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// A command whose streams are still to be set.
    /// With `own_proc` it sees the processes of its own numbers in `/proc`.
    pub(crate) fn command(&self, terminal: bool, own_proc: bool) -> Command {
        let mut command = Command::new(&self.program);
        let mut argv = self.argv.iter();
        if let Some(name) = argv.next() {
            command.arg0(name);
        }
        command
            .args(argv)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let identity = self.identity.as_ref().map(|identity| {
            let groups = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid), groups)
        });
        sys::prepare(
            &mut command,
            sys::Setup {
                terminal,
                own_proc,
                identity,
                cwd: self.cwd.clone(),
            },
        );
        command
    }
}

/// A small text file of the image, empty where there is none.
fn image_file(path: &str) -> String {
    use std::io::Read;
    const LIMIT: u64 = 1024 * 1024;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
