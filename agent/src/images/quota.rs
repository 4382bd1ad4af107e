//! Which images give way where the store holds more than it may.

/// An image, as far as room goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// What it takes, in bytes.
    pub size: u64,
    /// When a microVM was last made of it, or it was imported (Unix time in milliseconds).
    pub used_ms: u64,
    /// Whether a microVM has it, running or not.
    pub in_use: bool,
}

/// There is no room, whatever gives way.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What cannot give way takes so many bytes.
    pub in_use: u64,
}

/// The names of the images that give way so that all take at most `quota` bytes together with `more`: those used longest
/// ago first, and none that a microVM has.
pub fn give_way(mut held: Vec<Held>, more: u64, quota: u64) -> Result<Vec<String>, NoRoom> {
    let mut total: u64 = held.iter().map(|image| image.size).sum();
    let in_use = held
        .iter()
        .filter(|image| image.in_use)
        .map(|image| image.size)
        .sum();
    let room = quota.checked_sub(more).ok_or(NoRoom { in_use })?;
    held.retain(|image| !image.in_use);
    held.sort_by(|one, other| (one.used_ms, &one.name).cmp(&(other.used_ms, &other.name)));
    let mut names = Vec::new();
    for image in held {
        if total <= room {
            break;
        }
        total -= image.size;
        names.push(image.name);
    }
    if total > room {
        return Err(NoRoom { in_use });
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(name: &str, size: u64, used_ms: u64, in_use: bool) -> Held {
        Held {
            name: name.into(),
            size,
            used_ms,
            in_use,
        }
    }

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let images = || {
            vec![
                held("new", 10, 9, false),
                held("busy", 10, 1, true),
                held("old", 10, 5, false),
            ]
        };
        assert_eq!(give_way(images(), 10, 40), Ok(vec![]));
        assert_eq!(give_way(images(), 11, 40), Ok(vec!["old".into()]));
        assert_eq!(give_way(images(), 21, 40), Ok(vec!["old".into(), "new".into()]));
        assert_eq!(give_way(images(), 31, 40), Err(NoRoom { in_use: 10 }));
        assert_eq!(give_way(images(), 41, 40), Err(NoRoom { in_use: 10 }));
        assert_eq!(give_way(images(), 0, 10), Ok(vec!["old".into(), "new".into()]));
    }

    proptest! {
        #[test]
        fn the_quota_holds_and_nothing_in_use_goes(
            images in prop::collection::vec((0..100u64, 0..10u64, any::<bool>()), 0..12),
            more in 0..200u64,
            quota in 0..400u64,
        ) {
            let images: Vec<Held> = images
                .iter()
                .enumerate()
                .map(|(at, (size, used, in_use))| held(&at.to_string(), *size, *used, *in_use))
                .collect();
            let sum = |keep: &dyn Fn(&Held) -> bool| -> u64 {
                images.iter().filter(|image| keep(image)).map(|image| image.size).sum()
            };
            match give_way(images.clone(), more, quota) {
                Ok(gone) => {
                    prop_assert!(sum(&|image| !gone.contains(&image.name)) + more <= quota);
                    prop_assert!(images.iter().all(|image| !image.in_use || !gone.contains(&image.name)));
                }
                Err(_) => prop_assert!(sum(&|image| image.in_use) + more > quota),
            }
        }
    }
}
