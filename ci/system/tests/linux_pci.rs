//! Debian's kernel with its devices on a PCI bus, and a disk that comes and goes while it runs.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use secovia_system_tests::api::call;
use secovia_system_tests::{Bench, given};
use secovia_vmm_api::Exit;
use serde_json::json;
use sha2::{Digest, Sha256};

const LIMIT: Duration = Duration::from_secs(60);

fn checksum(contents: &[u8]) -> String {
    Sha256::digest(contents)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn all_devices_are_found_on_the_bus() {
    let mut bench = Bench::new(&given("SECOVIA_DEBIAN_KERNEL"), "poweroff");
    bench.argument("--enable-pci");
    let written = bench.add_disk("data", 8, "first disk here.", false);
    bench.add_disk("fixed", 16, "second disk here", true);
    bench.add_vsock_and_entropy();
    let end = bench.start().end_and(|end| {
        let disk = fs::read(&written).expect("read the disk");
        assert!(
            disk[512..].starts_with(b"written by guest"),
            "the guest's write is not on the disk\n{end}"
        );
    });
    end.assert_code(Exit::GuestShutdown.code());
    end.assert_line("report: disk vda sectors 16384 ro 0 head first disk here.");
    end.assert_line("report: disk vdb sectors 32768 ro 1 head second disk here");
    end.assert_line("report: wrote");
    for driver in ["virtio_blk", "virtio_rng", "vmw_vsock_virtio_transport"] {
        end.assert_line(&format!("report: driver {driver}"));
    }
}

/// The guest looks for the disk, reads it, and lets it go; then the machine takes it away, and it can come again.
#[test]
fn a_disk_comes_and_goes() {
    let script = "for alias in /sys/bus/pci/devices/*/modalias; do modprobe -q $(cat $alias); done\n\
        modprobe -q virtio_blk\n\
        echo report: up with $(ls /sys/bus/pci/devices | wc -l) functions\n\
        for round in 1 2; do\n\
            until echo 1 > /sys/bus/pci/rescan; [ -e /sys/block/vdb ]; do sleep 0.2; done\n\
            until [ -b /dev/vdb ]; do sleep 0.1; done\n\
            echo report: read $round $(sha256sum </dev/vdb)\n\
            device=$(readlink -f /sys/block/vdb/device/..)\n\
            echo 1 > $device/remove\n\
            echo report: gone $round $(ls /sys/block | grep -c vdb)\n\
            until [ \"$(cat /sys/class/block/vda/size)\" = $((16384 + round * 2048)) ]; do sleep 0.1; done\n\
        done\n\
        echo report: end";
    let mut bench = Bench::new(&given("SECOVIA_DEBIAN_KERNEL"), "");
    bench.argument("--enable-pci");
    let stays = bench.add_disk("stays", 8, "it stays", false);
    let path = bench.folder().join("guest");
    bench.script(script);
    let socket = bench.serve_api();
    let mut machine = bench.start();
    machine.wait_for_line("report: up with 2 functions");
    for round in 1_u8..=2 {
        let contents: Vec<u8> = (0..1_u32 << 20)
            .map(|n| (n >> 8) as u8 ^ n as u8 ^ round)
            .collect();
        fs::write(&path, &contents).expect("write a disk");
        let drive = json!({ "drive_id": "guest", "path_on_host": path, "is_root_device": false,
            "is_read_only": true });
        call(&socket, "PUT /drives/guest", &drive.to_string());
        machine.wait_for_line(&format!("report: read {round} {} -", checksum(&contents)));
        machine.wait_for_line(&format!("report: gone {round} 0"));
        call(&socket, "DELETE /drives/guest", "");
        wait_until_closed(machine.pid(), &path);
        // The word to go on: the disk that stays has grown.
        let file = fs::File::options().write(true).open(&stays).expect("open a disk");
        file.set_len((8 + u64::from(round)) << 20).expect("grow a disk");
        let patch = json!({ "drive_id": "stays", "path_on_host": stays });
        call(&socket, "PATCH /drives/stays", &patch.to_string());
    }
    let end = machine.end();
    end.assert_line("report: end");
    end.assert_code(Exit::GuestShutdown.code());
}

/// Nothing of the disk is left in the VMM.
fn wait_until_closed(pid: i32, path: &Path) {
    let started = Instant::now();
    loop {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("the VMM runs");
        let mut targets = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        if !targets.any(|target| target == path) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{} stays open", path.display());
        thread::sleep(Duration::from_millis(50));
    }
}
