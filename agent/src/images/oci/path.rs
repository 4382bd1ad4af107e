//! The paths that a layer may name.

/// Longest name and path that Linux has.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// So deep may a path lead. What walks the tree recurses.
const DEPTH_MAX: usize = 128;

/// A name's prefix that takes away what a layer below has under the rest of it.
const WHITEOUT: &str = ".wh.";
/// A name that takes away all that layers below have in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Names that begin so and are not [`OPAQUE`] are notes that a storage driver keeps for itself.
const NOTE: &str = ".wh..wh.";

/// Why a path is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with `/`.
    #[error("is absolute")]
    Absolute,
    /// It leads upwards.
    #[error("leads out through `..`")]
    Upwards,
    /// Bytes that no terminal should be shown and no tool can take.
    #[error("has a control character in it")]
    Control,
    /// Not text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// Longer than Linux can have it.
    #[error("has a name of more than {NAME_MAX} bytes")]
    LongName,
    /// Longer than Linux can have it.
    #[error("has more than {PATH_MAX} bytes")]
    Long,
    /// Deeper than is reasonable.
    #[error("is more than {DEPTH_MAX} directories deep")]
    Deep,
    /// Removes something that has no name.
    #[error("is a whiteout of nothing")]
    EmptyWhiteout,
}

/// The names that a path consists of; none for the root directory.
pub(super) fn parse_path(path: &[u8]) -> Result<Vec<&str>, PathError> {
    let text = parse_text(path)?;
    if text.starts_with('/') {
        return Err(PathError::Absolute);
    }
    let names: Vec<&str> = text
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    if names.contains(&"..") {
        return Err(PathError::Upwards);
    }
    if names.iter().any(|name| name.len() > NAME_MAX) {
        return Err(PathError::LongName);
    }
    if names.len() > DEPTH_MAX {
        return Err(PathError::Deep);
    }
    Ok(names)
}

/// What a symbolic link may point to: any path, for only the guest ever follows it.
pub(super) fn parse_text(path: &[u8]) -> Result<&str, PathError> {
    if path.len() > PATH_MAX {
        return Err(PathError::Long);
    }
    let text = std::str::from_utf8(path).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    Ok(text)
}

/// What a path's last name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// A file.
    File,
    /// Takes away this name in the directory.
    Whiteout(&'a str),
    /// Takes away all that is in the directory.
    Opaque,
    /// Nothing.
    Note,
}

impl<'a> Mark<'a> {
    /// What `name` in the directory `dir` means.
    pub(super) fn of(name: &'a str, dir: &[&str]) -> Result<Self, PathError> {
        if dir.iter().any(|name| name.starts_with(NOTE)) {
            return Ok(Self::Note);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Self::File),
            Some(_) if name == OPAQUE => Ok(Self::Opaque),
            Some(_) if name.starts_with(NOTE) => Ok(Self::Note),
            Some("" | "." | "..") => Err(PathError::EmptyWhiteout),
            Some(rest) => Ok(Self::Whiteout(rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_and_plain() {
        let long = "x".repeat(256);
        let deep = "d/".repeat(129);
        let longest = "d/".repeat(2048);
        type Parsed = Result<Vec<&'static str>, PathError>;
        let table: [(&[u8], Parsed); 13] = [
            (b"usr/bin/sh", Ok(vec!["usr", "bin", "sh"])),
            (b"./usr//bin/./", Ok(vec!["usr", "bin"])),
            (b"./", Ok(vec![])),
            (b"...", Ok(vec!["..."])),
            ("caf\u{e9}".as_bytes(), Ok(vec!["caf\u{e9}"])),
            (b"/etc/passwd", Err(PathError::Absolute)),
            (b"a/../../etc", Err(PathError::Upwards)),
            (b"..", Err(PathError::Upwards)),
            (b"a\nb", Err(PathError::Control)),
            (b"a\xff", Err(PathError::NotUtf8)),
            (long.as_bytes(), Err(PathError::LongName)),
            (deep.as_bytes(), Err(PathError::Deep)),
            (longest.as_bytes(), Err(PathError::Long)),
        ];
        for (path, expected) in table {
            assert_eq!(parse_path(path), expected, "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn marks_are_told_from_files() {
        assert_eq!(Mark::of("wh.x", &["d"]), Ok(Mark::File));
        assert_eq!(Mark::of(".wh.x", &[]), Ok(Mark::Whiteout("x")));
        assert_eq!(Mark::of(".wh..x", &[]), Ok(Mark::Whiteout(".x")));
        assert_eq!(Mark::of(".wh..wh..opq", &[]), Ok(Mark::Opaque));
        assert_eq!(Mark::of(".wh..wh.plnk", &[]), Ok(Mark::Note));
        assert_eq!(Mark::of("x", &[".wh..wh.plnk"]), Ok(Mark::Note));
        for name in [".wh.", ".wh..", ".wh..."] {
            assert_eq!(Mark::of(name, &[]), Err(PathError::EmptyWhiteout), "{name}");
        }
    }
}
