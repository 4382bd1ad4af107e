//! Real Linux copies a disk, by each way in which the host serves one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secovia_system_tests::{Bench, given};
use secovia_vmm_api::{Exit, IoEngine};
use sha2::{Digest, Sha256};

const MIB: u64 = 16;

/// Bytes that do not repeat.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..MIB << 17).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().collect()
}

fn checksum(contents: &[u8]) -> String {
    Sha256::digest(contents)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A driver that uses the whole queue: eight copies at once, each of its own part, past the guest's page cache.
const COPY: &str = "for part in 0 1 2 3 4 5 6 7; do\n\
             dd if=/dev/vda of=/dev/vdb bs=64k count=32 skip=$((part * 32)) seek=$((part * 32)) \\\n\
                 iflag=direct oflag=direct conv=notrunc 2>/dev/null &\n\
         done\n\
         wait\n\
         sync\n\
         echo 3 > /proc/sys/vm/drop_caches\n\
         echo report: read $(sha256sum </dev/vda)\n\
         echo report: copied $(sha256sum </dev/vdb)";

/// A machine that copies its first disk, which is full of `contents`, to the second: both disks' files.
fn bench(contents: &[u8]) -> (Bench, PathBuf, PathBuf) {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "poweroff");
    let from = bench.add_disk("from", MIB, "", true);
    let to = bench.add_disk("to", MIB, "", false);
    fs::write(&from, contents).expect("fill the disk");
    (bench, from, to)
}

/// Runs it to its end, at which the copy is whole.
fn copies(bench: Bench, contents: &[u8], from: &Path, to: &Path) {
    let expected = checksum(contents);
    let same = |path: &Path| checksum(&fs::read(path).expect("read a disk")) == expected;
    let end = bench.start().end_and(|end| {
        assert!(same(from), "the disk that was read has changed\n{end}");
        assert!(same(to), "the copy differs\n{end}");
    });
    end.assert_code(Exit::GuestShutdown.code());
    end.assert_line(&format!("report: read {expected} -"));
    end.assert_line(&format!("report: copied {expected} -"));
}

fn copies_by(engine: IoEngine) {
    let contents = noise();
    let (mut bench, from, to) = bench(&contents);
    for drive in &mut bench.spec.drives {
        drive.io_engine = engine;
    }
    bench.script(COPY);
    copies(bench, &contents, &from, &to);
}

#[test]
fn a_copy_by_system_calls_is_whole() {
    copies_by(IoEngine::Sync);
}

#[test]
fn a_copy_by_an_io_uring_is_whole() {
    copies_by(IoEngine::Async);
}

/// Debian's qemu-storage-daemon, which serves a file as a vhost-user disk. Dropped, it is killed.
struct Daemon(Child);

impl Daemon {
    /// Serves the file of `drive` of this machine in the place of the VMM.
    fn serve(bench: &mut Bench, drive: usize) -> Self {
        let socket = bench.folder().join(format!("backend-{drive}.sock"));
        let drive = &mut bench.spec.drives[drive];
        let file = drive.path_on_host.take().expect("a file");
        let writable = if std::mem::take(&mut drive.is_read_only) {
            "off"
        } else {
            "on"
        };
        let child = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=disk,filename={}", file.display()))
            .arg("--export")
            .arg(format!(
                "type=vhost-user-blk,id=export,node-name=disk,writable={writable},addr.type=unix,addr.path={}",
                socket.display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .expect("start qemu-storage-daemon (Debian: qemu-system-common)");
        let until = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            assert!(Instant::now() < until, "qemu-storage-daemon makes no socket");
            std::thread::sleep(Duration::from_millis(20));
        }
        drive.socket = Some(socket);
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().expect("kill the daemon");
        self.0.wait().expect("the daemon's end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_copy_by_another_process_is_whole() {
    let contents = noise();
    let (mut bench, from, to) = bench(&contents);
    let _daemons = [Daemon::serve(&mut bench, 0), Daemon::serve(&mut bench, 1)];
    bench.script(COPY);
    copies(bench, &contents, &from, &to);
}

/// The disk is gone with the process that served it; the machine is not.
#[test]
fn a_backend_that_is_killed_leaves_the_machine_alive() {
    let contents = noise();
    let (mut bench, ..) = bench(&contents);
    let mut daemon = Daemon::serve(&mut bench, 1);
    bench.script(
        "echo report: size $(cat /sys/block/vdb/size)\n\
         (while :; do dd if=/dev/vdb of=/dev/null bs=64k iflag=direct; done) >/dev/null 2>&1 &\n\
         sleep 1\n\
         echo report: reading\n\
         i=0; while [ $i -lt 4 ]; do i=$((i+1)); sleep 1; echo report: alive $i $(sha256sum </dev/vda | head -c 8); done",
    );
    let mut machine = bench.start();
    machine.wait_for_line("report: reading");
    daemon.kill();
    let end = machine.end();
    end.assert_code(Exit::GuestShutdown.code());
    end.assert_line(&format!("report: size {}", MIB << 11));
    end.assert_line(&format!("report: alive 4 {}", &checksum(&contents)[..8]));
    assert!(
        end.errors
            .contains("the disk's vhost-user backend is given up: it closed the connection"),
        "{end}"
    );
}
