//! `version`.

use secovia_agent_api::Version;
use secovia_agent_api::client::Client;
use serde::Serialize;

use crate::failure::{Failure, tell};
use crate::output::{print, print_json};

#[derive(Serialize)]
struct Versions {
    /// Of this command.
    client: &'static str,
    /// Of the agent, where it answers.
    agent: Option<Version>,
}

/// `secovia version`.
pub(super) async fn version(client: &Client, json: bool) -> Result<u8, Failure> {
    let agent = client.version().await;
    let versions = Versions {
        client: env!("CARGO_PKG_VERSION"),
        agent: agent.as_ref().ok().cloned(),
    };
    if json {
        print_json(&versions)?;
    } else {
        print(&format!("secovia {}\n", versions.client))?;
        if let Some(agent) = &versions.agent {
            print(&format!("secovia-agent {} (API {})\n", agent.version, agent.api))?;
        }
    }
    // No failure: the question about this command is answered.
    if let Err(error) = agent {
        tell(&format!("version of the agent: {error}"));
    }
    Ok(0)
}
