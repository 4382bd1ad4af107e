//! The common configuration (virtio 1.2, 4.1.4.3): the transport's registers in their widths and places on PCI.

use super::{NO_VECTOR, PciTransport};
use crate::virtio::registers::{Action, offset};

/// A field of the common configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// A register that MMIO has too.
    Register(u64),
    ConfigVector,
    QueueCount,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
}

/// The field of `len` bytes at `at`. Addresses of 64 bits are accessed in halves (4.1.3.1).
fn field(at: u32, len: usize) -> Option<Field> {
    Some(match (at, len) {
        (0x00, 4) => Field::Register(offset::DEVICE_FEATURES_SEL),
        (0x04, 4) => Field::Register(offset::DEVICE_FEATURES),
        (0x08, 4) => Field::Register(offset::DRIVER_FEATURES_SEL),
        (0x0c, 4) => Field::Register(offset::DRIVER_FEATURES),
        (0x10, 2) => Field::ConfigVector,
        (0x12, 2) => Field::QueueCount,
        (0x14, 1) => Field::Register(offset::STATUS),
        (0x15, 1) => Field::Register(offset::CONFIG_GENERATION),
        (0x16, 2) => Field::Register(offset::QUEUE_SEL),
        (0x18, 2) => Field::Register(offset::QUEUE_NUM),
        (0x1a, 2) => Field::QueueVector,
        (0x1c, 2) => Field::QueueEnable,
        (0x1e, 2) => Field::QueueNotifyOffset,
        (0x20, 4) => Field::Register(offset::QUEUE_DESC_LOW),
        (0x24, 4) => Field::Register(offset::QUEUE_DESC_HIGH),
        (0x28, 4) => Field::Register(offset::QUEUE_DRIVER_LOW),
        (0x2c, 4) => Field::Register(offset::QUEUE_DRIVER_HIGH),
        (0x30, 4) => Field::Register(offset::QUEUE_DEVICE_LOW),
        (0x34, 4) => Field::Register(offset::QUEUE_DEVICE_HIGH),
        _ => return None,
    })
}

impl PciTransport {
    /// The driver reads; false where there is no such field.
    pub(super) fn read_common(&self, at: u32, data: &mut [u8]) -> bool {
        let Some(field) = field(at, data.len()) else {
            return false;
        };
        let registers = &self.core.registers;
        let selected = registers.read_back(offset::QUEUE_SEL);
        let value = match field {
            Field::Register(register) => registers.read_back(register),
            Field::ConfigVector => self.config_vector.into(),
            Field::QueueCount => self.queue_vectors.len() as u32,
            Field::QueueVector => self.vector_of(selected).unwrap_or(NO_VECTOR).into(),
            Field::QueueEnable => registers.read(offset::QUEUE_READY),
            Field::QueueNotifyOffset => selected,
        };
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        true
    }

    /// The driver writes.
    pub(super) fn write_common(&mut self, at: u32, data: &[u8]) -> Action {
        let Some(field) = field(at, data.len()) else {
            return Action::Ignored;
        };
        let value = data
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte));
        // One that there is not is none (4.1.5.1.2.1).
        let vector = u16::try_from(value)
            .ok()
            .filter(|vector| self.msix.has(*vector))
            .unwrap_or(NO_VECTOR);
        match field {
            Field::Register(register) => return self.core.registers.write(register, value),
            Field::ConfigVector => self.config_vector = vector,
            Field::QueueVector => {
                let selected = self.core.registers.read_back(offset::QUEUE_SEL) as usize;
                match self.queue_vectors.get_mut(selected) {
                    Some(place) => *place = vector,
                    None => return Action::Ignored,
                }
            }
            // It is taken back by a reset only (4.1.4.3.2).
            Field::QueueEnable if value == 1 => {
                return self.core.registers.write(offset::QUEUE_READY, 1);
            }
            Field::QueueEnable | Field::QueueCount | Field::QueueNotifyOffset => return Action::Ignored,
        }
        Action::None
    }

    fn vector_of(&self, queue: u32) -> Option<u16> {
        self.queue_vectors.get(usize::try_from(queue).ok()?).copied()
    }
}
