//! The last words of a VMM and its guest, for whoever wants to know why it ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::process::{Ended, Place};

/// How far back the last words are looked for.
const TAIL: u64 = 16 * 1024;

/// No hint is longer.
const LENGTH_MAX: usize = 240;

/// How the VMM ended, with what it or its guest said last.
pub(super) fn explain(ended: Ended, place: &Place) -> String {
    let what = ended.describe();
    let said = last_line(&place.errors(), |_| true).map(|line| format!("it said: {line}"));
    let panicked = || {
        let line = last_line(&place.console(), |line| line.contains("Kernel panic"))?;
        Some(format!("its console says: {line}"))
    };
    match said.or_else(panicked) {
        Some(hint) => format!("{what}; {hint}"),
        None => what,
    }
}

/// The last line of a file that is `wanted`, without what would harm a terminal.
fn last_line(path: &Path, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let bytes = tail(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty() && wanted(line))?;
    Some(plain(line)).filter(|line| !line.is_empty())
}

/// What a guest or its VMM said, in one line that is not too long and harms no terminal.
pub(super) fn plain(text: &str) -> String {
    let text = text
        .trim()
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c });
    text.filter(|c| !c.is_control()).take(LENGTH_MAX).collect()
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vmm_is_heard_before_its_guest() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            runtime: dir.path().into(),
            jail: dir.path().into(),
            state: dir.path().into(),
        };
        let ended = Ended::Exited(4);
        let plain = explain(ended, &place);
        assert_eq!(plain, ended.describe());
        std::fs::write(
            place.console(),
            "ok\n[1.0] Kernel panic - not syncing: \x1b[31mno init\n---\n",
        )
        .unwrap();
        assert_eq!(
            explain(ended, &place),
            format!("{plain}; its console says: [1.0] Kernel panic - not syncing: [31mno init")
        );
        std::fs::write(place.errors(), format!("first\nkvm: {}\n\n", "x".repeat(500))).unwrap();
        let said = explain(ended, &place);
        assert!(said.starts_with(&format!("{plain}; it said: kvm: xxx")), "{said}");
        assert!(said.len() < plain.len() + LENGTH_MAX + 20);
    }
}
