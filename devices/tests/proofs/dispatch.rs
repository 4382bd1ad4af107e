//! `Bus`: insertion and look-up.

use std::sync::{Arc, Mutex};

use secovia_devices::bus::{Bus, BusDevice, Effect};

/// Notes what reaches it.
#[derive(Default)]
struct Probe {
    seen: Option<(u64, usize)>,
}

impl BusDevice for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.seen = Some((offset, data.len()));
        data.fill(0xa5);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.seen = Some((offset, data.len()));
        Effect::None
    }
}

/// A range of addresses: the first and the last, without wrapping.
type Range = (u128, u128);

/// What is on a bus.
type There = Vec<(Range, Arc<Mutex<Probe>>)>;

/// The addresses at both ends of the address space, `count` at each.
fn edges(count: u64) -> Vec<u64> {
    (0..count).chain(u64::MAX - count + 1..=u64::MAX).collect()
}

/// A length for each distance between two edges, none at all, and some that are too long.
fn lengths(points: &[u64]) -> Vec<u64> {
    let mut lengths = vec![0, u64::MAX];
    for base in points {
        lengths.extend(
            points
                .iter()
                .filter_map(|last| last.checked_sub(*base)?.checked_add(1)),
        );
    }
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

fn range(base: u64, len: u64) -> Option<Range> {
    let last = u128::from(base) + u128::from(len.checked_sub(1)?);
    (last <= u128::from(u64::MAX)).then_some((base.into(), last))
}

/// Puts each of `wanted` on a bus; says which it took, and holds that against what it should take.
fn assemble(wanted: &[(u64, u64)]) -> (Bus, There) {
    let mut bus = Bus::new();
    let mut there = There::new();
    for &(base, len) in wanted {
        let free = |range: &Range| {
            there
                .iter()
                .all(|(other, _)| range.1 < other.0 || other.1 < range.0)
        };
        let expected = range(base, len).filter(free);
        let probe = Arc::new(Mutex::new(Probe::default()));
        let taken = bus.insert("probe", base, len, probe.clone());
        assert_eq!(
            taken.is_ok(),
            expected.is_some(),
            "{base:#x}+{len:#x} beside {wanted:x?}"
        );
        there.extend(expected.map(|range| (range, probe)));
    }
    (bus, there)
}

/// Every access from every address in `points` reaches whom it should, and nobody else.
fn check(bus: &Bus, there: &[(Range, Arc<Mutex<Probe>>)], points: &[u64], widths: &[usize]) {
    for &address in points {
        for &width in widths {
            let whole = range(address, width as u64);
            let hit = whole.and_then(|(first, last)| {
                there
                    .iter()
                    .position(|(range, _)| range.0 <= first && last <= range.1)
            });
            let mut data = [0xffu8; 9];
            let answered = bus.read(address, &mut data[..width]);
            assert_eq!(answered, hit.is_some(), "{address:#x}, {width}");
            let expected = if hit.is_some() { 0xa5 } else { 0 };
            assert!(data[..width].iter().all(|byte| *byte == expected));
            for write in [false, true] {
                if write {
                    assert_eq!(bus.write(address, &data[..width]), Effect::None);
                }
                for (index, (range, probe)) in there.iter().enumerate() {
                    let seen = probe.lock().unwrap().seen.take();
                    let expected =
                        (hit == Some(index)).then(|| ((u128::from(address) - range.0) as u64, width));
                    assert_eq!(seen, expected, "{address:#x}, {width}, write: {write}");
                }
            }
        }
    }
}

#[test]
fn two_ranges_anywhere() {
    let points = edges(5);
    let lengths = lengths(&points);
    let wanted: Vec<(u64, u64)> = points
        .iter()
        .flat_map(|base| lengths.iter().map(|len| (*base, *len)))
        .collect();
    for first in &wanted {
        for second in &wanted {
            let (bus, there) = assemble(&[*first, *second]);
            // One width of each kind: none, within, across.
            check(&bus, &there, &points, &[0, 1, 2, 5]);
        }
    }
}

#[test]
fn three_ranges_and_every_width() {
    let points = edges(2);
    let lengths = lengths(&points);
    let wanted: Vec<(u64, u64)> = points
        .iter()
        .flat_map(|base| lengths.iter().map(|len| (*base, *len)))
        .collect();
    for first in &wanted {
        for second in &wanted {
            for third in &wanted {
                let (bus, there) = assemble(&[*first, *second, *third]);
                check(&bus, &there, &points, &[0, 1, 2, 3, 4, 8, 9]);
            }
        }
    }
}
