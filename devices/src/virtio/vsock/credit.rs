//! Credit accounting of one stream, virtio 1.2 section 5.10.6.3: plain counters, no buffers.
//!
//! The counters are free-running and wrap at 2^32; only differences mean anything.

/// Bytes that a stream may have in flight from the guest: what the host's socket did not take yet is kept, up to
/// this. It bounds the memory that one stream can cost.
pub(super) const BUF_ALLOC: u32 = 128 * 1024;

/// The guest is told about new room once this much was freed since it last heard, so that a sender which waits
/// for room always hears before it stops, and small writes do not cost a packet each.
const UPDATE_STEP: u32 = BUF_ALLOC / 2;

/// Both directions' counters.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// Bytes that came from the guest.
    received: u32,
    /// Of these, the bytes that left for the host (or were dropped); our `fwd_cnt`.
    forwarded: u32,
    /// `forwarded` as the guest last heard it.
    told: u32,
    /// The guest asked, so it is told even when little has changed.
    asked_by_guest: bool,
    /// The guest's buffer size, as it last said.
    peer_alloc: u32,
    /// The guest's `fwd_cnt`, as it last said.
    peer_forwarded: u32,
    /// Bytes that went to the guest.
    sent: u32,
    /// The guest was asked for credit and has not given any yet.
    asked_guest: bool,
}

impl Credit {
    /// What the guest says about itself in every packet.
    pub(super) fn heard(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_alloc = buf_alloc;
        self.peer_forwarded = fwd_cnt;
        if self.room_at_guest() > 0 {
            self.asked_guest = false;
        }
    }

    /// Bytes that the guest can take now. A count that makes no sense (more forwarded than was sent) gives none.
    pub(super) fn room_at_guest(&self) -> u32 {
        self.peer_alloc
            .saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// Bytes went to the guest.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Whether to ask the guest for credit. Once for each time it runs out: a guest with a slow reader answers at
    /// once that there is still none, and asking again would keep both sides busy for nothing.
    pub(super) fn must_ask(&self) -> bool {
        !self.asked_guest
    }

    /// The guest was asked.
    pub(super) fn asked(&mut self) {
        self.asked_guest = true;
    }

    /// Takes `bytes` from the guest if they fit into what it was allowed; `false` if it ignored its credit.
    #[must_use]
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        let buffered = self.received.wrapping_sub(self.forwarded);
        if bytes > BUF_ALLOC.saturating_sub(buffered) {
            return false;
        }
        self.received = self.received.wrapping_add(bytes);
        true
    }

    /// Bytes left for the host.
    pub(super) fn forwarded(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Everything that was received counts as gone: the host takes no more and it was dropped.
    pub(super) fn forwarded_all(&mut self) {
        self.forwarded = self.received;
    }

    /// The guest asked for an update.
    pub(super) fn answer(&mut self) {
        self.asked_by_guest = true;
    }

    /// Whether the guest must hear about new room.
    pub(super) fn must_tell(&self) -> bool {
        self.asked_by_guest || self.forwarded.wrapping_sub(self.told) >= UPDATE_STEP
    }

    /// Our `fwd_cnt` for a packet that is about to leave; the guest knows it from here on.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.asked_by_guest = false;
        self.forwarded
    }
}

#[cfg(test)]
mod tests;
