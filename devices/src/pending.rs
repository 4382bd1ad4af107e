//! What waits to be taken over by a device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A value that any thread leaves for a device, which takes it in its next call.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    /// So that a device for which nothing waits takes no lock.
    waiting: AtomicBool,
    value: Mutex<Option<T>>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            waiting: AtomicBool::new(false),
            value: Mutex::new(None),
        }
    }
}

impl<T> Pending<T> {
    /// Leaves what `join` makes of what waits already, if anything does.
    pub(crate) fn put(&self, join: impl FnOnce(Option<T>) -> T) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        *value = Some(join(value.take()));
        self.waiting.store(true, Ordering::Release);
    }

    /// Whether something waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// What waits, which does not wait any more.
    pub(crate) fn take(&self) -> Option<T> {
        if !self.is_waiting() {
            return None;
        }
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Ordering::Relaxed);
        value.take()
    }
}
