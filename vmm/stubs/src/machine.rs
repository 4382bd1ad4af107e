//! The machine's addresses, as the guests assume them.

/// Where a guest is loaded, and entered.
pub const LOAD_ADDRESS: u64 = 0x10_0000;
/// Serial port, data register.
pub const SERIAL: u16 = 0x3f8;
/// Keyboard controller, command register.
pub const KEYBOARD: u16 = 0x64;
/// ACPI reset register.
pub const RESET: u16 = 0x602;
/// What resets when written there.
pub const RESET_VALUE: u8 = 1;
/// ACPI sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// SLP_EN and sleep type 5.
pub const SLEEP_S5: u8 = 1 << 5 | 5 << 2;
/// The panic device.
pub const PVPANIC: u16 = 0x505;
/// The first virtio device's registers.
pub const VIRTIO: u32 = 0xc000_1000;
/// The first virtio device's pin.
pub const VIRTIO_PIN: u8 = 6;
/// The event device's register of pending events.
pub const EVENTS: u32 = 0xc000_0000;
/// Its bit for the power button.
pub const EVENT_POWER_BUTTON: u8 = 1;
/// The device that makes system calls for its guest, in the one VMM that has it.
pub const BACK_DOOR: u16 = 0x5ec;
