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

impl Refusal {
    /// This field is refused.
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl std::error::Error for Refusal {}
