//! `pool`: handed over to `secovia-pool`, which alone speaks Kubernetes. So this program stays small, and links no TLS for
//! it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

const PROGRAM: &str = "secovia-pool";

/// Becomes that program; returns only where it cannot.
pub(super) fn hand_over(socket: &Path, args: &[OsString]) -> Failure {
    let program = beside(std::env::current_exe().ok());
    let error = Command::new(&program)
        .env("SECOVIA_SOCKET", socket)
        .args(args)
        .exec();
    Failure::other(format!(
        "pool: run {}: {error}; it comes with the package of this command",
        program.display()
    ))
}

/// The one that was installed with this command, or else any in the path.
fn beside(own: Option<PathBuf>) -> PathBuf {
    let beside = own.and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PROGRAM.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_installed_with_this_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let own = || Some(dir.path().join("secovia"));
        assert_eq!(beside(own()), Path::new(PROGRAM));
        std::fs::write(dir.path().join(PROGRAM), "").unwrap();
        assert_eq!(beside(own()), dir.path().join(PROGRAM));
        assert_eq!(beside(None), Path::new(PROGRAM));
    }
}
