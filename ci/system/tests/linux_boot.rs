//! Real Linux in `secovia-vmm`: our kernel in both its forms, and Debian's own, unmodified.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use secovia_system_tests::{Bench, End, given};
use secovia_vmm_api::Exit;

const MIB_IN_SECTORS: u64 = 2048;

/// Boots with a disk for writing, one for reading, the socket device and the entropy device; all must be there.
fn boots_and_finds_everything(kernel: &Path) -> End {
    let mut bench = Bench::new(kernel, "poweroff");
    let written = bench.add_disk("data", 8, "first disk here.", false);
    let read = bench.add_disk("fixed", 16, "second disk here", true);
    let socket = bench.add_vsock_and_entropy();
    let end = bench.start().end_and(|end| {
        let disk = fs::read(&written).expect("read the disk");
        assert!(
            disk[512..].starts_with(b"written by guest"),
            "the guest's write is not on the disk\n{end}"
        );
        let disk = fs::read(&read).expect("read the disk");
        assert!(disk.starts_with(b"second disk here"));
        assert!(!socket.exists(), "the socket is left behind\n{end}");
    });
    end.assert_code(Exit::GuestShutdown.code());
    end.assert_line("report: up");
    end.assert_line("report: processors 1");
    end.assert_line(&format!(
        "report: disk vda sectors {} ro 0 head first disk here.",
        8 * MIB_IN_SECTORS
    ));
    end.assert_line(&format!(
        "report: disk vdb sectors {} ro 1 head second disk here",
        16 * MIB_IN_SECTORS
    ));
    end.assert_line("report: wrote");
    end.assert_line("report: driver virtio_blk");
    end.assert_line("report: driver virtio_rng");
    end.assert_line("report: driver vmw_vsock_virtio_transport");
    end
}

#[test]
fn our_kernel_as_elf() {
    let end = boots_and_finds_everything(&given("SECOVIA_KERNEL"));
    assert!(end.line("report: kernel ").ends_with("-secovia"), "{end}");
}

#[test]
fn our_kernel_as_bzimage() {
    let end = boots_and_finds_everything(&given("SECOVIA_BZIMAGE"));
    assert!(end.line("report: kernel ").ends_with("-secovia"), "{end}");
}

/// Nothing on its command line says where a device is, and it was built for every cloud but ours.
#[test]
fn debians_own_kernel() {
    let end = boots_and_finds_everything(&given("SECOVIA_DEBIAN_KERNEL"));
    assert!(end.line("report: kernel ").ends_with("-cloud-amd64"), "{end}");
}

#[test]
fn several_processors_all_come_up() {
    for (count, smt) in [(2, false), (4, true)] {
        let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "poweroff");
        bench.spec.machine_config.vcpu_count = count;
        bench.spec.machine_config.smt = smt;
        let end = bench.start().end();
        end.assert_code(Exit::GuestShutdown.code());
        end.assert_line(&format!("report: processors {count}"));
    }
}

/// More disks than there are interrupt pins: several share one, and each is heard.
#[test]
fn forty_disks_are_all_read() {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "poweroff");
    for number in 0..40 {
        bench.add_disk(
            &format!("disk{number}"),
            1,
            &format!("this is disk {number:03}"),
            true,
        );
    }
    let end = bench.start().end();
    end.assert_code(Exit::GuestShutdown.code());
    for number in 0..40u8 {
        let letter = |number: u8| char::from(b'a' + number);
        let name = match number {
            0..26 => format!("vd{}", letter(number)),
            _ => format!("vd{}{}", letter(number / 26 - 1), letter(number % 26)),
        };
        end.assert_line(&format!(
            "report: disk {name} sectors {MIB_IN_SECTORS} ro 1 head this is disk {number:03}"
        ));
    }
}

/// The least memory there is, and so much that a part lies above the gap under 4 GiB.
#[test]
fn memory_from_the_least_to_above_the_gap() {
    for mib in [64_u64, 4608] {
        let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "poweroff");
        bench.spec.machine_config.mem_size_mib = mib;
        let end = bench.start().end();
        end.assert_code(Exit::GuestShutdown.code());
        let kib: u64 = end
            .line("report: memory ")
            .trim_end_matches(" kB")
            .parse()
            .expect("the guest reports a number");
        // The kernel keeps its own text, data and page structures for itself.
        let all = mib * 1024;
        assert!(kib < all && kib > all * 6 / 10, "{kib} kB of {all}\n{end}");
    }
}

#[test]
fn a_reset_is_told_apart() {
    let end = Bench::new(&given("SECOVIA_KERNEL"), "reset").start().end();
    end.assert_line("report: up");
    end.assert_code(Exit::GuestReset.code());
}

#[test]
fn a_panic_is_told_apart() {
    let end = Bench::new(&given("SECOVIA_KERNEL"), "panic").start().end();
    end.assert_line("report: up");
    end.assert_code(Exit::GuestPanic.code());
}

/// This guest has nobody who listens to the power button.
#[test]
fn a_guest_that_ignores_the_power_button_is_ended_after_the_grace() {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "stay");
    bench.argument("--grace");
    bench.argument("1");
    let mut machine = bench.start();
    machine.wait_for_line("report: up");
    machine.signal(Signal::SIGTERM);
    machine.end().assert_code(Exit::Forced.code());
}
