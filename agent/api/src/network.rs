//! Networks of microVMs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What network a microVM has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// None.
    None,
    /// Addresses of this node's, as far as its `[network]` allows.
    Node,
}

impl FromStr for NetworkMode {
    type Err = ParseNetworkModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "node" => Ok(Self::Node),
            _ => Err(ParseNetworkModeError),
        }
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected none or node")]
pub struct ParseNetworkModeError;

/// What carries a published port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host's that leads to a port of the guest's. As a text: `[ADDRESS:]HOSTPORT:GUESTPORT[/udp]`, an address of
/// IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The address of the host's that it is reached at; all where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// The host's port, 1 to 65535.
    pub host_port: u16,
    /// The guest's port, 1 to 65535.
    pub guest_port: u16,
    /// What carries it.
    #[serde(default)]
    pub transport: Transport,
}

impl Publish {
    /// Whether both would take the same port of the host's.
    pub fn collides(&self, other: &Self) -> bool {
        let same_address = match (self.address, other.address) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        same_address && self.host_port == other.host_port && self.transport == other.transport
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        write!(f, "{}:{}", self.host_port, self.guest_port)?;
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

/// A text that publishes no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected [ADDRESS:]HOSTPORT:GUESTPORT[/udp], such as 8080:80 or [::1]:5353:53/udp; ports are 1 to 65535"
)]
pub struct ParsePublishError;

impl FromStr for Publish {
    type Err = ParsePublishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ports, transport) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Transport::Tcp),
            Some((ports, "udp")) => (ports, Transport::Udp),
            Some(_) => return Err(ParsePublishError),
        };
        let (rest, guest) = ports.rsplit_once(':').ok_or(ParsePublishError)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, host)) => (Some(parse_address(address)?), host),
        };
        Ok(Self {
            address,
            host_port: parse_port(host)?,
            guest_port: parse_port(guest)?,
            transport,
        })
    }
}

fn parse_address(text: &str) -> Result<IpAddr, ParsePublishError> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).map_err(|_| ParsePublishError),
        None => text.parse().map(IpAddr::V4).map_err(|_| ParsePublishError),
    }
}

fn parse_port(text: &str) -> Result<u16, ParsePublishError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(ParsePublishError),
    }
}

/// A microVM's place in the network. It stays the same until the microVM is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmNetwork {
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ipv4: Ipv4Addr,
    /// Its address in IPv6.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ipv6: Ipv6Addr,
    /// Its interface's address, six bytes in hexadecimal.
    pub mac: String,
    /// The ports of the host's that lead to it.
    pub publish: Vec<Publish>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_reads_as_it_is_shown() {
        for (text, address, transport) in [
            ("8080:80", None, Transport::Tcp),
            ("192.0.2.1:8080:80", Some("192.0.2.1"), Transport::Tcp),
            ("[2001:db8::1]:8080:80/udp", Some("2001:db8::1"), Transport::Udp),
        ] {
            let publish: Publish = text.parse().unwrap();
            let address = address.map(|address| address.parse().unwrap());
            let expected = Publish {
                address,
                host_port: 8080,
                guest_port: 80,
                transport,
            };
            assert_eq!((&publish, publish.to_string()), (&expected, text.to_string()));
            let json = serde_json::to_string(&publish).unwrap();
            assert_eq!(serde_json::from_str::<Publish>(&json).unwrap(), publish);
        }
        assert_eq!("53:53/tcp".parse::<Publish>().unwrap().to_string(), "53:53");
        for text in [
            "",
            "80",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "65536:1",
            "+1:1",
            "1:1/sctp",
            "x:1:1",
            "::1:1:1",
            "[::1:1:1",
            "[192.0.2.1]:1:1",
            "1:1/udp/udp",
            "1:1/tcp/tcp",
        ] {
            assert_eq!(text.parse::<Publish>(), Err(ParsePublishError), "{text}");
        }
    }

    #[test]
    fn two_collide_where_they_take_the_same_port() {
        let publish = |text: &str| text.parse::<Publish>().unwrap();
        let one = publish("8080:80");
        for (other, collides) in [
            ("8080:81", true),
            ("192.0.2.1:8080:80", true),
            ("8081:80", false),
            ("8080:80/udp", false),
        ] {
            let other = publish(other);
            assert_eq!(
                (one.collides(&other), other.collides(&one)),
                (collides, collides),
                "{other}"
            );
        }
        assert!(!publish("192.0.2.1:1:1").collides(&publish("192.0.2.2:1:1")));
    }
}
