//! What must outlive the agent: the owner's order, and what was measured.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::sync_dir;
use crate::capacity::usage::Usage;

/// The owner's order to give everything back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// When it was given (Unix time in milliseconds).
    pub since_ms: u64,
    /// How long it may take, in milliseconds.
    pub within_ms: u64,
}

/// A value in a file of its own, replaced whole or not at all.
#[derive(Debug)]
pub struct Keep {
    path: PathBuf,
}

impl Keep {
    /// The order's file.
    pub fn order(dir: &Path) -> Self {
        Self {
            path: dir.join("order.json"),
        }
    }

    /// The file of what was measured.
    pub fn usage(dir: &Path) -> Self {
        Self {
            path: dir.join("usage.json"),
        }
    }

    /// What was written last; nothing where nothing was.
    fn read<T: for<'a> Deserialize<'a>>(&self) -> io::Result<Option<T>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The order that stands. A file that cannot be read is taken for one: the owner's word weighs more than a guest.
    pub fn standing(&self) -> Option<Standing> {
        let read = self.read::<Option<Standing>>().map(Option::flatten);
        read.unwrap_or_else(|error| {
            log::error!(
                "{}: {error}; taken for an order to reclaim, until `secovia release`",
                self.path.display()
            );
            Some(Standing {
                since_ms: 0,
                within_ms: 0,
            })
        })
    }

    /// What was measured. A file that cannot be read costs its content: it is measured anew.
    pub fn measured(&self) -> Usage {
        let read = self.read().unwrap_or_else(|error| {
            log::warn!(
                "{}: {error}; the owner's use is measured anew",
                self.path.display()
            );
            None
        });
        read.unwrap_or_default()
    }

    /// Writes it: it is on the disk when this returns.
    pub fn write(&self, value: &impl Serialize) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.path.parent().map_or(Ok(()), sync_dir)
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::resources::Amounts;

    #[test]
    fn what_was_written_is_read_and_damage_favours_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (order, usage) = (Keep::order(dir.path()), Keep::usage(dir.path()));
        assert_eq!((order.standing(), usage.measured()), (None, Usage::default()));
        let standing = Standing {
            since_ms: 5,
            within_ms: 9,
        };
        order.write(&Some(standing)).unwrap();
        assert_eq!(order.standing(), Some(standing));
        order.write(&None::<Standing>).unwrap();
        assert_eq!(order.standing(), None);
        let mut measured = Usage::default();
        measured.record(Amounts::NONE, 5, 1_000);
        usage.write(&measured).unwrap();
        assert_eq!(usage.measured(), measured);
        fs::write(order.path(), "{").unwrap();
        fs::write(usage.path(), "{").unwrap();
        assert_eq!(
            (order.standing().unwrap().within_ms, usage.measured()),
            (0, Usage::default())
        );
    }
}
