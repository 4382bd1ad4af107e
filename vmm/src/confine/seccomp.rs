//! Filters of system calls: which there are, and a thread's way under its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io, process};

use seccompiler::sock_filter;
use secovia_seccomp::{Filter, List, Rules, RulesError};
use secovia_vmm_api::Exit;

use super::violation;

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// Why a thread is not under its filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// A file of rules cannot be read.
    #[error("--seccomp-filter: {path}: {source}; give a readable file of rules")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of rules does not hold together.
    #[error("--seccomp-filter: {path}: {source}")]
    Rules {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RulesError,
    },
    /// The handler of violations cannot be installed.
    #[error("install the handler of SIGSYS: {0}")]
    Handler(io::Error),
    /// The kernel refused a filter.
    #[error(
        "install the filter of system calls {list}: {reason}; Linux 4.14 or newer with CONFIG_SECCOMP_FILTER has them"
    )]
    Install {
        /// The filter's name.
        list: &'static str,
        /// What the kernel said.
        reason: String,
    },
}

impl SeccompError {
    /// The exit status: whether the command line or the host is to blame.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } | Self::Rules { .. } => Exit::BadConfiguration,
            Self::Handler(_) | Self::Install { .. } => Exit::Internal,
        }
    }
}

/// The filters of a process. Shared by its threads, each of which goes under its own by [`Seccomp::enter`].
#[derive(Debug, Clone)]
pub struct Seccomp(Source);

#[derive(Debug, Clone)]
enum Source {
    BuiltIn,
    /// In the order of [`List::ALL`].
    File(Arc<[Filter; List::ALL.len()]>),
    Off,
}

impl Seccomp {
    /// The filters of this version.
    pub fn built_in() -> Self {
        Self(Source::BuiltIn)
    }

    /// Those that a file of rules gives, in the form of `vmm/seccomp/rules.json`.
    pub fn of_file(path: &Path) -> Result<Self, SeccompError> {
        let text = fs::read_to_string(path).map_err(|source| SeccompError::Read {
            path: path.into(),
            source,
        })?;
        let wrong = |source| SeccompError::Rules {
            path: path.into(),
            source,
        };
        let rules = Rules::parse(&text).map_err(wrong)?;
        let [start, main, vcpu, worker, api] = List::ALL.map(|list| rules.compile(list).map_err(wrong));
        Ok(Self(Source::File(Arc::new([
            start?, main?, vcpu?, worker?, api?,
        ]))))
    }

    /// No filters: every call is allowed.
    pub fn off() -> Self {
        Self(Source::Off)
    }

    /// Puts this thread, and every thread that it starts, under the filter of `list`, on top of those that it is under
    /// already. Nothing takes a filter off again.
    pub fn enter(&self, list: List) -> Result<(), SeccompError> {
        let filter = match &self.0 {
            Source::Off => return Ok(()),
            Source::BuiltIn => Filter::of(built_in(list)),
            Source::File(filters) => filters[list as usize].clone(),
        };
        violation::expect_on_this_thread(list).map_err(SeccompError::Handler)?;
        let filter = filter.for_process(process::id());
        seccompiler::apply_filter(filter.program()).map_err(|error| SeccompError::Install {
            list: list.name(),
            reason: error.to_string(),
        })
    }
}

fn built_in(list: List) -> &'static [sock_filter] {
    match list {
        List::Start => START,
        List::Main => MAIN,
        List::Vcpu => VCPU,
        List::Worker => WORKER,
        List::Api => API,
    }
}
