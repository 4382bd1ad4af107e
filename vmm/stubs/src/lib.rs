//! Tiny guests in 64-bit assembly, each of which pokes one device and ends.
//!
//! A guest is a few dozen instructions, so that it runs at once even on a KVM that executes guests by software
//! emulation. [`Guest::elf`] wraps its code in the smallest ELF file that a VMM loads as a kernel.
//!
//! The guests know the machine's addresses ([`machine`]); a test of the VMM holds them against its own layout.

pub mod back_door;
mod code;
mod elf;
pub mod machine;

pub use code::DISK_ROUND;

/// One guest.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// What it does, as a file name.
    pub name: &'static str,
    code: fn() -> &'static [u8],
}

/// Prints `stub\n` on the serial port and resets through the keyboard controller.
pub const HELLO: Guest = Guest::new("hello", code::hello);
/// Prints `acpi\n` and resets through the ACPI reset register.
pub const ACPI_RESET: Guest = Guest::new("acpi-reset", code::acpi_reset);
/// Prints `off\n` and powers off through the ACPI sleep control register.
pub const POWER_OFF: Guest = Guest::new("power-off", code::power_off);
/// Prints `panic\n`, reports a panic to pvpanic and halts.
pub const PANIC: Guest = Guest::new("panic", code::panic);
/// Prints `fault\n` and takes an exception without a handler for it, for the handler's, or for the double fault.
pub const TRIPLE_FAULT: Guest = Guest::new("triple-fault", code::triple_fault);
/// Prints `ready\n` and halts with interrupts off, for ever.
pub const IDLE: Guest = Guest::new("idle", code::idle);
/// Prints `ready\n`, waits for the power button (polling the event device) and powers off.
pub const POWER_BUTTON: Guest = Guest::new("power-button", code::power_button);
/// Prints `ready\n`, copies what comes from the serial port back to it up to a line's end, and resets.
pub const ECHO: Guest = Guest::new("echo", code::echo);
/// Reads sector 0 of the first virtio device, a disk; prints its first 16 bytes and resets.
pub const DISK_READ: Guest = Guest::new("disk-read", code::disk_read);
/// As [`DISK_READ`], but learns of the completion by interrupt: I/O APIC, message, handler, which prints and resets.
pub const DISK_INTERRUPT: Guest = Guest::new("disk-interrupt", code::disk_interrupt);
/// Reads sector 0 of the first virtio device, a disk, [`DISK_ROUND`] times, one request after the other, each with its
/// interrupt; prints `ready\n` and sleeps. Then once more for each line's end that comes from the serial port; resets at any other
/// byte, or at a request that fails.
pub const DISK_ROUNDS: Guest = Guest::new("disk-rounds", code::disk_rounds);
/// Brings up the first virtio device, a network interface, and prints `ready\n`; sends the first packet that comes back to
/// where it came from (Ethernet, IPv4 and UDP turned round), prints `echo\n` and resets.
pub const NET_ECHO: Guest = Guest::new("net-echo", code::net_echo);
/// Discards sectors 0 to 7 of the first virtio device, a disk, and has zeroes written to 8 to 15; prints `erased\n` if both
/// were done, and resets.
pub const DISK_ERASE: Guest = Guest::new("disk-erase", code::disk_erase);
/// Starts the second vCPU, which prints `AP\n` and resets.
pub const SECOND_CPU: Guest = Guest::new("second-cpu", code::second_cpu);
/// Prints the type of each virtio device in the order of their places, as one character from `'0'` on, and a line's end;
/// then every other vCPU prints a `c`. Resets at the first byte that comes from the serial port.
pub const FLEET: Guest = Guest::new("fleet", code::fleet);
/// Says twice to the boot timer that it has booted, prints `booted\n` and resets.
pub const BOOTED: Guest = Guest::new("booted", code::booted);
/// Prints the lowest bits of CPUID's leaf 0x8000_0002 in EAX (the processor's name) and of the model-specific register 0xc0000102
/// (KERNEL_GS_BASE) as digits, and a line's end; resets.
pub const FEATURES: Guest = Guest::new("features", code::features);
/// Touches ports and addresses where nothing is, prints `nothing\n` if they read as all ones, and resets.
pub const NOTHING_THERE: Guest = Guest::new("nothing-there", code::nothing_there);
/// Prints `ready\n`, then writes to the serial port for ever.
pub const SERIAL_FLOOD: Guest = Guest::new("serial-flood", code::serial_flood);
/// Prints `ready\n`, then breaks the first virtio device, a disk, and resets it, with as many notifications and accesses
/// that make no sense as it can, for ever.
pub const NOTIFY_STORM: Guest = Guest::new("notify-storm", code::notify_storm);
/// Asks for the disk's next interrupt in the handler of the last, for ever; prints `ready\n` at the hundredth.
pub const INTERRUPT_STORM: Guest = Guest::new("interrupt-storm", code::interrupt_storm);
/// Reads megabytes from the disk for ever: the second vCPU keeps the queue full, the first notifies. Prints `ready\n` when
/// it is back from the first notification.
pub const DISK_FLOOD: Guest = Guest::new("disk-flood", code::disk_flood);
/// Prints `ready\n`, then opens one connection after the other to port 99 of the host; the machine has a socket device
/// and no disk.
pub const VSOCK_FLOOD: Guest = Guest::new("vsock-flood", code::vsock_flood);

impl Guest {
    const fn new(name: &'static str, code: fn() -> &'static [u8]) -> Self {
        Self { name, code }
    }

    /// The bare code, to be loaded at [`machine::LOAD_ADDRESS`] and entered at its start in 64-bit mode.
    pub fn code(&self) -> &'static [u8] {
        (self.code)()
    }

    /// The guest as an ELF file.
    pub fn elf(&self) -> Vec<u8> {
        elf::wrap((self.code)(), machine::LOAD_ADDRESS, elf::Entry::Long)
    }

    /// The guest as an ELF file that also names a 32-bit PVH entry, where it does what `self` does in 64-bit mode:
    /// a few instructions that switch to it come first.
    pub fn pvh_elf(&self) -> Vec<u8> {
        let mut whole = code::pvh_to_long().to_vec();
        whole.resize(elf::PVH_PREFIX, 0x90);
        whole.extend_from_slice((self.code)());
        elf::wrap(&whole, machine::LOAD_ADDRESS, elf::Entry::Pvh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_has_code_and_a_well_formed_file() {
        for guest in [
            HELLO,
            ACPI_RESET,
            POWER_OFF,
            PANIC,
            TRIPLE_FAULT,
            IDLE,
            POWER_BUTTON,
            ECHO,
            DISK_READ,
            DISK_ERASE,
            DISK_INTERRUPT,
            DISK_ROUNDS,
            NET_ECHO,
            SECOND_CPU,
            FLEET,
            BOOTED,
            FEATURES,
            NOTHING_THERE,
            SERIAL_FLOOD,
            NOTIFY_STORM,
            INTERRUPT_STORM,
            DISK_FLOOD,
            VSOCK_FLOOD,
        ] {
            let code = (guest.code)();
            assert!(
                (8..4096).contains(&code.len()),
                "{}: {} bytes",
                guest.name,
                code.len()
            );
            let elf = guest.elf();
            assert_eq!(&elf[..4], b"\x7fELF");
            assert!(elf.ends_with(code), "{}", guest.name);
        }
    }

    #[test]
    fn the_switch_to_long_mode_fits_before_the_guest() {
        assert!(code::pvh_to_long().len() <= elf::PVH_PREFIX);
    }
}
