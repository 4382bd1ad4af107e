//! Hands rules to nft(8).

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program cannot be run.
    #[error("run nft for the rules of the network: {0}; install nftables")]
    Run(io::Error),
    /// It refused.
    #[error(
        "nft refused the rules of the network: {0}; the kernel needs nf_tables with NAT, fib and the bridge family"
    )]
    Refused(String),
}

/// Whether the host's table is there, in this thread's network namespace.
pub(super) fn is_there() -> Result<bool, NftError> {
    let status = Command::new("nft")
        .args(["--terse", "list", "table", "inet", "secovia"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(NftError::Run)?;
    Ok(status.success())
}

/// Puts `rules` in force in this thread's network namespace: all of them or none.
pub(super) fn apply(rules: &str) -> Result<(), NftError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read all says why.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(NftError::Refused(said.trim().replace('\n', "; ")))
}
