use super::*;

/// Reads as the low byte of the offset; a write of 1 is a reset.
struct Probe(Vec<(u64, Vec<u8>)>);

impl BusDevice for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.0.push((offset, data.to_vec()));
        match data {
            [1] => Effect::Reset,
            _ => Effect::None,
        }
    }
}

fn probe() -> Arc<Mutex<Probe>> {
    Arc::new(Mutex::new(Probe(Vec::new())))
}

#[test]
fn accesses_reach_the_device_of_their_range_with_the_offset() {
    let mut bus = Bus::new();
    let (low, high) = (probe(), probe());
    bus.insert("high", 0x2000, 0x10, high.clone()).unwrap();
    bus.insert("low", 0x1000, 0x1000, low.clone()).unwrap();
    let mut data = [0xff];
    assert!(bus.read(0x1ffe, &mut data));
    assert_eq!(data, [0xfe]);
    assert_eq!(bus.write(0x2003, &[1]), Effect::Reset);
    assert_eq!(bus.write(0x1004, &[2, 3]), Effect::None);
    assert_eq!(high.lock().unwrap().0, [(3, vec![1])]);
    assert_eq!(low.lock().unwrap().0, [(4, vec![2, 3])]);
}

#[test]
fn accesses_to_nothing_and_across_a_ranges_end_read_zero_and_write_nothing() {
    let mut bus = Bus::new();
    let (first, second) = (probe(), probe());
    bus.insert("first", 0x10, 8, first.clone()).unwrap();
    bus.insert("second", 0x18, 8, second.clone()).unwrap();
    bus.insert("last", u64::MAX, 1, first.clone()).unwrap();
    for (address, len) in [
        (0x0f, 1),
        (0x0f, 2),
        (0x16, 4),
        (0x1f, 2),
        (0x20, 8),
        (u64::MAX, 2),
        (0x12, 0),
    ] {
        let mut data = vec![0xff; len];
        assert!(!bus.read(address, &mut data), "{address:#x}");
        assert_eq!(data, vec![0; len]);
        assert_eq!(bus.write(address, &vec![1; len]), Effect::None);
    }
    assert!(first.lock().unwrap().0.is_empty() && second.lock().unwrap().0.is_empty());
    assert!(bus.read(u64::MAX, &mut [0]));
}

#[test]
fn an_overlap_is_refused_and_both_ranges_are_named() {
    let mut bus = Bus::new();
    bus.insert("serial", 0x3f8, 8, probe()).unwrap();
    for (base, len) in [(0x3f8, 8), (0x3f0, 9), (0x3ff, 1), (0x3f9, 2), (0, u64::MAX)] {
        let error = bus.insert("other", base, len, probe()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("other") && text.contains("serial (0x3f8 to 0x3ff)"),
            "{text}"
        );
    }
    for (base, len) in [(0x100, 0), (u64::MAX, 2)] {
        let error = bus.insert("other", base, len, probe()).unwrap_err();
        assert!(matches!(error, BusError::Range { .. }));
    }
    // Nothing of what was refused is there.
    assert!(!bus.read(0x3f7, &mut [0]));
    bus.insert("before", 0x3f0, 8, probe()).unwrap();
    bus.insert("after", 0x400, 8, probe()).unwrap();
}

#[test]
fn a_poisoned_lock_does_not_take_the_vcpu_down() {
    let mut bus = Bus::new();
    let device = probe();
    bus.insert("device", 0, 8, device.clone()).unwrap();
    let thread = std::thread::spawn({
        let device = device.clone();
        move || {
            let _guard = device.lock().unwrap();
            panic!("poison");
        }
    });
    assert!(thread.join().is_err());
    assert!(device.is_poisoned());
    assert_eq!(bus.write(0, &[1]), Effect::Reset);
    assert!(bus.read(5, &mut [0]));
}
