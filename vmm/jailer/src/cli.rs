//! The command line. Its words are Firecracker's jailer's where that has them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::options::{
    self, CgroupSetting, CgroupVersion, Device, FileGrant, Id, Limit, Name, Options, ValueError,
};

#[cfg(test)]
mod tests;

/// Where the jails are, unless the caller says otherwise.
const CHROOT_BASE: &str = "/srv/jailer";

/// What `--help` prints.
pub const HELP: &str = "\
Starts one VMM in a jail: a root of its own with nothing but the files named here, namespaces, a user, limits.

usage: secovia-jailer --id ID --exec-file FILE --uid UID --gid GID [OPTION]... [-- VMM-ARGUMENT...]

As Firecracker's jailer:
  --id ID                      the machine's name: 1 to 64 letters, digits and dashes
  --exec-file FILE             the VMM: a static program
  --uid UID, --gid GID         the machine's own user and group, not root
  --chroot-base-dir DIR        jails are below it [default: /srv/jailer]
  --netns FILE                 join this network namespace [default: a new one with nothing in it]
  --cgroup FILE=VALUE          set a file of the machine's own cgroup, such as memory.max=268435456 (repeat)
  --cgroup-version 1|2         [default: 2, or 1 where the host has hierarchies of version 1]
  --parent-cgroup PATH         the machine's cgroup is PATH/ID [default: the name of the exec file, if there is a --cgroup]
  --resource-limit NAME=VALUE  fsize, no-file [default: 2048], core [default: 0], memlock, nproc, as (repeat)
  --new-pid-ns                 the VMM is process 1 of a new PID namespace, and a child of the jailer's parent; its
                               process ID is in DIR/EXEC-NAME/ID/vmm.pid before it runs, then the jailer exits with 0
  --daemonize                  a session of its own, standard streams from and to /dev/null

Beyond Firecracker's:
  --file SOURCE:NAME[:rw]      SOURCE is seen as /NAME in the jail; to be written only with :rw (repeat)
  --device NAME                also a node for tun or userfaultfd; kvm and urandom are always there (repeat)
  --keep-fd N                  leave this descriptor open; all others but 0, 1 and 2 are closed (repeat)
  --dry-run                    print what would be done, one step a line, and do nothing
  --json                       print it as JSON
  --version, --help            print that

The jail's root is DIR/EXEC-NAME/ID/root. It belongs to UID with mode 0700, and is left behind when the machine ends; who
starts the machine removes DIR/EXEC-NAME/ID then. Paths are given in full, and no symbolic link in them is followed
(but in that of --netns). A file that is to be written belongs to UID, or to root: then it is handed to UID; it has no
second hard link. The VMM is run as /EXEC-NAME --id ID VMM-ARGUMENT...; where these have an --id, none is added. Its
environment is empty, its folder is /, it has no capabilities.

