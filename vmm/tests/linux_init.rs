//! Our kernel and its PID 1 in the VMM; needs a KVM that runs Linux, and the files that the environment names.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Machine, kvm, needed};
use nix::sys::signal::Signal;
use serde_json::json;

const ARGS: &str = "console=ttyS0 panic=1 quiet";

fn linux(kernel: &Path, initrd: &Path, vcpus: u8) -> Machine {
    Machine::with_kernel(kernel)
        .with("/boot-source/initrd_path", json!(initrd))
        .with("/boot-source/boot_args", json!(ARGS))
        .with(
            "/machine-config",
            json!({ "vcpu_count": vcpus, "mem_size_mib": 512 }),
        )
        .with("/entropy", json!({}))
        .with_vsock()
}

/// Our own kernel, as ELF and as bzImage, up to its PID 1, which answers on its port; the power button ends it.
#[test]
fn our_kernel_boots_from_both_images_and_heeds_the_power_button() {
    let (true, Some(vmlinux), Some(bz_image), Some(initrd)) = (
        kvm(),
        needed("SECOVIA_KERNEL"),
        needed("SECOVIA_BZIMAGE"),
        needed("SECOVIA_INITRD"),
    ) else {
        return;
    };
    for (kernel, vcpus) in [(vmlinux, 2), (bz_image, 1)] {
        let mut machine = linux(&kernel, &initrd, vcpus);
        if let Some(image) = std::env::var_os("SECOVIA_IMAGE_BASE") {
            let root = Path::new(&image).join("rootfs.erofs");
            machine = machine
                .with("/drives/0/path_on_host", json!(root))
                .with("/drives/0/is_read_only", json!(true));
        }
        let running = machine.start();
        connect(&machine.socket());
        running.signal(Signal::SIGTERM);
        let outcome = running.end();
        assert_eq!(outcome.status, Some(0), "{kernel:?}: {}", outcome.output);
    }
}

/// Connects to PID 1's port, as the agent does.
fn connect(socket: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Ok(mut stream) = UnixStream::connect(socket)
            && stream.write_all(b"CONNECT 1024\n").is_ok()
        {
            let mut answer = [0; 3];
            if stream.read_exact(&mut answer).is_ok() && &answer == b"OK " {
                return;
            }
        }
        assert!(Instant::now() < deadline, "the guest's PID 1 does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}
