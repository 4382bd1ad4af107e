//! One stream as a plain state machine: what the guest's packets mean, and what it must be told next.
//!
//! No socket, no queue, no clock. The shell moves the bytes and reports what became of them.

use super::credit::Credit;
use super::packet::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// How far the two ends have come to know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The host asked; the guest is to be told.
    Asking,
    /// The guest was told and has not answered.
    Asked,
    /// The guest asked and the host took it; the guest is to be told.
    Answering,
    /// Bytes flow.
    Open,
}

/// The guest's bytes on their way to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToHost {
    /// They flow.
    Open,
    /// The guest will send no more; the host hears of it after the bytes that are still kept.
    Ending,
    /// The host heard the end.
    Ended,
    /// The host takes no more; whatever comes is dropped.
    Refused,
}

/// The host's bytes on their way to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToGuest {
    /// They flow.
    Open,
    /// The host will send no more, and all of it went out.
    Ended,
    /// The guest takes no more.
    Refused,
}

/// What the shell must do about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing.
    Nothing,
    /// The guest accepted: the host's client gets its `OK`.
    Accepted,
    /// The payload goes to the host.
    Deliver,
    /// The guest will send no more: the host hears of it after the bytes that are still kept.
    EndToHost,
    /// The guest takes no more: what the host still sends has no reader.
    EndToGuest,
    /// The guest is done with the stream and waits for a reset to confirm; bytes that are still kept go out.
    Finished,
    /// The guest reset the stream; bytes that are still kept go out.
    Gone,
    /// The guest broke the protocol: reset, and drop everything.
    Violation(&'static str),
}

/// What the guest must be told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// A packet without payload, with these flags.
    Control(Op, u32),
    /// Up to this many bytes of the host's.
    Data(u32),
}

/// How the guest is to learn that the host's end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It never heard of the stream.
    Forget,
    /// It has not answered yet: by a reset.
    Reset,
    /// In due course, after what is left to read.
    Shutdown,
}

/// A stream between a port of the guest and one of the host.
#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    credit: Credit,
    to_host: ToHost,
    to_guest: ToGuest,
    /// The OP_SHUTDOWN flags that the guest sent so far.
    heard: u32,
    /// The OP_SHUTDOWN flags that the guest was told so far.
    told: u32,
}

impl Connection {
    /// A host's client wants to reach the guest.
    pub(super) fn from_host() -> Self {
        Self::new(State::Asking)
    }

    /// The guest asked with `request`, and somebody on the host listens.
    pub(super) fn from_guest(request: &Header) -> Self {
        let mut connection = Self::new(State::Answering);
        connection.credit.heard(request.buf_alloc, request.fwd_cnt);
        connection
    }

    fn new(state: State) -> Self {
        Self {
            state,
            credit: Credit::default(),
            to_host: ToHost::Open,
            to_guest: ToGuest::Open,
            heard: 0,
            told: 0,
        }
    }

    /// Takes a packet of the guest's for this stream.
    pub(super) fn receive(&mut self, op: Op, header: &Header) -> Reaction {
        self.credit.heard(header.buf_alloc, header.fwd_cnt);
        match (self.state, op) {
            (_, Op::Reset) => Reaction::Gone,
            (State::Asked, Op::Response) => {
                self.state = State::Open;
                Reaction::Accepted
            }
            (State::Open, Op::Data) => self.receive_data(header.len),
            (State::Open | State::Answering, Op::Shutdown) => self.receive_shutdown(header.flags),
            (State::Open | State::Answering, Op::CreditUpdate) => Reaction::Nothing,
            (State::Open | State::Answering, Op::CreditRequest) => {
                self.credit.answer();
                Reaction::Nothing
            }
            (_, Op::Request) => Reaction::Violation("a request for a stream that exists"),
            (_, Op::Response) => Reaction::Violation("a response that nobody waits for"),
            (State::Asking | State::Asked | State::Answering, _) => {
                Reaction::Violation("a packet for a stream that is not open yet")
            }
        }
    }

