//! Counters that others read without the device's lock.

use std::sync::{Arc, Mutex, PoisonError};

/// A value that a device publishes at the end of a call, for whoever must not wait for the device. Copies show the same.
#[derive(Debug, Clone, Default)]
pub struct Published<T>(Arc<Mutex<T>>);

impl<T: Copy> Published<T> {
    /// Shows `value` from now on.
    pub fn set(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    /// What was shown last.
    pub fn get(&self) -> T {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
