//! What a Pod asks for that this node does not do.

use std::fmt;

/// A field of a Pod that this node does not do as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field's path from the Pod's root, such as `spec.containers[0].securityContext.privileged`.
    pub field: String,
    /// Why, for people.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// Why a Pod is no microVM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It asks for what this node does not do: that stays so, and the Pod fails.
    #[error("this node does not do {}", list(.0))]
    Refused(Vec<Refusal>),
    /// Something is missing that may come: it is tried again.
    #[error("{0}")]
    Missing(String),
}

fn list(refusals: &[Refusal]) -> String {
    let texts: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    texts.join("; ")
}

/// Collects what is refused, so that a Pod's author learns all of it at once.
#[derive(Debug, Default)]
pub(super) struct Judge {
    refused: Vec<Refusal>,
    missing: Vec<String>,
}

impl Judge {
    /// This is not there, and may come.
    pub(super) fn miss(&mut self, what: impl Into<String>) {
        self.missing.push(what.into());
    }

    /// This field is refused.
    pub(super) fn refuse(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.refused.push(Refusal {
            field: field.into(),
            why: why.into(),
        });
    }

    /// This field is refused where that holds.
    pub(super) fn refuse_if(&mut self, holds: bool, field: impl Into<String>, why: &str) {
        if holds {
            self.refuse(field, why);
        }
    }

    /// Whether nothing was refused, and nothing is missing.
    pub(super) fn verdict(self) -> Result<(), Trouble> {
        match (self.refused.is_empty(), self.missing.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(Trouble::Missing(self.missing.join("; "))),
            (false, _) => Err(Trouble::Refused(self.refused)),
        }
    }
}

/// Whether a list is given and has something in it.
pub(super) fn has_any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}
