//! The transport under attack, with a device that holds it to the contract of [`VirtioDevice`].

use std::sync::{Arc, Mutex};

use secovia_devices::GuestMemory;
use secovia_devices::virtio::chain::{Chain, serve};
use secovia_devices::virtio::device::{Active, DeviceError, Outcome, VirtioDevice};
use virtio_queue::QueueT;

use super::Target;
use super::chain::Descriptor;
use super::driver::{BUFFERS, Driver};
use super::source::Source;

const FEATURES: u64 = 0b1011;
const VERSION_1: u64 = 1 << 32;
const RING_FEATURES: u64 = 1 << 28 | 1 << 29;
const SIZES: [u16; 3] = [256, 16, 1];
const CONFIG: u64 = 24;

/// Where the device stands, by the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    New,
    Active,
    Failed,
}

/// Copies what it may read to where it may write, and fails or changes its configuration as it is told to.
struct Probe {
    life: Life,
    chain: Chain,
    mood: Arc<Mutex<u8>>,
}

impl Probe {
    fn expect(&self, life: Life, what: &str) {
        assert_eq!(self.life, life, "{what}");
    }

    fn outcome(&mut self, interrupt: bool) -> Result<Outcome, DeviceError> {
        let mut mood = self.mood.lock().unwrap();
        let outcome = match *mood {
            0 => Err(DeviceError::Malformed {
                queue: 0,
                reason: "a bad mood",
            }),
            1 => Ok(Outcome {
                interrupt,
                config_changed: true,
            }),
            _ => Ok(Outcome {
                interrupt,
                config_changed: false,
            }),
        };
        *mood = 255;
        if outcome.is_err() {
            self.life = Life::Failed;
        }
        outcome
    }

    fn check(&self, active: &Active<'_>) {
        assert_eq!(active.queues.len(), SIZES.len());
        assert_ne!(active.features & VERSION_1, 0, "a legacy driver was let in");
        assert_eq!(
            active.features & !(FEATURES | VERSION_1 | RING_FEATURES),
            0,
            "features that were not offered"
        );
        for (queue, max) in active.queues.iter().zip(SIZES) {
            assert!(queue.size() <= max && queue.size().is_power_of_two());
        }
    }
}

impl VirtioDevice for Probe {
    fn device_type(&self) -> u32 {
        42
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        assert!(matches!(data.len(), 1 | 2 | 4 | 8) && data.iter().all(|byte| *byte == 0));
        for (byte, at) in data.iter_mut().zip(offset..CONFIG) {
            *byte = at as u8;
        }
    }

    fn write_config(&mut self, _offset: u64, data: &[u8]) {
        assert!(matches!(data.len(), 1 | 2 | 4 | 8));
        assert_ne!(
            self.life,
            Life::Failed,
            "a broken device gets nothing but a reset"
        );
    }

    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.expect(Life::New, "activated twice");
        self.check(active);
        for queue in active.queues.iter() {
            assert!(queue.ready() && queue.is_valid(active.memory));
        }
        self.life = Life::Active;
        self.outcome(false)
    }

    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.expect(Life::Active, "notified");
        self.check(active);
        assert!(usize::from(index) < SIZES.len());
        let served = serve(index, active, &mut self.chain, |chain, memory| {
            let (from, to) = (chain.readable(memory), chain.writable(memory));
            let len = from.len().min(to.len()).min(4096);
            let mut bytes = vec![0; len as usize];
            from.read(&mut bytes)?;
            to.write(&bytes)?;
            Ok(len)
        });
        match served {
            Ok(interrupt) => self.outcome(interrupt),
            Err(error) => {
                self.life = Life::Failed;
                Err(error)
            }
        }
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.expect(Life::Active, "called for the host");
        self.check(active);
        self.outcome(false)
    }

    fn reset(&mut self) {
        self.life = Life::New;
    }
}

pub struct TransportTarget {
    mood: Arc<Mutex<u8>>,
}

impl TransportTarget {
    pub fn new() -> Self {
        Self {
            mood: Arc::new(Mutex::new(255)),
        }
    }
}

impl Target for TransportTarget {
    fn open(&mut self, _source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        Box::new(Probe {
            life: Life::New,
            chain: Chain::new(),
            mood: self.mood.clone(),
        })
    }

    fn request(&mut self, source: &mut Source<'_>, _memory: &GuestMemory, _queue: u16) -> Vec<Descriptor> {
        let len = 1 + source.below(600) as u32;
        vec![
            Descriptor::readable(BUFFERS + source.below(0x8000), len),
            Descriptor::writable(BUFFERS + 0x8000 + source.below(0x8000), len),
        ]
    }

    fn host(&mut self, source: &mut Source<'_>) {
        *self.mood.lock().unwrap() = source.u8() % 16;
    }

    fn calm(&mut self) {
        *self.mood.lock().unwrap() = 255;
    }

    fn check(&mut self, driver: &mut Driver) {
        let text = b"to be copied";
        super::chain::poke(&driver.memory, BUFFERS, text);
        for queue in 0..2 {
            let to = BUFFERS + 0x1000 * (queue as u64 + 1);
            let chain = vec![
                Descriptor::readable(BUFFERS, text.len() as u32),
                Descriptor::writable(to, text.len() as u32),
            ];
            assert_eq!(driver.request(queue, chain), Some(text.len() as u32));
            assert_eq!(driver.get(to, text.len()), text);
        }
        let mut config = [0; 4];
        driver.read_config(4, &mut config);
        assert_eq!(config, [4, 5, 6, 7]);
    }
}
