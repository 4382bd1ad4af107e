//! A transport's registers as a plain value: what the driver reads and writes, and what that asks of the device. They are
//! those of MMIO (virtio 1.2, 4.2.2); what PCI has in their place (4.1.4.3) is the same in other widths and places.
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};

pub mod offset;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;
const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// "virt", read as a little-endian number.
const MAGIC: u32 = 0x7472_6976;
/// Version 2 is that of virtio 1.0 and later; 1 was the legacy interface, which is not offered.
const VERSION: u32 = 2;
/// "SCVA": drivers do not look at it.
const VENDOR: u32 = 0x4156_4353;

/// The "used buffer" bit of InterruptStatus.
pub(super) const INTERRUPT_USED: u32 = 1;
/// The "configuration change" bit of InterruptStatus.
pub(super) const INTERRUPT_CONFIG: u32 = 2;

/// Where the driver and the device stand with each other (virtio 1.2, 2.1 and 3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The driver looks at the device, but has not said that it can drive it.
    Reset,
    /// The driver chooses features.
    Negotiating,
    /// The features are fixed, the queues are being set up.
    Configuring,
    /// The device works.
    Running,
    /// The device gave up and waits for a reset.
    Broken,
    /// The driver gave up.
    Failed,
}

/// What a register write asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing more than the register has done.
    None,
    /// Nothing, and the driver should not have done it.
    Ignored,
    /// Back to the beginning.
    Reset,
    /// DRIVER_OK was set.
    Activate,
    /// A queue of the running device has new buffers.
    Notify(u16),
    /// The driver takes a queue of the running device back.
    StopQueue(u16),
}

/// A queue as the driver describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueRegisters {
    pub(super) max_size: u16,
    /// As written, not checked yet.
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) ready: bool,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: u32::from(max_size),
            descriptors: 0,
            available: 0,
            used: 0,
            ready: false,
        }
    }
}

/// All that a driver sees below the configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registers {
    device_type: u32,
    offered: u64,
    accepted: u64,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: Vec<QueueRegisters>,
    interrupt_status: u32,
    config_generation: u32,
}

