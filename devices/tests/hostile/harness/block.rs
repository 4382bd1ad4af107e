//! The block device under attack: on a disk that it may write, or on one that it may not.

use std::fs;

use secovia_devices::GuestMemory;
use secovia_devices::virtio::block::{Block, BlockConfig, Cache, Engine};
use secovia_devices::virtio::device::VirtioDevice;

use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;
use super::{Directory, Target, limits};

const SECTORS: u64 = 128;
const SIZE: usize = SECTORS as usize * 512;
const ID: &str = "hostile-disk";

pub struct BlockTarget {
    directory: Directory,
    read_only: bool,
    engine: Engine,
    content: Vec<u8>,
}

impl BlockTarget {
    pub fn new(engine: Engine) -> Self {
        Self {
            directory: Directory::new(),
            read_only: false,
            engine,
            content: (0..SIZE).map(|at| (at / 512) as u8).collect(),
        }
    }
}

impl Target for BlockTarget {
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        self.read_only = source.one_in(2);
        let path = self.directory.join("disk");
        // A new file: the last device may still be on its way out.
        let _ = fs::remove_file(&path);
        fs::write(&path, &self.content).unwrap();
        let config = BlockConfig {
            path,
            read_only: self.read_only,
            cache: if self.read_only {
                Cache::Unsafe
            } else {
                Cache::Writeback
            },
            engine: self.engine,
            id: ID.into(),
            limit: limits(source),
        };
        Box::new(Block::open(&config).unwrap())
    }

    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, _queue: u16) -> Vec<Descriptor> {
        // Flushes reach the real disk and cost the time of a hundred other requests.
        let kind = match source.u8() {
            0 => 4,
            1..=100 => 0,
            101..=180 => 1,
            181..=200 => 8,
            201..=220 => 11,
            221..=240 => 13,
            other => u32::from(other),
        };
        let sector = match source.u8() % 8 {
            0 => SECTORS - source.below(4),
            1 => u64::MAX - source.below(4),
            2 => source.u64(),
            _ => source.below(SECTORS),
        };
        let header = BUFFERS + source.below(0x100) * 16;
        let raw = u128::from(kind) | u128::from(sector) << 64;
        poke(memory, header, &raw.to_le_bytes());
        let data = BUFFERS + 0x2000 + source.below(0x8000);
        let mut chain = vec![Descriptor::readable(header, 16)];
        match kind {
            0 | 1 => {
                for _ in 0..1 + source.below(3) {
                    let len = 512 * (1 + source.below(4) as u32);
                    let at = data + source.below(0x4000);
                    chain.push(if kind == 0 {
                        Descriptor::writable(at, len)
                    } else {
                        Descriptor::readable(at, len)
                    });
                }
            }
            8 => chain.push(Descriptor::writable(data, 20)),
            11 | 13 => {
                let segments = 1 + source.below(2);
                for segment in 0..segments {
                    let range = u128::from(source.below(SECTORS + 2))
                        | u128::from(source.below(20)) << 64
                        | u128::from(source.u8() & 3) << 96;
                    poke(memory, data + segment * 16, &range.to_le_bytes());
                }
                chain.push(Descriptor::readable(data, segments as u32 * 16));
            }
            _ => {}
        }
        chain.push(Descriptor::writable(BUFFERS + 0x1800 + source.below(64), 1));
        chain
    }

    fn check(&mut self, driver: &mut Driver) {
        let content = fs::read(self.directory.join("disk")).unwrap();
        assert_eq!(content.len(), SIZE, "the disk's size is the owner's");
        if self.read_only {
            assert!(content == self.content, "a read-only disk was written");
        }
        let (header, data, status) = (BUFFERS, BUFFERS + 0x1000, BUFFERS + 0x2000);
        let mut ask = |kind: u32, sector: u64, len: u32| {
            poke(
                &driver.memory,
                header,
                &(u128::from(kind) | u128::from(sector) << 64).to_le_bytes(),
            );
            poke(&driver.memory, status, &[0xff]);
            let chain = vec![
                Descriptor::readable(header, 16),
                Descriptor::writable(data, len),
                Descriptor::writable(status, 1),
            ];
            assert_eq!(driver.request(0, chain), Some(len + 1));
            assert_eq!(driver.get(status, 1), [0]);
            driver.get(data, len as usize)
        };
        assert_eq!(&ask(8, 0, 20)[..ID.len()], ID.as_bytes());
        assert!(ask(0, 5, 1024) == content[5 * 512..7 * 512]);
    }
}
