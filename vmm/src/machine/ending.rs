//! How the first vCPU that sees the guest's end tells the event loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::vcpu::thread::{Ending, Listener};

/// The first ending; later ones change nothing.
pub(super) struct FirstEnding {
    first: Mutex<Option<Ending>>,
    event: EventFd,
}

impl FirstEnding {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        Ok(Arc::new(Self {
            first: Mutex::new(None),
            event,
        }))
    }

    /// What ended the guest, once it has.
    pub(super) fn get(&self) -> Option<Ending> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listener for FirstEnding {
    fn ended(&self, ending: Ending) {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(ending);
        if let Err(error) = self.event.write(1) {
            // Only if it was written 2^64 times before.
            log::error!("tell the event loop of the guest's end: {error}");
        }
    }
}

impl AsRawFd for FirstEnding {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
