//! A new VM's place in the network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use secovia_agent_api::{ErrorCode, NetworkMode, Publish, Transport, VmCreate};

use super::error::NodeError;
use crate::network::{Lease, Network, Port};

/// The place that the request asks for, beside the `others` that there are.
pub(super) fn port(
    create: &VmCreate,
    network: Option<&Network>,
    others: &[Port],
    last: Option<Ipv4Addr>,
) -> Result<Option<Port>, NodeError> {
    let bad = |message: &str| Err(NodeError::new(ErrorCode::BadRequest, message));
    let network = match (create.network, network) {
        (Some(NetworkMode::None), _) | (None, None) if !create.publish.is_empty() => {
            return bad(
                "`publish` needs a network; leave `network` out, and see that agent.toml has a [network]",
            );
        }
        (Some(NetworkMode::None), _) | (None, None) => return Ok(None),
        (Some(NetworkMode::Node), None) => {
            return bad("`network` is node, and agent.toml has no [network]; add one and restart the agent");
        }
        (Some(NetworkMode::Node) | None, Some(network)) => network,
    };
    network
        .check()
        .map_err(|error| NodeError::new(ErrorCode::Internal, error.to_string()))?;
    for (index, publish) in create.publish.iter().enumerate() {
        if publish.host_port == 0 || publish.guest_port == 0 {
            return bad("`publish` has port 0; ports are 1 to 65535");
        }
        let earlier = create.publish.iter().take(index);
        let elsewhere = others.iter().flat_map(|port| &port.publish);
        if let Some(other) = earlier.chain(elsewhere).find(|other| other.collides(publish)) {
            return Err(taken(publish, &format!("`{other}` is published already")));
        }
        if is_listened_on(network, publish) {
            return Err(taken(publish, "a program of this host listens there"));
        }
    }
    let addresses: BTreeSet<Ipv4Addr> = others.iter().map(|port| port.lease.v4).collect();
    let Some(lease) = Lease::pick(network.policy(), &addresses, last) else {
        let message = format!(
            "all addresses of `network.subnet` ({}) in agent.toml are taken; remove microVMs (`secovia ps --all`)",
            network.policy().subnet
        );
        return Err(NodeError::new(ErrorCode::InsufficientResources, message));
    };
    Ok(Some(Port {
        lease,
        publish: create.publish.clone(),
    }))
}

fn taken(publish: &Publish, by: &str) -> NodeError {
    let message = format!("`publish` has `{publish}`, and {by}; choose another port of the host's");
    NodeError::new(ErrorCode::PortTaken, message)
}

/// Whether the owner's own program has the port: it would be cut off.
fn is_listened_on(network: &Network, publish: &Publish) -> bool {
    let names = match publish.transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
    };
    names.into_iter().any(|name| {
        let table = network.sockets(name);
        table
            .lines()
            .skip(1)
            .filter_map(|line| listener(line, publish.transport))
            .any(|(address, port)| {
                let same = publish
                    .address
                    .is_none_or(|wanted| address.is_unspecified() || address == wanted);
                port == publish.host_port && same && !address.is_loopback()
            })
    })
}

/// Who listens, of a line of the kernel's table (proc_pid_net(5)): the address is in the machine's order, the port is not.
fn listener(line: &str, transport: Transport) -> Option<(IpAddr, u16)> {
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let open = match transport {
        Transport::Tcp => LISTEN,
        Transport::Udp => UNCONNECTED,
    };
    let (address, port) = local.split_once(':').filter(|_| state == open)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.len() {
        8 => IpAddr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes()),
        32 => {
            let mut bytes = [0; 16];
            for (word, to) in bytes.chunks_exact_mut(4).enumerate() {
                let digits = address.get(word * 8..word * 8 + 8)?;
                to.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
            }
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn network() -> Network {
        Network::new(crate::network::tests::policy(), Path::new("/nonexistent"))
    }

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1";
        let v6 = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0 0 0";
        let open = "   2: 00000000:0035 00000000:0000 07 0 0 0";
        let read = |line| listener(line, Transport::Tcp);
        assert_eq!(read(v4), Some(("127.0.0.1".parse().unwrap(), 8080)));
        assert_eq!(read(v6), Some(("::".parse().unwrap(), 80)));
        assert_eq!(read(open), None);
        assert_eq!(
            listener(open, Transport::Udp),
            Some(("0.0.0.0".parse().unwrap(), 53))
        );
        for line in ["", "sl local_address", "0: x:y z:0 0A", "0: 00:0050 0 0A"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn a_port_with_a_listener_is_not_taken_from_it() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let publish: Publish = format!("{port}:80").parse().unwrap();
        assert!(is_listened_on(&network(), &publish));
        let udp = Publish {
            transport: Transport::Udp,
            ..publish.clone()
        };
        assert!(!is_listened_on(&network(), &udp));
    }

    #[test]
    fn a_request_gets_a_place_of_its_own() {
        let network = network();
        let mut create = VmCreate::new("base");
        let none = |create: &VmCreate| port(create, None, &[], None);
        assert_eq!(none(&create).unwrap(), None);
        create.publish = vec!["8080:80".parse().unwrap()];
        assert!(none(&create).unwrap_err().to_string().contains("[network]"));
        let first = port(&create, Some(&network), &[], None).unwrap().unwrap();
        let others = [first.clone()];
        let error = port(&create, Some(&network), &others, None).unwrap_err();
        assert_eq!(error.code, ErrorCode::PortTaken);
        create.publish = vec!["8081:80".parse().unwrap()];
        let second = port(&create, Some(&network), &others, None).unwrap().unwrap();
        assert_ne!(first.lease, second.lease);
        create.network = Some(NetworkMode::None);
        assert!(port(&create, Some(&network), &others, None).is_err());
        create.publish.clear();
        assert_eq!(port(&create, Some(&network), &others, None).unwrap(), None);
    }
}
