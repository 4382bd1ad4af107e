//! The terminal at this end: its size, and raw mode that is left on every way out.

use std::io;
use std::sync::Mutex;

use rustix::termios::{self, OptionalActions, Termios};
use secovia_agent_api::TerminalSize;

/// What the terminal was before it became raw; `None` while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The size where the terminal does not tell one.
const USUAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// Whether a person types at standard input.
pub(crate) fn stdin_is_terminal() -> bool {
    termios::isatty(rustix::stdio::stdin())
}

/// Whether a person reads standard output.
pub(crate) fn stdout_is_terminal() -> bool {
    termios::isatty(rustix::stdio::stdout())
}

/// Whether a person reads standard error.
pub(crate) fn stderr_is_terminal() -> bool {
    termios::isatty(rustix::stdio::stderr())
}

/// The size of the terminal that this process stands on: output's or input's; the usual one where there is none.
pub(crate) fn size() -> TerminalSize {
    [rustix::stdio::stdout(), rustix::stdio::stdin()]
        .into_iter()
        .find_map(|fd| termios::tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or(USUAL, |size| TerminalSize {
            rows: size.ws_row,
            cols: size.ws_col,
        })
}

/// Raw mode of the terminal at standard input, until it is dropped.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Every key goes to the guest as it is, none is echoed or acted upon here.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        *lock() = Some(before);
        let mode = Self(());
        termios::tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back, also where a panic ends the process without running destructors.
pub(crate) fn restore_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        next(info);
    }));
}

fn restore() {
    if let Some(before) = lock().take() {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &before);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
