//! The balloon under attack. What goes back to the host is overwritten, so that memory that is not the guest's would show.

use std::io;
use std::time::Duration;

use secovia_devices::virtio::balloon::{Balloon, BalloonConfig, BalloonHandle, Reclaim};
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::{GuestMemory, GuestSlice};

use super::Target;
use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;

/// A page that no ring lies in, for the check.
const PAGE: u64 = 0x4_0000;

pub struct Overwrite;

impl Reclaim for Overwrite {
    fn reclaim(&self, slice: &GuestSlice<'_>) -> io::Result<()> {
        // One byte of each page is enough to be seen, and leaves the rings mostly alone.
        for at in (0..slice.len()).step_by(4096) {
            let byte = slice.subslice(at, 1).expect("it is in the slice");
            byte.copy_from(&[0xdd_u8]);
        }
        Ok(())
    }
}

#[derive(Default)]
pub struct BalloonTarget {
    config: BalloonConfig,
    handle: Option<BalloonHandle>,
}

impl Target for BalloonTarget {
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        self.config = BalloonConfig {
            pages: source.u32(),
            deflate_on_oom: source.one_in(2),
            statistics_interval: (!source.one_in(3)).then_some(Duration::from_millis(1)),
            hinting: !source.one_in(3),
            reporting: !source.one_in(3),
        };
        let balloon = Balloon::new(&self.config, Box::new(Overwrite)).unwrap();
        self.handle = Some(balloon.handle());
        Box::new(balloon)
    }

    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, queue: u16) -> Vec<Descriptor> {
        let at = BUFFERS + source.below(0x100) * 4;
        match queue {
            0 | 1 => {
                let count = 1 + source.below(60);
                let first = source.below(0x70) as u32;
                for number in 0..count {
                    let page = match source.u8() % 64 {
                        0 => source.u32(),
                        1 => 1 << 20,
                        _ => 0x40 + (first + number as u32) % 0x40,
                    };
                    poke(memory, at + number * 4, &page.to_le_bytes());
                }
                vec![Descriptor::readable(at, count as u32 * 4)]
            }
            2 if source.one_in(2) => {
                for entry in 0..12u64 {
                    let tag = if source.one_in(8) {
                        source.u16()
                    } else {
                        entry as u16
                    };
                    poke(memory, at + entry * 10, &tag.to_le_bytes());
                }
                vec![Descriptor::readable(at, source.pick(&[120, 100, 99, 9, 5000]))]
            }
            _ => (0..1 + source.below(4))
                .map(|_| Descriptor::writable(0x4_0000 + source.below(0x10) * 4096, 4096))
                .collect(),
        }
    }

    fn host(&mut self, source: &mut Source<'_>) {
        if let Some(handle) = &self.handle {
            handle.set_target(source.u32()).unwrap();
            handle.statistics();
        }
    }

    fn check(&mut self, driver: &mut Driver) {
        let target = self.handle.as_ref().map_or(0, BalloonHandle::target);
        let mut config = [0; 4];
        driver.read_config(0, &mut config);
        assert_eq!(u32::from_le_bytes(config), target);
        poke(&driver.memory, PAGE - 1, &[1; 4096 + 2]);
        poke(&driver.memory, BUFFERS, &((PAGE / 4096) as u32).to_le_bytes());
        assert_eq!(driver.request(0, vec![Descriptor::readable(BUFFERS, 4)]), Some(0));
        assert_eq!(driver.get(PAGE - 1, 3), [1, 0xdd, 1]);
        assert_eq!(driver.get(PAGE + 4095, 2), [1, 1]);
        assert_eq!(driver.request(1, vec![Descriptor::readable(BUFFERS, 4)]), Some(0));
    }
}
