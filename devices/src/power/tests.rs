use super::*;

#[test]
fn only_sleep_type_s5_with_the_enable_bit_powers_off() {
    let mut power = AcpiPower::new();
    for value in 0..=u8::MAX {
        let off = value & 0x20 != 0 && (value >> 2) & 7 == 5;
        let expected = if off { Effect::Shutdown } else { Effect::None };
        assert_eq!(
            power.write(AcpiPower::SLEEP_CONTROL, &[value]),
            expected,
            "{value:#x}"
        );
    }
    // What Linux writes: SLP_TYP 5, SLP_EN.
    assert_eq!(power.write(AcpiPower::SLEEP_CONTROL, &[0x34]), Effect::Shutdown);
    assert_eq!(power.write(AcpiPower::SLEEP_CONTROL, &[0x34, 0]), Effect::None);
}

#[test]
fn only_the_reset_value_resets() {
    let mut power = AcpiPower::new();
    assert_eq!(
        power.write(AcpiPower::RESET, &[AcpiPower::RESET_VALUE]),
        Effect::Reset
    );
    assert_eq!(power.write(AcpiPower::RESET, &[0]), Effect::None);
    assert_eq!(power.write(AcpiPower::SLEEP_STATUS, &[0x80]), Effect::None);
    let mut status = [0xff];
    power.read(AcpiPower::SLEEP_STATUS, &mut status);
    assert_eq!(status, [0]);
}

#[test]
fn the_keyboard_controllers_reset_command_resets() {
    let mut i8042 = I8042::new();
    for command in 0..=u8::MAX {
        let expected = if command == 0xfe {
            Effect::Reset
        } else {
            Effect::None
        };
        assert_eq!(i8042.write(4, &[command]), expected);
        assert_eq!(i8042.write(0, &[command]), Effect::None);
    }
    assert_eq!(i8042.write(4, &[0xfe, 0xfe]), Effect::None);
}

#[test]
fn a_probing_driver_and_a_rebooting_kernel_are_done_at_once() {
    let mut i8042 = I8042::new();
    let mut status = [0];
    // Linux drains the output 16 times at most while bit 0 says that there is some, and takes a controller that has
    // still more for absent. Before it resets it waits for bit 1 to be clear.
    for _ in 0..17 {
        i8042.read(4, &mut status);
        assert_eq!(status[0] & 3, 1);
        i8042.read(0, &mut status);
        assert_eq!(status, [0]);
    }
    // A clock calibration waits for bit 5 of port 0x61.
    i8042.read(1, &mut status);
    assert_eq!(status[0] & 0x20, 0x20);
}
