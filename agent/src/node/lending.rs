//! What the API asks of lending.

use std::time::{Duration, Instant};

use secovia_agent_api::{AuditRecord, AuditVerdict, Offer, Reclaimed};
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::error::NodeError;
use super::service::{Node, show};
use crate::capacity::policy::Policy;
use crate::clock::now_ms;

/// How often is looked whether all is free.
const POLL: Duration = Duration::from_millis(10);

impl Node {
    /// Puts another policy in force.
    pub fn apply(&self, policy: Policy) {
        block_in_place(|| self.desk().apply(policy));
    }

    /// What is lent, and why it is not more.
    pub fn offer(&self) -> Offer {
        self.desk().show(now_ms())
    }

    /// Takes the machine back: returns when all is free, or the deadline is over.
    pub async fn reclaim(&self, within_ms: Option<u64>, uid: u32) -> Reclaimed {
        let begun = Instant::now();
        let ended = self.live().len() as u32;
        let deadline_ms = block_in_place(|| self.desk().order_reclaim(within_ms, uid));
        let deadline = Duration::from_millis(deadline_ms);
        while !self.live().is_empty() && begun.elapsed() < deadline {
            sleep(POLL).await;
        }
        let took_ms = begun.elapsed().as_millis() as u64;
        Reclaimed {
            took_ms,
            deadline_ms,
            ended,
            left: self.live(),
        }
    }

    /// Lends again.
    pub fn release(&self, uid: u32) -> Result<(), NodeError> {
        block_in_place(|| self.desk().order_release(uid)).map_err(NodeError::internal)
    }

    /// The audit log's last records.
    pub fn audit(&self, tail: Option<usize>) -> Result<Vec<AuditRecord>, NodeError> {
        block_in_place(|| self.desk().records(tail)).map_err(NodeError::internal)
    }

    /// Whether the audit log is whole.
    pub fn verify_audit(&self) -> Result<AuditVerdict, NodeError> {
        block_in_place(|| self.desk().verify()).map_err(NodeError::internal)
    }

    /// The names of the VMs that hold a part of the machine.
    fn live(&self) -> Vec<String> {
        let handles = self.handles();
        let live = handles.values().filter_map(|handle| {
            let view = handle.view.borrow();
            let holds = !view.removed && (view.record.life.is_live() || view.vmm_pid.is_some());
            holds.then(|| show(&view).name)
        });
        live.collect()
    }
}
