//! The metadata service's place in the machine.

use std::net::Ipv4Addr;

use secovia_vmm_api::{MmdsConfigSpec, MmdsVersion, NetworkInterfaceSpec};

use super::error::ConfigError;

/// Where it is, if nothing is said: where such services are everywhere.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How the guest reaches the metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MmdsConfig {
    /// Whether it takes a token to read.
    pub version: MmdsVersion,
    /// On which interfaces.
    pub interfaces: Vec<String>,
    /// At which address.
    pub address: Ipv4Addr,
    /// Answers are text, whatever was asked for.
    pub text_only: bool,
}

pub(super) fn check(
    spec: MmdsConfigSpec,
    networks: &[NetworkInterfaceSpec],
) -> Result<MmdsConfig, ConfigError> {
    let interfaces = spec.network_interfaces;
    if interfaces.is_empty() {
        return Err(ConfigError::NoMmdsInterface);
    }
    if let Some(id) = interfaces
        .iter()
        .find(|id| !networks.iter().any(|network| network.iface_id == **id))
    {
        return Err(ConfigError::UnknownMmdsInterface { id: id.clone() });
    }
    let address = spec.ipv4_address.unwrap_or(ADDRESS);
    // The first and the last 256 link-local addresses are reserved (RFC 3927, 2.1).
    if !address.is_link_local() || matches!(address.octets(), [_, _, 0 | 255, _]) {
        return Err(ConfigError::MmdsAddress { address });
    }
    Ok(MmdsConfig {
        version: spec.version,
        interfaces,
        address,
        text_only: spec.imds_compat,
    })
}
