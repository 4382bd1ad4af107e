use std::sync::{Arc, Mutex};

use super::*;
use crate::bus::{Bus, BusDevice, Effect};
use crate::interrupt::Msi;

const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: Class(1, 0x80, 0),
    subsystem: 0x40,
};

#[test]
fn a_header_says_who_it_is_and_can_not_be_told_otherwise() {
    let mut space = ConfigSpace::new(IDENTITY);
    for _ in 0..2 {
        assert_eq!(space.u32_at(0), 0x1042_1af4);
        assert_eq!(space.u32_at(8), 0x0180_0001);
        assert_eq!(space.u32_at(0x2c), 0x0040_1af4);
        assert_eq!(space.u16_at(6), 0, "no capabilities");
        (0..256).step_by(4).for_each(|at| space.write(at, &[0xff; 4]));
    }
    // Command, and the one byte that is the guest's.
    assert_eq!(space.u16_at(4), 0x0546);
    assert_eq!(space.u32_at(0x3c), 0xff);
    // Behind the end, and across it.
    let mut data = [1; 8];
    space.read(252, &mut data);
    assert_eq!(data, [0; 8]);
    space.read(u64::MAX, &mut data);
    space.write(u64::MAX, &data);
    space.write(252, &[0xff; 8]);
}

#[test]
fn a_bar_tells_its_length_and_answers_where_the_guest_puts_it() {
    let mut space = ConfigSpace::new(IDENTITY);
    space.set_bar(0xe100_8000, 0x8000);
    assert_eq!((space.u32_at(0x10), space.bar()), (0xe100_8000, None));
    space.write(4, &[2, 0]);
    assert_eq!(space.bar(), Some(0xe100_8000));
    space.write(0x10, &[0xff; 4]);
    assert_eq!(space.u32_at(0x10), 0xffff_8000);
    space.write(0x10, &0xe200_1234_u32.to_le_bytes());
    assert_eq!(space.bar(), Some(0xe200_0000));
    // There is no other.
    space.write(0x14, &[0xff; 4]);
    assert_eq!(space.u32_at(0x14), 0);
}

#[test]
fn capabilities_are_a_list_as_long_as_there_is_room() {
    let mut space = ConfigSpace::new(IDENTITY);
    let first = space.add_capability(9, &[6, 1, 2, 3], &[0, 0xf0]).unwrap();
    let second = space.add_capability(0x11, &[7; 11], &[]).unwrap();
    assert_eq!(space.u16_at(6) & 0x10, 0x10);
    assert_eq!(space.u32_at(0x34) as usize & 0xff, first);
    assert_eq!(usize::from(space.u16_at(first) >> 8), second);
    assert_eq!(space.u16_at(second), 0x0011);
    space.write(first as u64, &[0xff; 6]);
    assert_eq!(space.u16_at(first), 9 | (second as u16) << 8);
    assert_eq!(space.u32_at(first + 2), u32::from_le_bytes([6, 0xf1, 2, 3]));
    while space.add_capability(9, &[0; 60], &[]).is_some() {}
    assert_eq!(space.add_capability(9, &[0; 300], &[]), None);
}

fn set(msix: &mut Msix, vector: u64, address: u64, data: u32, control: u32) -> Option<Msi> {
    assert_eq!(msix.write_table(vector * 16, &address.to_le_bytes()), None);
    let rest = u64::from(data) | u64::from(control) << 32;
    msix.write_table(vector * 16 + 8, &rest.to_le_bytes())
}

#[test]
fn a_message_that_is_held_back_is_sent_once_it_is_not() {
    let message = |number: u32| Msi {
        address: 0xfee0_0000,
        data: number,
    };
    let mut msix = Msix::new(3);
    for vector in 0..3 {
        assert_eq!(set(&mut msix, vector, 0xfee0_0000, vector as u32, 0), None);
    }
    assert_eq!(msix.raise(0), None, "switched off");
    assert_eq!(msix.set_control(0x8000), []);
    assert_eq!(msix.raise(0), Some(message(0)));
    assert_eq!(
        (msix.raise(3), msix.raise(0xffff)),
        (None, None),
        "there are none"
    );
    // One of them.
    assert_eq!(msix.write_table(16 + 12, &[1, 0, 0, 0]), None);
    assert_eq!((msix.raise(1), msix.raise(1)), (None, None));
    let mut pending = [0xff; 8];
    msix.read_pending(0, &mut pending);
    assert_eq!(pending, [2, 0, 0, 0, 0, 0, 0, 0]);
    // It may be another one by then.
    assert_eq!(msix.write_table(16 + 8, &9_u32.to_le_bytes()), None);
    assert_eq!(msix.write_table(16 + 12, &[0; 4]), Some(message(9)));
    assert_eq!(msix.write_table(16 + 12, &[0; 4]), None);
    // All.
    assert_eq!(msix.set_control(0xc000), []);
    assert_eq!((msix.raise(2), msix.raise(0)), (None, None));
    assert_eq!(msix.set_control(0x8000), [message(0), message(2)]);
    // Switched off they are forgotten.
    assert_eq!(msix.set_control(0xc000), []);
    assert_eq!(msix.raise(2), None);
    assert_eq!(msix.set_control(0), []);
    assert_eq!(msix.set_control(0x8000), []);
}

