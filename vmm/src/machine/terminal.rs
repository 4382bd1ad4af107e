//! The terminal on standard input: raw while a machine's console is on it, as it was before afterwards.

use std::io::{self, IsTerminal};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// Puts the terminal back when dropped.
pub(super) struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    /// Makes the terminal raw, so that every key goes to the guest; does nothing where standard input is no terminal, or
    /// one that another job is using.
    pub(super) fn enter() -> Self {
        let input = io::stdin();
        if !input.is_terminal() || tcgetpgrp(&input) != Ok(getpgrp()) {
            return Self { before: None };
        }
        let before = tcgetattr(&input).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            if let Err(error) = tcsetattr(&input, SetArg::TCSANOW, &raw) {
                log::debug!("make the terminal raw: {error}");
            }
        }
        Self { before }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = tcsetattr(io::stdin(), SetArg::TCSANOW, before)
        {
            log::debug!("put the terminal back: {error}");
        }
    }
}
