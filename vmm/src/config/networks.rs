//! Network interfaces: names and addresses. Whether the tap is there, the device finds out when it is opened.

use std::collections::HashSet;

use secovia_devices::virtio::net::NetConfig;
use secovia_vmm_api::NetworkInterfaceSpec;

use super::error::ConfigError;
use super::limits::limit;

/// The longest name of a network interface on Linux.
const NAME_MAX: usize = 15;
/// The least MTU of IPv4.
const MTU_MIN: u16 = 68;

/// Checks the interfaces; they keep their order.
pub(super) fn check(specs: Vec<NetworkInterfaceSpec>) -> Result<Vec<NetConfig>, ConfigError> {
    let mut ids = HashSet::new();
    let mut taps = HashSet::new();
    let mut macs = HashSet::new();
    let mut interfaces = Vec::with_capacity(specs.len());
    for (index, spec) in specs.into_iter().enumerate() {
        let id = spec.iface_id;
        if id.is_empty() {
            return Err(ConfigError::EmptyIfaceId { index });
        }
        if !ids.insert(id.clone()) {
            return Err(ConfigError::DoubledIfaceId { id });
        }
        let tap = spec.host_dev_name;
        if !is_interface_name(&tap) {
            return Err(ConfigError::TapName { id, tap });
        }
        if !taps.insert(tap.clone()) {
            return Err(ConfigError::DoubledTap { id, tap });
        }
        let mac = match spec.guest_mac {
            None => None,
            Some(text) => match parse_mac(&text) {
                Some(mac) if !macs.insert(mac) => return Err(ConfigError::DoubledMac { id, mac: text }),
                Some(mac) => Some(mac),
                None => return Err(ConfigError::BadMac { id, mac: text }),
            },
        };
        if let Some(mtu) = spec.mtu.filter(|mtu| *mtu < MTU_MIN) {
            return Err(ConfigError::SmallMtu {
                id,
                mtu,
                min: MTU_MIN,
            });
        }
        interfaces.push(NetConfig {
            id,
            tap,
            mac,
            mtu: spec.mtu,
            rx_limit: limit(spec.rx_rate_limiter),
            tx_limit: limit(spec.tx_rate_limiter),
        });
    }
    Ok(interfaces)
}

/// What Linux takes as an interface's name. `%` would ask it to choose a number.
fn is_interface_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'))
}

/// Six bytes in hexadecimal with colons, that one interface can have: not all zeroes, no group address.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        // Two digits: from_str_radix would take a sign too.
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let usable = mac[0] & 1 == 0 && mac != [0; 6] && parts.next().is_none();
    usable.then_some(mac)
}
