//! The memory device under attack. What goes back to the host is overwritten, so that memory that was not plugged would
//! show.

use std::io;

use secovia_devices::virtio::balloon::Reclaim;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::mem::{Mem, MemConfig, MemHandle};
use secovia_devices::{GuestMemory, GuestSlice};

use super::Target;
use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;

/// Pages that no ring lies in, each a block.
const CONFIG: MemConfig = MemConfig {
    start: 0x4_0000,
    length: 0x1_0000,
    block: 0x1000,
};

struct Overwrite;

impl Reclaim for Overwrite {
    fn reclaim(&self, slice: &GuestSlice<'_>) -> io::Result<()> {
        for at in (0..slice.len()).step_by(4096) {
            let byte = slice.subslice(at, 1).expect("it is in the slice");
            byte.copy_from(&[0xdd_u8]);
        }
        Ok(())
    }
}

#[derive(Default)]
pub struct MemTarget {
    handle: Option<MemHandle>,
}

fn request(memory: &GuestMemory, kind: u16, address: u64, count: u16) {
    let mut bytes = [0; 24];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&address.to_le_bytes());
    bytes[16..18].copy_from_slice(&count.to_le_bytes());
    poke(memory, BUFFERS, &bytes);
}

impl Target for MemTarget {
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        let mem = Mem::new(CONFIG, Box::new(Overwrite)).unwrap();
        let handle = mem.handle();
        handle.request(source.below(17) * CONFIG.block).unwrap();
        self.handle = Some(handle);
        Box::new(mem)
    }

    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, _queue: u16) -> Vec<Descriptor> {
        let kind = if source.one_in(8) {
            source.u16()
        } else {
            source.pick(&[0, 0, 1, 1, 2, 3])
        };
        let address = match source.u8() % 16 {
            0 => source.u64(),
            1 => CONFIG.start + source.below(CONFIG.length),
            _ => CONFIG.start + source.below(17) * CONFIG.block,
        };
        let count = if source.one_in(8) {
            source.u16()
        } else {
            source.below(6) as u16
        };
        request(memory, kind, address, count);
        vec![
            Descriptor::readable(BUFFERS, source.pick(&[24, 24, 24, 23, 64])),
            Descriptor::writable(BUFFERS + 0x100, source.pick(&[10, 10, 10, 9, 64])),
        ]
    }

    fn host(&mut self, source: &mut Source<'_>) {
        if let Some(handle) = &self.handle {
            handle.request(source.below(17) * CONFIG.block).unwrap();
            assert!(handle.plugged() <= CONFIG.length);
        }
    }

    fn check(&mut self, driver: &mut Driver) {
        let handle = self.handle.clone().expect("it was opened");
        let mut plugged = [0; 8];
        driver.read_config(40, &mut plugged);
        assert_eq!(u64::from_le_bytes(plugged), handle.plugged());
        let (start, end) = (CONFIG.start, CONFIG.start + CONFIG.length);
        poke(&driver.memory, start - 1, &[1; 3]);
        poke(&driver.memory, end - 1, &[1; 2]);
        request(&driver.memory, 2, 0, 0);
        let buffers = vec![
            Descriptor::readable(BUFFERS, 24),
            Descriptor::writable(BUFFERS + 0x100, 10),
        ];
        assert_eq!(driver.request(0, buffers), Some(10));
        assert_eq!(driver.get(BUFFERS + 0x100, 2), [0, 0]);
        assert_eq!(handle.plugged(), 0);
        assert_eq!(driver.get(start - 1, 3), [1, 0xdd, 1]);
        assert_eq!(driver.get(end - 1, 2), [1, 1]);
    }
}
