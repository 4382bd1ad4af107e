//! How many may come in at a time: in all, and from one address, so that one that holds on to its connections shuts nobody
//! else out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ALL: usize = 64;
const FROM_ONE: usize = 32;

/// Who is in.
#[derive(Debug, Clone, Default)]
pub(super) struct Doors(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// Somebody who is in, until this is dropped.
#[derive(Debug)]
pub(super) struct Door {
    doors: Doors,
    from: IpAddr,
}

impl Doors {
    fn inside(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one more in, where there is room.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Door> {
        let mut inside = self.inside();
        let own = inside.get(&from).copied().unwrap_or(0);
        if own >= FROM_ONE || inside.values().sum::<usize>() >= ALL {
            return None;
        }
        inside.insert(from, own + 1);
        let doors = self.clone();
        Some(Door { doors, from })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut inside = self.doors.inside();
        if let Some(count) = inside.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_the_room_and_who_leaves_gives_it_back() {
        let doors = Doors::default();
        let from = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut inside: Vec<Door> = std::iter::from_fn(|| doors.enter(from(1))).collect();
        assert_eq!(inside.len(), FROM_ONE);
        inside.extend(std::iter::from_fn(|| doors.enter(from(2))));
        assert_eq!(inside.len(), ALL);
        assert!(doors.enter(from(3)).is_none());
        inside.pop();
        assert!(doors.enter(from(3)).is_some());
        inside.clear();
        assert!(doors.inside().is_empty());
    }
}