#[test]
fn the_table_is_read_by_whole_words() {
    let mut msix = Msix::new(2);
    let mut data = [0; 8];
    msix.read_table(8, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 1, 0, 0, 0], "held back at first");
    set(&mut msix, 1, 0x0102_0304_0506_0708, 0xaabb_ccdd, 0xffff_ffff);
    msix.read_table(16, &mut data);
    assert_eq!(data, 0x0102_0304_0506_0708_u64.to_le_bytes());
    msix.read_table(24, &mut data);
    assert_eq!(data, [0xdd, 0xcc, 0xbb, 0xaa, 1, 0, 0, 0]);
    for (offset, len) in [(17, 4), (16, 2), (32, 8), (u64::MAX - 3, 8)] {
        let mut data = vec![0; len];
        msix.read_table(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{offset} {len}");
        msix.write_table(offset, &vec![0xff; len]);
    }
}

/// Answers with the offset.
struct Echo;

impl BusDevice for Echo {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(offset.to_le_bytes()) {
            *to = from;
        }
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

#[test]
fn functions_come_and_go_while_the_guest_looks() {
    const ECAM: u64 = 0xe000_0000;
    const WINDOW: u32 = 0xe100_0000;
    let root = Root::new(WINDOW);
    let mut bus = Bus::new();
    bus.insert_window("configuration", ECAM, Root::ECAM_LEN, root.ecam())
        .unwrap();
    bus.insert_window("BARs", WINDOW.into(), Root::WINDOW_LEN, root.bars())
        .unwrap();
    let read = |address: u64| {
        let mut data = [0; 4];
        bus.read(address, &mut data).then_some(u32::from_le_bytes(data))
    };
    let config =
        |device: u64, function: u64, register: u64| ECAM + (device << 15) + (function << 12) + register;

    assert_eq!(read(config(0, 0, 0)), Some(0x0008_1b36), "the host bridge");
    for (device, function) in [(0, 1), (1, 0), (31, 7)] {
        assert_eq!(read(config(device, function, 0)), Some(u32::MAX));
    }
    let (number, base) = root.free().unwrap();
    assert_eq!((number, base), (1, WINDOW + BAR_LEN));
    let place = Arc::new(Place::default());
    root.plug(number, Arc::new(Mutex::new(Echo)), place.clone());
    assert_eq!(read(config(1, 0, 0x104)), Some(0x104));
    assert_eq!(read(config(1, 1, 0)), Some(u32::MAX));
    assert_eq!(read(base.into()), None, "not enabled");
    place.set(Some(base));
    assert_eq!(read(u64::from(base) + 0x10), Some(BAR as u32 + 0x10));
    assert_eq!(
        read(u64::from(base) + u64::from(BAR_LEN) - 2),
        None,
        "across the end"
    );
    // Moved inside of the window, and out of it.
    place.set(Some(WINDOW));
    assert_eq!(read(u64::from(WINDOW) + 4), Some(BAR as u32 + 4));
    place.set(Some(0));
    assert_eq!((read(0), read(u64::from(base))), (None, None));
    place.set(Some(u32::MAX - BAR_LEN + 1));

    for number in 2..DEVICES {
        assert_eq!(root.free().unwrap().0, number);
        root.plug(number, Arc::new(Mutex::new(Echo)), Arc::default());
    }
    assert_eq!(root.free(), Err(Full));
    root.unplug(7);
    assert_eq!(read(config(7, 0, 0)), Some(u32::MAX));
    assert_eq!(root.free().unwrap().0, 7);
    root.plug(1000, Arc::new(Mutex::new(Echo)), Arc::default());
}

#[test]
fn the_ports_lead_to_the_same_configuration_spaces() {
    let root = Root::new(0xe100_0000);
    root.plug(3, Arc::new(Mutex::new(Echo)), Arc::default());
    let mut bus = Bus::new();
    bus.insert_window("ports", ports::BASE, ports::LEN, root.ports())
        .unwrap();
    let read = |port: u64| {
        let mut data = [0; 4];
        bus.read(port, &mut data).then_some(u32::from_le_bytes(data))
    };
    let address = |address: u32| {
        assert_eq!(bus.write(0xcf8, &address.to_le_bytes()), Effect::None);
        assert_eq!(read(0xcf8), Some(address));
    };
    assert_eq!(read(0xcfc), None, "no address");
    address(0x8000_0000);
    assert_eq!(read(0xcfc), Some(0x0008_1b36));
    // Device 3; the lowest bits choose a byte by the port alone.
    address(0x8000_1824);
    assert_eq!(read(0xcfc), Some(0x24));
    address(0x8000_1827);
    let mut byte = [0];
    assert!(bus.read(0xcff, &mut byte));
    assert_eq!(byte, [0x27]);
    // Nobody; another bus; switched off.
    address(0x8000_2000);
    assert_eq!(read(0xcfc), Some(u32::MAX));
    for nowhere in [0x8001_1824, 0x0000_1824] {
        address(nowhere);
        assert_eq!(read(0xcfc), None);
    }
    // Half of an address is none.
    assert_eq!(bus.write(0xcf8, &[0xff, 0xff]), Effect::None);
    assert_eq!(bus.write(0xcfa, &[0xff; 4]), Effect::None);
    assert_eq!(read(0xcf8), Some(0x0000_1824));
}
