//! The persistent memory device under attack.

use std::fs::File;

use secovia_devices::GuestMemory;
use secovia_devices::limiter::LimiterConfig;
use secovia_devices::virtio::block::{BlockConfig, Cache, Engine};
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::pmem::Pmem;

use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;
use super::{Directory, Target};

pub struct PmemTarget {
    directory: Directory,
}

impl PmemTarget {
    pub fn new() -> Self {
        let directory = Directory::new();
        let disk = File::create(directory.join("disk")).unwrap();
        disk.set_len(1 << 20).unwrap();
        Self { directory }
    }
}

impl Target for PmemTarget {
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        let config = BlockConfig {
            path: self.directory.join("disk"),
            // A flush that reaches a disk would be what the attack waits for.
            read_only: true,
            cache: Cache::Unsafe,
            engine: Engine::Sync,
            id: "pmem".into(),
            limit: LimiterConfig::default(),
        };
        Box::new(Pmem::open(&config).unwrap().placed_at(source.u64()))
    }

    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, _queue: u16) -> Vec<Descriptor> {
        let kind = if source.one_in(8) { source.u32() } else { 0 };
        poke(memory, BUFFERS, &kind.to_le_bytes());
        let answer = BUFFERS + 8 + source.below(0x1_0000);
        vec![
            Descriptor::readable(BUFFERS, source.pick(&[4, 4, 4, 3, 64])),
            Descriptor::writable(answer, source.pick(&[4, 4, 4, 3, 64])),
        ]
    }

    fn check(&mut self, driver: &mut Driver) {
        let mut length = [0; 8];
        driver.read_config(8, &mut length);
        assert_eq!(u64::from_le_bytes(length), 2 << 20);
        poke(&driver.memory, BUFFERS, &[0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee]);
        let buffers = vec![
            Descriptor::readable(BUFFERS, 4),
            Descriptor::writable(BUFFERS + 4, 4),
        ];
        assert_eq!(driver.request(0, buffers), Some(4));
        assert_eq!(driver.get(BUFFERS + 4, 4), [0; 4]);
    }
}
