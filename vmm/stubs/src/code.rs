//! The guests' code. Entered in 64-bit mode with the first gigabyte mapped one to one and interrupts off; no stack is
//! assumed. Memory from 2 MiB on is theirs.
//!
//! `unsafe` in here: the bytes between two labels of the assembly below are read as a slice.

use std::arch::global_asm;

use crate::machine::*;

/// How many requests a round of [`crate::DISK_ROUNDS`] is.
pub const DISK_ROUND: u32 = 100;

/// Declares `fn name() -> &'static [u8]`: the bytes between the labels `stub_name` and `stub_name_end`.
macro_rules! guest {
    ($($name:ident $start:ident $end:ident;)*) => {$(
        pub(crate) fn $name() -> &'static [u8] {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            let (start, end) = (&raw const $start, &raw const $end);
            // SAFETY: both labels are in one section below, the second after the first, and nothing writes there.
            unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) }
        }
    )*};
}

guest! {
    hello stub_hello stub_hello_end;
    acpi_reset stub_acpi_reset stub_acpi_reset_end;
    power_off stub_power_off stub_power_off_end;
    panic stub_panic stub_panic_end;
    triple_fault stub_triple_fault stub_triple_fault_end;
    idle stub_idle stub_idle_end;
    power_button stub_power_button stub_power_button_end;
    echo stub_echo stub_echo_end;
    disk_read stub_disk_read stub_disk_read_end;
    disk_erase stub_disk_erase stub_disk_erase_end;
    disk_interrupt stub_disk_interrupt stub_disk_interrupt_end;
    disk_rounds stub_disk_rounds stub_disk_rounds_end;
    net_echo stub_net_echo stub_net_echo_end;
    second_cpu stub_second_cpu stub_second_cpu_end;
    fleet stub_fleet stub_fleet_end;
    booted stub_booted stub_booted_end;
    features stub_features stub_features_end;
    nothing_there stub_nothing_there stub_nothing_there_end;
    serial_flood stub_serial_flood stub_serial_flood_end;
    notify_storm stub_notify_storm stub_notify_storm_end;
    interrupt_storm stub_interrupt_storm stub_interrupt_storm_end;
    disk_flood stub_disk_flood stub_disk_flood_end;
    vsock_flood stub_vsock_flood stub_vsock_flood_end;
    back_door stub_back_door stub_back_door_end;
    pvh_to_long stub_pvh_to_long stub_pvh_to_long_end;
}

global_asm!(
    // The macros of the first are used by the second.
    include_str!("guests.s"),
    include_str!("storms.s"),
    serial = const SERIAL,
    keyboard = const KEYBOARD,
    reset = const RESET,
    reset_value = const RESET_VALUE,
    sleep_control = const SLEEP_CONTROL,
    sleep_s5 = const SLEEP_S5,
    pvpanic = const PVPANIC,
    virtio = const VIRTIO,
    pin = const VIRTIO_PIN,
    events = const EVENTS,
    power_button = const EVENT_POWER_BUTTON,
    back_door = const BACK_DOOR,
    disk_round = const DISK_ROUND,
    long_start = const LOAD_ADDRESS + 256,
);
