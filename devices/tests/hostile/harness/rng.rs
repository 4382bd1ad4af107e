//! The entropy device under attack.

use secovia_devices::GuestMemory;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::rng::Rng;

use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;
use super::{Target, limits};

pub struct RngTarget;

impl Target for RngTarget {
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        Box::new(Rng::new(&limits(source)).unwrap())
    }

    fn request(&mut self, source: &mut Source<'_>, _memory: &GuestMemory, _queue: u16) -> Vec<Descriptor> {
        let count = 1 + source.below(3);
        (0..count)
            .map(|_| Descriptor::writable(BUFFERS + source.below(0x2_0000), 1 + source.below(700) as u32))
            .collect()
    }

    fn check(&mut self, driver: &mut Driver) {
        poke(&driver.memory, BUFFERS, &[0; 64]);
        let len = driver.request(0, vec![Descriptor::writable(BUFFERS, 64)]);
        assert_eq!(len, Some(64));
        assert_ne!(driver.get(BUFFERS, 64), [0; 64]);
    }
}
