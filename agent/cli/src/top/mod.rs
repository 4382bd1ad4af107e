//! `top`: the table of `stats`, live. `view` draws, this looks and listens to keys.

mod view;

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use secovia_agent_api::VmStats;
use secovia_agent_api::client::Client;
use tokio::runtime::Runtime;

use crate::failure::Failure;
use crate::{stats, terminal};
use view::View;

/// `secovia top`.
pub(crate) fn top(runtime: &Runtime, client: &Client, interval: Duration) -> Result<u8, Failure> {
    if !terminal::stdin_is_terminal() || !terminal::stdout_is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; use `secovia stats` in scripts",
        ));
    }
    // Before the screen is taken: an agent that is not there is told in plain text.
    let first = runtime.block_on(stats::look(client))?;
    let mut screen = ratatui::try_init()
        .map_err(|error| Failure::other(format!("top: take over the terminal: {error}")))?;
    let result = watch(runtime, client, interval, first, &mut screen);
    ratatui::restore();
    result.map(|()| 0)
}

fn watch(
    runtime: &Runtime,
    client: &Client,
    interval: Duration,
    mut before: Vec<VmStats>,
    screen: &mut ratatui::DefaultTerminal,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::other(format!("top: {error}"));
    let mut view = View::new(stats::pair(&[], &before));
    loop {
        screen.draw(|frame| view.draw(frame)).map_err(failed)?;
        let next_look = Instant::now() + interval;
        loop {
            let left = next_look.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !event::poll(left).map_err(failed)? {
                continue;
            }
            match event::read().map_err(failed)? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match (key.code, key.modifiers) {
                    (KeyCode::Char('q') | KeyCode::Esc, _) => return Ok(()),
                    (KeyCode::Char('c'), KeyModifiers::CONTROL) => return Ok(()),
                    (code, _) => view.key(code),
                },
                _ => {}
            }
            screen.draw(|frame| view.draw(frame)).map_err(failed)?;
        }
        match runtime.block_on(stats::look(client)) {
            Ok(now) => {
                view.show(stats::pair(&before, &now));
                before = now;
            }
            // It may be restarting: the screen says so and stays.
            Err(failure) => view.trouble(failure.to_string()),
        }
    }
}
