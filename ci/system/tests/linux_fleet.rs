//! As many vCPUs, disks and network interfaces as a machine of Firecracker's size has, and real Linux uses them all.

use std::process::Command;

use secovia_system_tests::network::with_tap;
use secovia_system_tests::{Bench, given};
use secovia_vmm_api::{Exit, NetworkInterfaceSpec};

const VCPUS: u8 = 32;
const DISKS: usize = 16;
const INTERFACES: usize = 8;

#[test]
fn linux_uses_32_vcpus_16_disks_and_8_interfaces() {
    with_tap(|| {
        let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
        bench.spec.machine_config.vcpu_count = VCPUS;
        bench.spec.machine_config.mem_size_mib = 512;
        for number in 0..DISKS {
            bench.add_disk(&format!("disk{number}"), 1, "a disk's head...", true);
        }
        for number in 0..INTERFACES {
            let tap = format!("tap{number}");
            // The first one is there.
            if number > 0 {
                let status = Command::new("ip")
                    .args(["tuntap", "add", "dev", &tap, "mode", "tap"])
                    .status();
                assert!(status.expect("run ip").success(), "{tap}");
            }
            bench.spec.network_interfaces.push(NetworkInterfaceSpec {
                iface_id: format!("eth{number}"),
                host_dev_name: tap,
                ..NetworkInterfaceSpec::default()
            });
        }
        bench.script(
            "echo report: processors $(nproc)\n\
             echo report: disks $(for disk in /dev/vd?; do head -c 16 $disk; echo; done | grep -c 'head...')\n\
             for link in /sys/class/net/eth*; do ip link set ${link##*/} up; done\n\
             echo report: interfaces $(ip link | grep -c 'eth[0-9]*: .*UP')\n",
        );
        let end = bench.start().end();
        end.assert_code(Exit::GuestShutdown.code());
        end.assert_line(&format!("report: processors {VCPUS}"));
        end.assert_line(&format!("report: disks {DISKS}"));
        end.assert_line(&format!("report: interfaces {INTERFACES}"));
    });
}
