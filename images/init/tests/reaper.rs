//! Reaping as PID 1 does it: everything that comes. A program of its own, because it takes all children of its process.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use secovia_guest_protocol::{ExitStatus, Frame, GuestErrorCode, ProcessSpec, Request};
use secovia_init::children::Reaping;
use secovia_init::server::{Machine, Server};

use common::{DONE, Session, program, sh};

struct Nowhere;

impl Machine for Nowhere {
    fn set_network(&self, _: &secovia_guest_protocol::NetworkSetup) -> std::io::Result<()> {
        Ok(())
    }

    fn set_hostname(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }

    fn started_after_ns(&self) -> u64 {
        0
    }

    fn power_off(&self) {}
}

fn exec(server: &Server, process: ProcessSpec) -> Session {
    let (ours, theirs) = UnixStream::pair().unwrap();
    server.session(theirs.into());
    let mut session = Session::new(ours);
    session.send(&Frame::Request(Request::Exec(process)));
    session
}

#[test]
fn orphans_are_reaped_and_no_status_is_lost_between_them() {
    // Orphans come to this process, as they come to PID 1.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let server = Server::new(Nowhere, Reaping::All).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken");
    std::fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let broken = broken.to_str().unwrap();

    let mut orphans = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let server = &server;
                scope.spawn(move || {
                    let mut orphans = Vec::new();
                    for i in 0..40 {
                        let status = (worker * 40 + i) % 256;
                        let script = format!("(sleep 0.0{}; exit 9) & echo $!; exit {status}", i % 10);
                        let mut session = exec(server, sh(&script));
                        assert_eq!(session.next(), Some(DONE));
                        let seen = session.finish();
                        assert_eq!(seen.exit, Some(ExitStatus::Exited(status)));
                        orphans.push(String::from_utf8(seen.out).unwrap().trim().to_string());
                        // A program that fails to execute is waited for by the library: the reaper must not take it.
                        assert_eq!(exec(server, program(broken)).error(), GuestErrorCode::NotFound);
                    }
                    orphans
                })
            })
            .collect();
        for worker in workers {
            orphans.extend(worker.join().unwrap());
        }
    });

    assert_eq!(orphans.len(), 160);
    let begin = Instant::now();
    let there = |pid: &String| PathBuf::from("/proc").join(pid).exists();
    while let Some(pid) = orphans.iter().find(|pid| there(pid)) {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "process {pid} was not reaped"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // The children of this process are gone, one and all.
    let left = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    assert_eq!(left, Err(nix::errno::Errno::ECHILD));
}
