//! Who is attached to a VM's workload.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts attach sessions, and lets others wait for the first and for the last.
#[derive(Debug, Clone)]
pub struct Sessions {
    count: Arc<watch::Sender<usize>>,
}

/// An attach session, as long as this lives.
#[derive(Debug)]
pub struct SessionGuard {
    count: Arc<watch::Sender<usize>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            count: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Sessions {
    /// One more session.
    pub fn enter(&self) -> SessionGuard {
        self.count.send_modify(|count| *count += 1);
        SessionGuard {
            count: Arc::clone(&self.count),
        }
    }

    /// Waits until somebody is attached.
    pub async fn any(&self) {
        self.until(|count| count > 0).await;
    }

    /// Waits until nobody is.
    pub async fn none(&self) {
        self.until(|count| count == 0).await;
    }

    async fn until(&self, is: impl Fn(usize) -> bool) {
        // The sender lives as long as `self`, so that this only ends when it is so.
        let _ = self.count.subscribe().wait_for(|count| is(*count)).await;
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count = count.saturating_sub(1));
    }
}
