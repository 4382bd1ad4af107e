//! The agent itself.

use serde::{Deserialize, Serialize};

/// Which agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// The agent's version.
    pub version: String,
    /// The API's version, `v1`.
    pub api: String,
}

/// Whether the agent is able to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// In one word.
    pub status: HealthStatus,
    /// What is wrong, one sentence each; empty where all is well.
    pub problems: Vec<String>,
    /// microVMs that run.
    pub running: u32,
}

/// The agent's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All is well.
    Ok,
    /// It works, but something is wrong.
    Degraded,
    /// It is still reading its records and adopting what runs.
    Starting,
}