Exit status: that of the VMM, which takes this process's place; with --new-pid-ns 0 once the VMM runs. 1 a step failed:
one line says which, on what, and what to do, and what was made is gone again (with --new-pid-ns the process, if it was
started, is a dead child of the jailer's parent, which waits for it). 2 wrong command line.
";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the VMM.
    Run(Box<Options>),
    /// Print what would be done.
    Show(Box<Options>, Format),
    /// Print the version.
    Version,
    /// Print how to use this.
    Help,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// A command line that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An unknown word, or one without its value.
    #[error("{0}; see secovia-jailer --help")]
    Word(#[from] lexopt::Error),
    /// A word is missing.
    #[error("{0} is missing; see secovia-jailer --help")]
    Missing(&'static str),
    /// A word is there twice.
    #[error("{0} is there twice; give it once")]
    Doubled(String),
    /// A value means nothing.
    #[error("{0}: {1}")]
    Value(&'static str, #[source] ValueError),
    /// A word that means nothing without another.
    #[error("{0} means nothing without {1}; give both or none")]
    Without(&'static str, &'static str),
}

/// Reads the arguments, without the program's name.
pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, CliError> {
    let mut args = args.into_iter().map(Into::into);
    // Taken apart here: lexopt hands what follows `--` on without saying that it did.
    let own: Vec<OsString> = args.by_ref().take_while(|word| word != "--").collect();
    let vmm_args = args
        .map(options::argument)
        .collect::<Result<_, _>>()
        .map_err(|error| CliError::Value("--", error))?;
    let mut words = Words::default();
    let mut parser = lexopt::Parser::from_args(own);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("version") => return Ok(Command::Version),
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(word) => {
                let word = known(word).ok_or_else(|| arg_error(word))?;
                words.take(word, &mut parser)?;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    words.command(vmm_args)
}

fn arg_error(word: &str) -> CliError {
    lexopt::Error::UnexpectedOption(format!("--{word}")).into()
}

/// The options that are no end by themselves.
const WORDS: [&str; 17] = [
    "--id",
    "--exec-file",
    "--uid",
    "--gid",
    "--chroot-base-dir",
    "--netns",
    "--cgroup",
    "--cgroup-version",
    "--parent-cgroup",
    "--resource-limit",
    "--new-pid-ns",
    "--daemonize",
    "--file",
    "--device",
    "--keep-fd",
    "--dry-run",
    "--json",
];

fn known(word: &str) -> Option<&'static str> {
    WORDS
        .into_iter()
        .find(|known| known.strip_prefix("--") == Some(word))
}

/// What was read so far.
#[derive(Default)]
struct Words {
    id: Option<Id>,
    exec: Option<(PathBuf, Name)>,
    uid: Option<u32>,
    gid: Option<u32>,
    chroot_base: Option<PathBuf>,
    netns: Option<PathBuf>,
    cgroups: Vec<CgroupSetting>,
    cgroup_version: Option<CgroupVersion>,
    parent_cgroup: Option<PathBuf>,
    limits: Vec<(Limit, u64)>,
    files: Vec<FileGrant>,
    devices: BTreeSet<Device>,
    keep_fds: BTreeSet<i32>,
    flags: BTreeSet<&'static str>,
}

impl Words {
    fn take(&mut self, word: &'static str, parser: &mut lexopt::Parser) -> Result<(), CliError> {
        if let "--new-pid-ns" | "--daemonize" | "--dry-run" | "--json" = word {
            return fresh(word, self.flags.insert(word));
        }
        let text = parser.value()?;
        let value = |error| CliError::Value(word, error);
        match word {
            "--id" => once(word, &mut self.id, Id::parse(&text).map_err(value)?),
            "--exec-file" => once(word, &mut self.exec, exec_file(&text).map_err(value)?),
            "--uid" => once(word, &mut self.uid, options::own_id(&text).map_err(value)?),
            "--gid" => once(word, &mut self.gid, options::own_id(&text).map_err(value)?),
            "--chroot-base-dir" => once(
                word,
                &mut self.chroot_base,
                options::full_path(&text).map_err(value)?,
            ),
            "--netns" => once(word, &mut self.netns, options::full_path(&text).map_err(value)?),
            "--cgroup" => {
                self.cgroups.push(CgroupSetting::parse(&text).map_err(value)?);
                Ok(())
            }
            "--cgroup-version" => once(
                word,
                &mut self.cgroup_version,
                CgroupVersion::parse(&text).map_err(value)?,
            ),
            "--parent-cgroup" => once(
                word,
                &mut self.parent_cgroup,
                options::cgroup_path(&text).map_err(value)?,
            ),
            "--resource-limit" => {
                let (limit, number) = Limit::parse(&text).map_err(value)?;
                let first = self.limits.iter().all(|(known, _)| *known != limit);
                self.limits.push((limit, number));
                fresh(&format!("{word} {}", limit.name()), first)
            }
            "--file" => {
                self.files.push(FileGrant::parse(&text).map_err(value)?);
                Ok(())
            }
            "--device" => {
                self.devices.insert(Device::parse(&text).map_err(value)?);
                Ok(())
            }
            "--keep-fd" => {
                let fd = options::descriptor(&text).map_err(value)?;
                fresh(&format!("{word} {fd}"), self.keep_fds.insert(fd))
            }
            _ => Err(arg_error(word)),
        }
    }

    fn command(self, vmm_args: Vec<OsString>) -> Result<Command, CliError> {
        let flag = |word| self.flags.contains(word);
        let (dry_run, json) = (flag("--dry-run"), flag("--json"));
        let (new_pid_ns, daemonize) = (flag("--new-pid-ns"), flag("--daemonize"));
        let id = self.id.ok_or(CliError::Missing("--id"))?;
        let (exec_file, exec_name) = self.exec.ok_or(CliError::Missing("--exec-file"))?;
        let mut devices = self.devices;
        devices.extend([Device::Kvm, Device::Urandom]);
        let mut names = BTreeSet::from([&exec_name]);
        for file in &self.files {
            fresh(
                &format!("/{} of --file", file.name.as_str()),
                names.insert(&file.name),
            )?;
        }
        let options = Box::new(Options {
            id,
            exec_file,
            exec_name,
            uid: self.uid.ok_or(CliError::Missing("--uid"))?,
            gid: self.gid.ok_or(CliError::Missing("--gid"))?,
            chroot_base: self.chroot_base.unwrap_or_else(|| CHROOT_BASE.into()),
            netns: self.netns,
            cgroups: self.cgroups,
            cgroup_version: self.cgroup_version,
            parent_cgroup: self.parent_cgroup,
            limits: self.limits,
            new_pid_ns,
            daemonize,
            files: self.files,
            devices,
            keep_fds: self.keep_fds,
            vmm_args,
        });
        match (dry_run, json) {
            (true, true) => Ok(Command::Show(options, Format::Json)),
            (true, false) => Ok(Command::Show(options, Format::Text)),
            (false, true) => Err(CliError::Without("--json", "--dry-run")),
            (false, false) => Ok(Command::Run(options)),
        }
    }
}

fn exec_file(text: &std::ffi::OsStr) -> Result<(PathBuf, Name), ValueError> {
    let path = options::full_path(text)?;
    let name = Name::parse(path.file_name().unwrap_or_default())?;
    Ok((path, name))
}

fn once<T>(word: &str, place: &mut Option<T>, value: T) -> Result<(), CliError> {
    fresh(word, place.replace(value).is_none())
}

fn fresh(word: &str, first: bool) -> Result<(), CliError> {
    if first {
        Ok(())
    } else {
        Err(CliError::Doubled(word.into()))
    }
}
