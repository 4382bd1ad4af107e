//! Wire types and client of the agent's local API.
