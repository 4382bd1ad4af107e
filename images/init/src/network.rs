//! The guest's interface: what the host says is set, so that nothing has to be asked for on the link.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
    sendto, socket,
};
use secovia_guest_protocol::NetworkSetup;

/// RT_TABLE_MAIN of rtnetlink(7).
const MAIN_TABLE: u8 = 254;

/// Sets the interface up. Called a second time it changes nothing.
pub fn set_up(setup: &NetworkSetup) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(setup.interface.as_str())?;
    let kernel = Kernel::open()?;
    kernel.ask(up(index))?;
    for (address, gateway) in [
        (IpAddr::V4(setup.ipv4), IpAddr::V4(setup.gateway4)),
        (IpAddr::V6(setup.ipv6), IpAddr::V6(setup.gateway6)),
    ] {
        kernel.ask(own(index, address))?;
        kernel.ask(default_route(index, gateway))?;
    }
    Ok(())
}

/// Says who is meant by the machine's name, in an image that does not.
pub fn write_hosts(name: &str) {
    let hosts = Path::new("/etc/hosts");
    if !hosts.exists() {
        // Not worth a failure: an image without /etc, or whose /etc/hosts leads nowhere, is its owner's wish.
        let _ = fs::write(
            hosts,
            format!("127.0.0.1 localhost {name}\n::1 localhost {name}\n"),
        );
    }
}

/// Tells programs where names are asked for.
pub fn write_servers(servers: &[IpAddr]) -> io::Result<()> {
    if !servers.is_empty() {
        let lines = servers.iter().map(|address| format!("nameserver {address}\n"));
        let text: String = lines.collect();
        // A link may lead to where the image's own resolver would write, if it ran.
        let path = "/etc/resolv.conf";
        if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(path)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

fn up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// The address alone, without a network around it: nobody else is on the link.
fn own(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Address(address));
    match address {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            message.header.prefix_len = 32;
            message.attributes.push(AddressAttribute::Local(address));
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = 128;
            // No other has it: it can be used at once.
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    RouteNetlinkMessage::NewAddress(message)
}

/// The gateway is on the link, whatever the addresses look like.
fn default_route(index: u32, gateway: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.table = MAIN_TABLE;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.flags = RouteFlags::Onlink;
    let gateway = match gateway {
        IpAddr::V4(gateway) => {
            message.header.address_family = AddressFamily::Inet;
            RouteAddress::Inet(gateway)
        }
        IpAddr::V6(gateway) => {
            message.header.address_family = AddressFamily::Inet6;
            RouteAddress::Inet6(gateway)
        }
    };
    message.attributes.push(RouteAttribute::Gateway(gateway));
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

/// A way to the kernel (netlink(7)).
struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> io::Result<Self> {
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(
            SocketFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            route,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Asks for a change and waits for the answer.
    fn ask(&self, message: RouteNetlinkMessage) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        if !matches!(message, RouteNetlinkMessage::SetLink(_)) {
            header.flags |= NLM_F_CREATE | NLM_F_REPLACE;
        }
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        sendto(
            self.0.as_raw_fd(),
            &bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.raw_code() != 0 => Err(error.to_io()),
            NetlinkPayload::Error(_) => Ok(()),
            _ => Err(io::Error::other("the kernel did not answer what it was asked")),
        }
    }
}
