//! What a vCPU's thread is doing, as one value.

/// What the machine wants of its vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Execute the guest.
    Run,
    /// Hold still, with all registers in place.
    Pause,
    /// Come to an end.
    Finish,
}

/// What one vCPU's thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Executes the guest.
    Running,
    /// Waits for the next request.
    Paused,
    /// Has ended, or is about to; nothing leads out of it.
    Finished,
}

impl RunState {
    /// The state after a request.
    pub fn on_request(self, request: Request) -> Self {
        match (self, request) {
            (Self::Finished, _) | (_, Request::Finish) => Self::Finished,
            (_, Request::Run) => Self::Running,
            (_, Request::Pause) => Self::Paused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_lead_where_they_say() {
        assert_eq!(RunState::Paused.on_request(Request::Run), RunState::Running);
        assert_eq!(RunState::Running.on_request(Request::Pause), RunState::Paused);
        assert_eq!(RunState::Running.on_request(Request::Finish), RunState::Finished);
        assert_eq!(RunState::Paused.on_request(Request::Finish), RunState::Finished);
    }

    #[test]
    fn nothing_leads_out_of_the_end() {
        for request in [Request::Run, Request::Pause, Request::Finish] {
            assert_eq!(RunState::Finished.on_request(request), RunState::Finished);
        }
    }
}
