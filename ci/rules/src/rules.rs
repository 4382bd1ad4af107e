//! The rules as data, and what breaking one looks like.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// `rules.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    /// Every crate of the workspace.
    pub(crate) crates: BTreeMap<String, CrateRule>,
    /// The files, from the tree's root, that may hold unsafe code.
    pub(crate) unsafe_files: Vec<String>,
    /// So many lines of production code make a file a full room.
    pub(crate) full_room: usize,
}

/// What one crate may know.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrateRule {
    /// The crates of this workspace that it may depend on.
    pub(crate) ours: Vec<String>,
    /// The crates that it must not depend on, not even by way of others.
    pub(crate) never: Vec<String>,
}

impl Rules {
    /// This project's rules; they are part of the program, so that the two cannot differ.
    pub(crate) fn ours() -> Result<Self, serde_json::Error> {
        serde_json::from_str(include_str!("../rules.json"))
    }
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A rule is broken.
    Error(String),
    /// Worth a look.
    Warning(String),
}

impl Finding {
    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(text) => write!(f, "error: {text}"),
            Self::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}
