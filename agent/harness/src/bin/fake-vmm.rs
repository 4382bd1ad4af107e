//! Stands in for `secovia-vmm`: takes its command line and its configuration, and serves a guest at the end of its
//! socket that has no machine. The guest's processes are the host's, in a process namespace of their own where that is
//! allowed, so that they end with this process as a machine's would.
//!
//! What the configuration names as the kernel says what kind of machine this is: `boot` serves the guest, `exit N`
//! says a last word and ends with status N, `hang` does nothing for ever.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode, Stdio, exit};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use secovia_init::children::Reaping;
use secovia_init::server::{Machine, Server};
use secovia_vmm_api::VmSpec;

/// The command-line word of the process that plays the guest.
const GUEST: &str = "--guest";

struct NoMachine;

impl Machine for NoMachine {
    fn set_hostname(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn started_after_ns(&self) -> u64 {
        1_000_000
    }

    fn power_off(&self) {
        exit(0);
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |key: &str| {
        words
            .iter()
            .position(|word| word == key)
            .and_then(|at| words.get(at + 1))
    };
    let result = match (after(GUEST), after("--config-file"), after("--id")) {
        (Some(config), ..) => guest(config),
        (None, Some(config), Some(_)) if words.iter().any(|word| word == "--no-api") => machine(config),
        _ => Err("usage: --config-file FILE --no-api --id ID".into()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("fake-vmm: {error}");
            ExitCode::from(2)
        }
    }
}

type Outcome = Result<u8, Box<dyn std::error::Error>>;

fn machine(config: &str) -> Outcome {
    let spec: VmSpec = serde_json::from_slice(&fs::read(config)?)?;
    let kernel = fs::read_to_string(&spec.boot_source.kernel_image_path)?;
    println!("console of a machine with the kernel {kernel:?}");
    match kernel.trim().split_once(' ') {
        Some(("exit", status)) => {
            eprintln!("fake-vmm: this machine ends at once");
            Ok(status.parse()?)
        }
        _ if kernel.trim() == "hang" => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        _ => {
            for drive in &spec.drives {
                fs::metadata(&drive.path_on_host)?;
            }
            // Without the right to do so the guest's processes are merely not ended with us.
            let _ = unshare(CloneFlags::CLONE_NEWPID);
            // The guest ends when this pipe does, that is with this process, whatever ends it.
            let mut guest = Command::new(std::env::current_exe()?)
                .args([GUEST, config])
                .stdin(Stdio::piped())
                .spawn()?;
            let _tether = guest.stdin.take();
            let status = guest.wait()?;
            Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1))
        }
    }
}

fn guest(config: &str) -> Outcome {
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        exit(1);
    });
    let spec: VmSpec = serde_json::from_slice(&fs::read(config)?)?;
    let vsock = spec.vsock.ok_or("the configuration has no vsock")?;
    let listener = UnixListener::bind(&vsock.uds_path)?;
    let server = Server::new(NoMachine, Reaping::Own)?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut line = [0; 13];
        if stream.read_exact(&mut line).is_ok()
            && line == *b"CONNECT 1024\n"
            && stream.write_all(b"OK 1073741824\n").is_ok()
        {
            server.session(stream.into());
        }
    }
}
