//! PID 1's end of the guest protocol: sessions of a hostile host with the guest's server, natively on socket pairs.
//!
//! Sessions are separated by what no frame begins with, 0xff. The programs that a session may name are few and
//! harmless; an input that would run another is left out.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use secovia_guest_protocol::{ContainerSpec, Decoder, Frame, ProcessSpec, Request, VolumeSpec, WorkloadSpec};
use secovia_init::children::Reaping;
use secovia_init::server::{Machine, Server};

/// What may run: one that ends, one that reads to the end, one that is none, and those that are not there.
const HARMLESS: [&str; 6] = ["/bin/true", "true", "cat", "/etc/passwd", "/nowhere", ""];

/// Sessions of one input.
const SESSIONS: usize = 4;

/// A guest that says nothing for so long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest grace that an input may ask for: the target waits for it.
const GRACE_MS: u64 = 50;

struct Native;

static OFF: AtomicBool = AtomicBool::new(false);

impl Machine for Native {
    fn set_network(&self, _: &secovia_guest_protocol::NetworkSetup) -> std::io::Result<()> {
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> std::io::Result<()> {
        assert!(
            !name.is_empty() && name.len() <= 64 && name.is_ascii(),
            "{name:?}"
        );
        Ok(())
    }

    fn prepare_volumes(&self, _: &[VolumeSpec]) -> std::io::Result<()> {
        Ok(())
    }

    fn started_after_ns(&self) -> u64 {
        42
    }

    fn power_off(&self) {
        OFF.store(true, Ordering::SeqCst);
    }
}

fn is_harmless(process: &ProcessSpec) -> bool {
    // `cat` with arguments opens files, and a relative name may be found anywhere.
    let plain = process
        .argv
        .first()
        .is_none_or(|program| HARMLESS.contains(&program.as_str()));
    plain
        && process.argv.len() <= 1
        && !process.env.contains_key("PATH")
        && process.env.len() < 16
        && !process.env.keys().any(|name| name.starts_with("LD_"))
}

/// Whether the target can let this session happen: every frame of it, up to where it breaks.
fn may_happen(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let mut frames = std::iter::from_fn(|| decoder.next_frame().ok().flatten());
    frames.all(|frame| match frame {
        Frame::Request(
            Request::Start(WorkloadSpec { process, .. })
            | Request::Exec(process)
            | Request::ExecIn { process, .. },
        ) => is_harmless(&process),
        Frame::Request(Request::StartPod(pod)) => {
            // Probes ask whoever is on the network.
            let plain = |one: &ContainerSpec| {
                is_harmless(&one.process)
                    && one.startup.is_none()
                    && one.liveness.is_none()
                    && one.readiness.is_none()
            };
            pod.init.iter().chain(&pod.containers).all(plain)
        }
        Frame::Request(Request::Shutdown { grace_ms }) => grace_ms <= GRACE_MS,
        _ => true,
    })
}

/// Reads what the guest says to its end, which must be frames.
fn listen(mut socket: &UnixStream) {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 16 * 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            // libFuzzer has a timer of its own.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("the guest says nothing and does not hang up: {error}"),
        }
        while decoder
            .next_frame()
            .expect("the guest speaks the protocol")
            .is_some()
        {}
    }
}

/// Every other Rust program ignores SIGPIPE from its first moment on; libFuzzer has a `main` of its own. Blocked, here and
/// in every thread that is started from here, it does as little.
static QUIET: LazyLock<()> = LazyLock::new(|| {
    let signals: SigSet = [Signal::SIGPIPE].into_iter().collect();
    signals.thread_block().expect("a signal can be blocked");
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    LazyLock::force(&QUIET);
    let sessions: Vec<&[u8]> = data.split(|byte| *byte == 0xff).take(SESSIONS).collect();
    if !sessions.iter().all(|session| may_happen(session)) {
        return;
    }
    let before = threads();
    let server = Server::new(Native, Reaping::Own).expect("a server");
    let mut sockets = Vec::new();
    for session in sessions {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        ours.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        server.session(theirs.into());
        // A guest that has heard enough hangs up.
        let _ = (&ours).write_all(session);
        let _ = ours.shutdown(Shutdown::Write);
        sockets.push(ours);
    }
    // Without a workload nothing ends those who wait for its output.
    OFF.store(false, Ordering::SeqCst);
    server.shutdown(Duration::ZERO);
    for socket in &sockets {
        listen(socket);
    }
    wait_until("the machine is off", || OFF.load(Ordering::SeqCst));
    drop((server, sockets));
    // What one that is about to end still holds would be taken for lost, and the next input would not begin alone.
    wait_until("every thread has ended", || threads() <= before);
});

/// The threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// Waits for what comes by itself, if the guest is well.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < PATIENCE,
            "for {PATIENCE:?} it is not so that {what}"
        );
        std::thread::sleep(Duration::from_micros(100));
    }
}