    fn receive_data(&mut self, len: u32) -> Reaction {
        if !self.credit.receive(len) {
            return Reaction::Violation("more data than the credit allows");
        }
        match self.to_host {
            ToHost::Open => Reaction::Deliver,
            ToHost::Ending | ToHost::Ended => Reaction::Violation("data after the guest had ended it"),
            // The guest may not have heard yet.
            ToHost::Refused => {
                self.credit.forwarded_all();
                Reaction::Nothing
            }
        }
    }

    fn receive_shutdown(&mut self, flags: u32) -> Reaction {
        self.heard |= flags & SHUTDOWN_BOTH;
        if self.heard == SHUTDOWN_BOTH {
            return Reaction::Finished;
        }
        if self.heard & SHUTDOWN_RECEIVE != 0 && self.to_guest != ToGuest::Refused {
            self.to_guest = ToGuest::Refused;
            return Reaction::EndToGuest;
        }
        if self.heard & SHUTDOWN_SEND != 0 && self.to_host == ToHost::Open {
            self.to_host = ToHost::Ending;
            return Reaction::EndToHost;
        }
        Reaction::Nothing
    }

    /// What the guest must be told next; `readable` says that the host has bytes, or their end.
    pub(super) fn due(&self, readable: bool) -> Option<Due> {
        match self.state {
            State::Asking => Some(Due::Control(Op::Request, 0)),
            State::Asked => None,
            State::Answering => Some(Due::Control(Op::Response, 0)),
            State::Open => self.due_open(readable),
        }
    }

    fn due_open(&self, readable: bool) -> Option<Due> {
        // Data first: it carries the credit too.
        if readable && self.to_guest == ToGuest::Open {
            let room = self.credit.room_at_guest();
            if room > 0 {
                return Some(Due::Data(room));
            }
            if self.credit.must_ask() {
                return Some(Due::Control(Op::CreditRequest, 0));
            }
        }
        let flags = self.shutdown_flags();
        if flags & !self.told != 0 {
            return Some(Due::Control(Op::Shutdown, flags));
        }
        self.credit
            .must_tell()
            .then_some(Due::Control(Op::CreditUpdate, 0))
    }

    /// The OP_SHUTDOWN flags that are true of the host's end.
    fn shutdown_flags(&self) -> u32 {
        let receive = match self.to_host {
            ToHost::Refused => SHUTDOWN_RECEIVE,
            ToHost::Open | ToHost::Ending | ToHost::Ended => 0,
        };
        let send = match self.to_guest {
            ToGuest::Ended => SHUTDOWN_SEND,
            ToGuest::Open | ToGuest::Refused => 0,
        };
        receive | send
    }

    /// A packet leaves for the guest, with `payload` bytes: moves the state on and returns our `fwd_cnt` for it.
    pub(super) fn telling(&mut self, op: Op, payload: u32) -> u32 {
        match op {
            Op::Request => self.state = State::Asked,
            Op::Response => self.state = State::Open,
            Op::Shutdown => self.told |= self.shutdown_flags(),
            Op::CreditRequest => self.credit.asked(),
            Op::Data => self.credit.sent(payload),
            Op::Reset | Op::CreditUpdate => {}
        }
        self.credit.tell()
    }

    /// Bytes of the guest's went out to the host.
    pub(super) fn forwarded(&mut self, bytes: u32) {
        self.credit.forwarded(bytes);
    }

    /// Nothing of the guest's is kept back any more. `true` once, when the host is now to hear the end.
    #[must_use]
    pub(super) fn drained(&mut self) -> bool {
        let ending = self.to_host == ToHost::Ending;
        if ending {
            self.to_host = ToHost::Ended;
        }
        ending
    }

    /// The host's bytes have come to their end.
    pub(super) fn host_ended(&mut self) {
        if self.to_guest == ToGuest::Open {
            self.to_guest = ToGuest::Ended;
        }
    }

    /// The host takes no more bytes; those that were kept are dropped.
    pub(super) fn host_refused(&mut self) {
        self.to_host = ToHost::Refused;
        self.credit.forwarded_all();
    }

    /// The host's end is gone altogether; bytes that it sent before may still be there to read.
    pub(super) fn host_gone(&mut self) -> Farewell {
        self.host_refused();
        match self.state {
            State::Asking => Farewell::Forget,
            State::Asked => Farewell::Reset,
            State::Answering | State::Open => Farewell::Shutdown,
        }
    }
}

#[cfg(test)]
mod tests;
