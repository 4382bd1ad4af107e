//! `secovia-pool`: the node's part in its region's Kubernetes.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("secovia-pool: this node is in no pool; joining one is not there yet");
    ExitCode::FAILURE
}
