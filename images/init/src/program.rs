//! Which file a command's first word names.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The PATH of a command that brings none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why nothing can be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("program {0:?} was not found in the image")]
    NotFound(String),
    #[error("{} may not be executed", .0.display())]
    NotExecutable(PathBuf),
}

/// Finds `program`: with a slash it is a path, relative to `cwd`; without, the first executable file in `path`.
pub(crate) fn find(program: &str, path: &str, cwd: &Path) -> Result<PathBuf, ProgramError> {
    if program.contains('/') {
        let file = cwd.join(program);
        return match look(&file) {
            Found::Program => Ok(file),
            Found::Other => Err(ProgramError::NotExecutable(file)),
            Found::Nothing => Err(ProgramError::NotFound(program.to_string())),
        };
    }
    let mut other = None;
    if !program.is_empty() {
        for directory in path.split(':') {
            let file = cwd.join(directory).join(program);
            match look(&file) {
                Found::Program => return Ok(file),
                Found::Other => other = other.or(Some(file)),
                Found::Nothing => {}
            }
        }
    }
    Err(match other {
        Some(file) => ProgramError::NotExecutable(file),
        None => ProgramError::NotFound(program.to_string()),
    })
}

enum Found {
    Program,
    Other,
    Nothing,
}

fn look(file: &Path) -> Found {
    match std::fs::metadata(file) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Found::Program,
        Ok(_) => Found::Other,
        Err(_) => Found::Nothing,
    }
}

#[cfg(test)]
mod tests;
