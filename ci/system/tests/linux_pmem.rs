//! A Linux guest whose disks are memory to it (virtio-pmem).

use std::fs;

use secovia_system_tests::{Bench, given};
use secovia_vmm_api::{Exit, PmemSpec};
use sha2::{Digest, Sha256};

const MIB: usize = 1 << 20;

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An image's file system is mounted in place, without a copy in the guest; nothing that the guest writes changes it. A
/// writable one holds what was written, as soon as the guest's flush is answered.
#[test]
fn an_image_is_read_in_place_and_what_is_written_is_in_the_file() {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
    let image = given("SECOVIA_IMAGE_BASE").join("rootfs.erofs");
    let content = fs::read(&image).expect("read the image");
    let data = bench.folder().join("data.img");
    // Not a whole number of 2 MiB: what is behind it reads as zeroes.
    let mut expected = vec![0; 5 * MIB + 4096];
    fs::write(&data, &expected).expect("write a disk");
    let pmem = |id: &str, path: &std::path::Path, read_only| PmemSpec {
        id: id.into(),
        path_on_host: path.into(),
        read_only,
        ..PmemSpec::default()
    };
    bench.spec.pmem = vec![pmem("image", &image, true), pmem("data", &data, false)];
    bench.script(&format!(
        "mkdir /mnt\n\
         echo report: image $(head -c {} /dev/pmem0 | sha256sum)\n\
         mount -t erofs -o ro,dax=always /dev/pmem0 /mnt && echo report: $(cut -d' ' -f2-4 /proc/mounts | grep /mnt)\n\
         echo report: shell $(/mnt/bin/busybox echo runs)\n\
         umount /mnt\n\
         dd if=/dev/zero of=/dev/pmem0 bs=4096 count=1 conv=fsync 2>/dev/null\n\
         echo report: sizes $(cat /sys/block/pmem0/size /sys/block/pmem1/size)\n\
         i=0; while [ $i -lt 6 ]; do printf 'line %7d of a file\\n' $i; i=$((i+1)); done >/lines\n\
         dd if=/lines of=/dev/pmem1 bs=1M seek=3 conv=fsync,notrunc 2>/dev/null && echo report: written\n\
         echo report: behind $(tail -c 1000000 /dev/pmem1 | tr -d '\\0' | wc -c)\n",
        content.len()
    ));
    let end = bench.start().end_and(|end| {
        let written: String = (0..6).map(|i| format!("line {i:7} of a file\n")).collect();
        expected[3 * MIB..][..written.len()].copy_from_slice(written.as_bytes());
        assert!(fs::read(&data).expect("read the disk") == expected, "{end}");
        assert!(fs::read(&image).expect("read the image") == content, "{end}");
    });
    end.assert_code(Exit::GuestShutdown.code());
    end.assert_line(&format!("report: image {} -", hash(&content)));
    assert!(end.line("report: /mnt erofs ro").contains("dax=always"), "{end}");
    end.assert_line("report: shell runs");
    let sectors = |size: usize| size.next_multiple_of(2 * MIB) / 512;
    end.assert_line(&format!(
        "report: sizes {} {}",
        sectors(content.len()),
        sectors(expected.len())
    ));
    end.assert_line("report: written");
    end.assert_line("report: behind 0");
}