impl Registers {
    pub(super) fn new(device_type: u32, offered: u64, queue_sizes: &[u16]) -> Self {
        Self {
            device_type,
            offered,
            accepted: 0,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: queue_sizes.iter().copied().map(QueueRegisters::new).collect(),
            interrupt_status: 0,
            config_generation: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.status {
            status if status & NEEDS_RESET != 0 => Phase::Broken,
            status if status & FAILED != 0 => Phase::Failed,
            status if status & DRIVER_OK != 0 => Phase::Running,
            status if status & FEATURES_OK != 0 => Phase::Configuring,
            status if status & DRIVER != 0 => Phase::Negotiating,
            _ => Phase::Reset,
        }
    }

    /// The features that were agreed on; only what was offered once [`Phase::Configuring`] is reached.
    pub(super) fn features(&self) -> u64 {
        self.accepted
    }

    pub(super) fn queues(&self) -> &[QueueRegisters] {
        &self.queues
    }

    /// The driver may write the configuration space from the moment it says that it can drive the device.
    pub(super) fn config_writable(&self) -> bool {
        matches!(
            self.phase(),
            Phase::Negotiating | Phase::Configuring | Phase::Running
        )
    }

    pub(super) fn raise(&mut self, bits: u32) {
        self.interrupt_status |= bits;
    }

    /// The configuration space changed: a driver that reads it in parts must notice.
    pub(super) fn config_changed(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
    }

    /// Sets DEVICE_NEEDS_RESET. Says whether the driver must hear of it (2.1.2: once DRIVER_OK is set).
    pub(super) fn set_needs_reset(&mut self) -> bool {
        self.status |= NEEDS_RESET;
        self.status & DRIVER_OK != 0
    }

    /// Everything as it was at the start, but for the configuration generation, which only moves on.
    pub(super) fn reset(&mut self) {
        self.accepted = 0;
        self.status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
        self.interrupt_status = 0;
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max_size);
        }
    }

    fn queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    pub(super) fn read(&self, register: u64) -> u32 {
        match register {
            offset::MAGIC => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => self.device_type,
            offset::VENDOR_ID => VENDOR,
            offset::DEVICE_FEATURES => match self.device_features_sel {
                0 => self.offered as u32,
                1 => (self.offered >> 32) as u32,
                _ => 0,
            },
            offset::QUEUE_NUM_MAX => self.queue().map_or(0, |queue| u32::from(queue.max_size)),
            offset::QUEUE_READY => self.queue().map_or(0, |queue| u32::from(queue.ready)),
            offset::INTERRUPT_STATUS => self.interrupt_status,
            offset::STATUS => self.status,
            // No device has shared memory: length and base of a region that does not exist are all ones (4.2.2).
            offset::SHM_LEN_LOW | offset::SHM_LEN_HIGH | offset::SHM_BASE_LOW | offset::SHM_BASE_HIGH => {
                u32::MAX
            }
            offset::CONFIG_GENERATION => self.config_generation,
            // Also QueueReset: VIRTIO_F_RING_RESET is not offered.
            _ => 0,
        }
    }

    /// The same, and where the driver can only write on MMIO what it has written.
    pub(super) fn read_back(&self, register: u64) -> u32 {
        let address = |of: fn(&QueueRegisters) -> u64| self.queue().map_or(0, of);
        match register {
            offset::DEVICE_FEATURES_SEL => self.device_features_sel,
            offset::DRIVER_FEATURES_SEL => self.driver_features_sel,
            offset::DRIVER_FEATURES => match self.driver_features_sel {
                0 => self.accepted as u32,
                1 => (self.accepted >> 32) as u32,
                _ => 0,
            },
            offset::QUEUE_SEL => self.queue_sel,
            offset::QUEUE_NUM => self.queue().map_or(0, |queue| queue.size),
            offset::QUEUE_DESC_LOW => address(|queue| queue.descriptors) as u32,
            offset::QUEUE_DESC_HIGH => (address(|queue| queue.descriptors) >> 32) as u32,
            offset::QUEUE_DRIVER_LOW => address(|queue| queue.available) as u32,
            offset::QUEUE_DRIVER_HIGH => (address(|queue| queue.available) >> 32) as u32,
            offset::QUEUE_DEVICE_LOW => address(|queue| queue.used) as u32,
            offset::QUEUE_DEVICE_HIGH => (address(|queue| queue.used) >> 32) as u32,
            register => self.read(register),
        }
    }

    /// The interrupt status, which is taken by reading it.
    pub(super) fn take_interrupt_status(&mut self) -> u32 {
        std::mem::take(&mut self.interrupt_status)
    }

    pub(super) fn write(&mut self, register: u64, value: u32) -> Action {
        match register {
            offset::STATUS => return self.write_status(value),
            offset::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            offset::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            offset::QUEUE_SEL => self.queue_sel = value,
            offset::INTERRUPT_ACK => self.interrupt_status &= !value,
            offset::SHM_SEL => {}
            offset::DRIVER_FEATURES => return self.write_features(value),
            offset::QUEUE_NOTIFY => return self.notify(value),
            offset::QUEUE_READY => return self.write_ready(value),
            offset::QUEUE_NUM => return self.set_up(|queue| queue.size = value),
            offset::QUEUE_DESC_LOW => return self.set_up(|queue| set_low(&mut queue.descriptors, value)),
            offset::QUEUE_DESC_HIGH => return self.set_up(|queue| set_high(&mut queue.descriptors, value)),
            offset::QUEUE_DRIVER_LOW => return self.set_up(|queue| set_low(&mut queue.available, value)),
            offset::QUEUE_DRIVER_HIGH => return self.set_up(|queue| set_high(&mut queue.available, value)),
            offset::QUEUE_DEVICE_LOW => return self.set_up(|queue| set_low(&mut queue.used, value)),
            offset::QUEUE_DEVICE_HIGH => return self.set_up(|queue| set_high(&mut queue.used, value)),
            _ => return Action::Ignored,
        }
        Action::None
    }

    /// Bits are set one after the other in the order of 3.1.1, each only if the one before it is; only a reset clears.
    fn write_status(&mut self, value: u32) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        if self.status & !NEEDS_RESET & !value != 0 {
            return Action::Ignored;
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
            return Action::None;
        }
        if matches!(self.phase(), Phase::Broken | Phase::Failed) {
            return Action::Ignored;
        }
        let added = value & !self.status;
        let mut action = if added == 0 { Action::Ignored } else { Action::None };
        for (bit, before) in [
            (ACKNOWLEDGE, 0),
            (DRIVER, ACKNOWLEDGE),
            (FEATURES_OK, DRIVER),
            (DRIVER_OK, FEATURES_OK),
        ] {
            if added & bit == 0 {
                continue;
            }
            let refused = self.status & before != before || (bit == FEATURES_OK && !self.acceptable());
            if refused {
                return Action::Ignored;
            }
            self.status |= bit;
            if bit == DRIVER_OK {
                action = Action::Activate;
            }
        }
        action
    }

    /// What the driver accepted is something that was offered, and it knows virtio 1.
    fn acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn write_features(&mut self, value: u32) -> Action {
        if self.phase() != Phase::Negotiating {
            return Action::Ignored;
        }
        match self.driver_features_sel {
            0 => set_low(&mut self.accepted, value),
            1 => set_high(&mut self.accepted, value),
            // There are no such features; a driver that accepts one cannot mean it.
            _ if value != 0 => return Action::Ignored,
            _ => {}
        }
        Action::None
    }

    fn notify(&mut self, value: u32) -> Action {
        // VIRTIO_F_NOTIFICATION_DATA is not offered, so that the value is the queue's index.
        match u16::try_from(value) {
            Ok(index)
                if self.phase() == Phase::Running
                    && self
                        .queues
                        .get(usize::from(index))
                        .is_some_and(|queue| queue.ready) =>
            {
                Action::Notify(index)
            }
            _ => Action::Ignored,
        }
    }

    fn write_ready(&mut self, value: u32) -> Action {
        let phase = self.phase();
        let Ok(index) = u16::try_from(self.queue_sel) else {
            return Action::Ignored;
        };
        let Some(queue) = self.queues.get_mut(usize::from(index)) else {
            return Action::Ignored;
        };
        match (phase, value) {
            (Phase::Configuring, 0 | 1) => {
                queue.ready = value == 1;
                Action::None
            }
            (Phase::Running, 0) => {
                queue.ready = false;
                Action::StopQueue(index)
            }
            (Phase::Broken | Phase::Failed, 0) => {
                queue.ready = false;
                Action::None
            }
            _ => Action::Ignored,
        }
    }

    /// Changes the selected queue, if it may be changed (4.2.2.2: not once it is ready).
    fn set_up(&mut self, change: impl FnOnce(&mut QueueRegisters)) -> Action {
        let phase = self.phase();
        let selected = usize::try_from(self.queue_sel)
            .ok()
            .and_then(|index| self.queues.get_mut(index));
        match selected {
            Some(queue) if phase == Phase::Configuring && !queue.ready => {
                change(queue);
                Action::None
            }
            _ => Action::Ignored,
        }
    }
}

fn set_low(target: &mut u64, value: u32) {
    *target = (*target & !u64::from(u32::MAX)) | u64::from(value);
}

fn set_high(target: &mut u64, value: u32) {
    *target = (*target & u64::from(u32::MAX)) | (u64::from(value) << 32);
}

#[cfg(test)]
mod tests;
