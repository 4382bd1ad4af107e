//! The owner's processes wait for memory or disks: the kernel says so by itself (pressure stall information), for each of
//! the owner's control groups. Nothing is polled.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::sys;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Memory,
    Io,
}

/// A stall counts for so long after it was told: two of the windows that are watched.
const STALL_TIME: Duration = Duration::from_secs(4);

impl Kind {
    const ALL: [Self; 2] = [Self::Memory, Self::Io];

    fn file(self) -> &'static str {
        match self {
            Self::Memory => "memory.pressure",
            Self::Io => "io.pressure",
        }
    }

    /// When the kernel tells: microseconds of waiting within a window (Linux, accounting/psi). Some process waits for
    /// memory, or all of them for disks. The window is two seconds, which the kernel grants also without CAP_SYS_RESOURCE.
    fn trigger(self) -> &'static [u8] {
        match self {
            Self::Memory => b"some 200000 2000000\0",
            Self::Io => b"full 400000 2000000\0",
        }
    }
}

/// When was told last, in milliseconds after the beginning; 0 for never.
#[derive(Debug)]
struct Told {
    begun: Instant,
    memory_ms: AtomicU64,
    io_ms: AtomicU64,
    notify: Notify,
}

impl Told {
    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Memory => &self.memory_ms,
            Kind::Io => &self.io_ms,
        }
    }

    fn is_recent(&self, kind: Kind) -> bool {
        let told = self.of(kind).load(Ordering::Relaxed);
        let now = self.begun.elapsed().as_millis() as u64;
        told > 0 && now.saturating_sub(told) < STALL_TIME.as_millis() as u64
    }
}

/// Watches the owner's control groups.
#[derive(Debug)]
pub struct Pressure {
    told: Arc<Told>,
    watched: BTreeMap<(PathBuf, Kind), JoinHandle<()>>,
}

impl Default for Pressure {
    fn default() -> Self {
        let told = Told {
            begun: Instant::now(),
            memory_ms: AtomicU64::new(0),
            io_ms: AtomicU64::new(0),
            notify: Notify::new(),
        };
        Self {
            told: Arc::new(told),
            watched: BTreeMap::new(),
        }
    }
}

impl Pressure {
    /// Watches these groups and no others. To be called in the runtime.
    pub fn watch(&mut self, groups: &[PathBuf]) {
        self.watched.retain(|(group, _), task| {
            let keep = groups.contains(group) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for group in groups {
            for kind in Kind::ALL {
                let key = (group.clone(), kind);
                if self.watched.contains_key(&key) {
                    continue;
                }
                match open(group, kind) {
                    Ok(file) => {
                        let told = Arc::clone(&self.told);
                        self.watched
                            .insert(key, tokio::spawn(listen(file, group.clone(), kind, told)));
                    }
                    // Kernels without pressure stall information; the memory that is available is watched all the same.
                    Err(error) => log::debug!("watch {}: {error}", group.join(kind.file()).display()),
                }
            }
        }
    }

    /// The owner's processes wait for memory.
    pub fn memory_stall(&self) -> bool {
        self.told.is_recent(Kind::Memory)
    }

    /// The owner's processes wait for disks.
    pub fn io_stall(&self) -> bool {
        self.told.is_recent(Kind::Io)
    }

    /// Comes when something was told.
    pub async fn told(&self) {
        self.told.notify.notified().await;
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        for task in self.watched.values() {
            task.abort();
        }
    }
}

fn open(group: &Path, kind: Kind) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(group.join(kind.file()))?;
    // The trigger lives as long as the file is open.
    file.write_all(kind.trigger())?;
    Ok(file)
}

async fn listen(file: File, group: PathBuf, kind: Kind, told: Arc<Told>) {
    let watched = match sys::watch_priority(file) {
        Ok(watched) => watched,
        Err(error) => {
            log::warn!("watch {}: {error}", group.join(kind.file()).display());
            return;
        }
    };
    loop {
        let Ok(mut ready) = watched.ready(Interest::PRIORITY).await else {
            return;
        };
        // The file of a group that was removed is ready for ever.
        if !group.exists() {
            return;
        }
        ready.clear_ready();
        let now = told.begun.elapsed().as_millis() as u64;
        told.of(kind).store(now.max(1), Ordering::Relaxed);
        told.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_watched_is_calm() {
        let dir = tempfile::tempdir().unwrap();
        let mut pressure = Pressure::default();
        pressure.watch(&[dir.path().join("none.slice")]);
        assert!(pressure.watched.is_empty());
        assert!(!pressure.memory_stall() && !pressure.io_stall());
    }

    #[tokio::test]
    async fn a_stall_counts_for_a_while() {
        let pressure = Pressure::default();
        pressure.told.memory_ms.store(1, Ordering::Relaxed);
        assert!(pressure.memory_stall() && !pressure.io_stall());
    }
}
