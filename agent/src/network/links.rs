//! Namespaces and links, by netlink. A thread's network namespace is its own, so each function works in a thread of its
//! own that ends with it.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::lease::{GATEWAY6, LINK_PREFIX};
use super::{Lease, Observed, TAP, nft};
use crate::sys;

/// Where this thread's network namespace is.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Why links cannot be made, or looked at.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused.
    #[error("{operation} {object}: {source}")]
    Netlink {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// The system refused.
    #[error(
        "{operation} {object}: {source}; the agent needs CAP_NET_ADMIN (secovia-agent-network.conf gives it), and the kernel tun, bridge and veth"
    )]
    System {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        object: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The rules cannot be had.
    #[error(transparent)]
    Rules(#[from] nft::NftError),
}

impl LinkError {
    /// The packet filter cannot be watched.
    pub(super) fn watch(source: io::Error) -> Self {
        system("watch", "the packet filter")(source)
    }
}

/// The host's network namespace: the process's own, or another that it was let into.
#[derive(Debug, Default)]
pub(super) struct Host(Option<File>);

impl Host {
    /// The one that `pinned` leads to; the process's own where that is not there.
    pub(super) fn open(pinned: &Path) -> Self {
        match File::open(pinned) {
            Ok(file) => Self(Some(file)),
            Err(_) => Self(None),
        }
    }

    /// Runs `work` in there, in a thread of its own.
    pub(super) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, LinkError> + Send,
    ) -> Result<T, LinkError> {
        let enter = || match &self.0 {
            Some(file) => {
                setns(file, CloneFlags::CLONE_NEWNET).map_err(system("enter", "the host's network"))
            }
            None => Ok(()),
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("network".to_string())
                .spawn_scoped(scope, || enter().and_then(|()| work()))
                .map_err(system("start", "a thread"))?;
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(system("work in", "a thread")(io::Error::other("it panicked"))))
        })
    }
}

/// A microVM's network namespace. It lives as long as somebody has it: this value, and then the VMM that was started in it.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// Where a child finds it, as long as this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

fn netlink(operation: &'static str, object: &str) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let object = object.to_string();
    move |source| LinkError::Netlink {
        operation,
        object,
        source,
    }
}

fn system<E: Into<io::Error>>(operation: &'static str, object: &'static str) -> impl FnOnce(E) -> LinkError {
    move |error| LinkError::System {
        operation,
        object,
        source: error.into(),
    }
}

/// Speaks with the kernel about the network namespace that this thread is in.
fn speak<T, F: Future<Output = Result<T, LinkError>>>(
    work: impl FnOnce(Handle) -> F,
) -> Result<T, LinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(system("start", "a runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(system("open", "a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let done = work(handle).await;
        connection.abort();
        done
    })
}

/// Makes a namespace with a tap that `uid` may attach to, the rules `rules`, and a link to the host.
pub(super) fn make(host: &Host, lease: &Lease, uid: u32, rules: &str) -> Result<Namespace, LinkError> {
    let namespace = host.run(|| {
        let outside = File::open(OWN_NAMESPACE).map_err(system("open", "the host's network namespace"))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(system("make", "a network namespace"))?;
        let own = File::open(OWN_NAMESPACE).map_err(system("open", "a network namespace"))?;
        // Before there is anything for them to be about.
        nft::apply(rules)?;
        sys::make_tap(TAP, uid).map_err(system("make", "a tap interface"))?;
        speak(|handle| inside(handle, lease, &outside))?;
        Ok(Namespace(own.into()))
    })?;
    address(host, lease)?;
    Ok(namespace)
}

/// Two ports and a bridge between them; the link's other end goes to the host.
async fn inside(handle: Handle, lease: &Lease, host: &File) -> Result<(), LinkError> {
    const BRIDGE: &str = "br0";
    const UP: &str = "up0";
    let far = lease.link();
    let bridge = LinkBridge::new(BRIDGE).mcast_snooping(false);
    let links = handle.link();
    links
        .add(bridge.build())
        .execute()
        .await
        .map_err(netlink("make bridge", BRIDGE))?;
    let pair = LinkVeth::new(UP, &far).build();
    links
        .add(pair)
        .execute()
        .await
        .map_err(netlink("make link", &far))?;
    let bridge = index(&handle, BRIDGE).await?;
    for port in [UP, TAP] {
        let message = LinkUnspec::new_with_name(port).controller(bridge).build();
        links
            .set(message)
            .execute()
            .await
            .map_err(netlink("join to its bridge", port))?;
        // A guest can invent addresses without end; with two ports there is nothing to learn.
        let message = LinkUnspec::new_with_index(index(&handle, port).await?)
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::Learning(false)]));
        links
            .set_port(message.build())
            .execute()
            .await
            .map_err(netlink("quieten", port))?;
    }
    for link in [BRIDGE, UP, TAP] {
        // Before it is up: it would give itself one then.
        let message = LinkUnspec::new_with_name(link)
            .append_extra_attribute(unaddressed())
            .build();
        links
            .set(message)
            .execute()
            .await
            .map_err(netlink("keep from addresses", link))?;
        let message = LinkUnspec::new_with_name(link).up().build();
        links
            .set(message)
            .execute()
            .await
            .map_err(netlink("switch on", link))?;
    }
    let message = LinkUnspec::new_with_name(&far)
        .setns_by_fd(host.as_raw_fd())
        .build();
    links
        .set(message)
        .execute()
        .await
        .map_err(netlink("hand to the host link", &far))
}

/// A link that gives itself no address.
fn unaddressed() -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])])
}

/// Gives the host's end of a link its addresses, and the host the routes to the microVM. What is there already stays.
pub(super) fn address(host: &Host, lease: &Lease) -> Result<(), LinkError> {
    let name = lease.link();
    host.run(|| {
        speak(async |handle| {
            for message in [
                LinkUnspec::new_with_name(&name).append_extra_attribute(unaddressed()),
                LinkUnspec::new_with_name(&name).up(),
            ] {
                let set = handle.link().set(message.build());
                set.execute().await.map_err(netlink("switch on", &name))?;
            }
            let index = index(&handle, &name).await?;
            let addresses: [(IpAddr, u8); 2] = [(lease.gateway.into(), 32), (GATEWAY6.into(), 64)];
            for (address, length) in addresses {
                let mut add = handle.address().add(index, address, length).replace();
                if address.is_ipv6() {
                    // There is nobody on the link who could have it too.
                    let flags = AddressFlags::Nodad | AddressFlags::Permanent;
                    add.message_mut().attributes.push(AddressAttribute::Flags(flags));
                }
                add.execute().await.map_err(netlink("address link", &name))?;
            }
            let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(lease.v4, 32)
                .output_interface(index)
                .pref_source(lease.gateway)
                .scope(rtnetlink::packet_route::route::RouteScope::Link);
            let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(lease.v6, 128)
                .output_interface(index);
            for route in [v4.build(), v6.build()] {
                let add = handle.route().add(route).replace();
                add.execute().await.map_err(netlink("route to link", &name))?;
            }
            Ok(())
        })
    })
}

/// Removes the host's end of a link, and with it the other. One that is gone is no error.
pub(super) fn remove(host: &Host, name: &str) -> Result<(), LinkError> {
    host.run(|| {
        speak(async |handle| {
            let Some(index) = find(&handle, name).await? else {
                return Ok(());
            };
            match handle.link().del(index).execute().await {
                Err(error) if is_missing(&error) => Ok(()),
                done => done.map_err(netlink("remove link", name)),
            }
        })
    })
}

/// What is on the host: our links, and the networks that it is attached to or has routes to, each with what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    pub(super) observed: Observed,
    /// Networks that addresses of the host's are in.
    pub(super) attached: Vec<IpNet>,
    /// Destinations of the owner's routes, but for the default.
    pub(super) routes: Vec<IpNet>,
}

pub(super) fn look(host: &Host) -> Result<Surroundings, LinkError> {
    host.run(|| {
        speak(async |handle| {
            let mut seen = Surroundings::default();
            let mut ours = Vec::new();
            let mut links = handle.link().get().execute();
            while let Some(link) = links.try_next().await.map_err(netlink("list", "links"))? {
                let name = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                });
                if let Some(name) = name.filter(|name| name.starts_with(LINK_PREFIX)) {
                    ours.push(link.header.index);
                    seen.observed.links.insert(name.clone());
                }
            }
            let mut addresses = handle.address().get().execute();
            while let Some(address) = addresses.try_next().await.map_err(netlink("list", "addresses"))? {
                if !ours.contains(&address.header.index) {
                    seen.attached.extend(network(&address));
                }
            }
            for message in [
                RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
                RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            ] {
                let mut routes = handle.route().get(message).execute();
                while let Some(route) = routes.try_next().await.map_err(netlink("list", "routes"))? {
                    let out = route.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    });
                    if !out.is_some_and(|index| ours.contains(&index)) {
                        seen.routes.extend(destination(&route));
                    }
                }
            }
            Ok(seen)
        })
    })
}

fn network(message: &AddressMessage) -> Option<IpNet> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => IpNet::new(*address, message.header.prefix_len).ok(),
        _ => None,
    })
}

fn destination(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            IpNet::new((*address).into(), length).ok()
        }
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
            IpNet::new((*address).into(), length).ok()
        }
        _ => None,
    })
}

async fn index(handle: &Handle, name: &str) -> Result<u32, LinkError> {
    match find(handle, name).await? {
        Some(index) => Ok(index),
        None => Err(system("find", "a link that was just made")(io::Error::from(
            io::ErrorKind::NotFound,
        ))),
    }
}

async fn find(handle: &Handle, name: &str) -> Result<Option<u32>, LinkError> {
    let mut links = handle.link().get().match_name(name.to_string()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(netlink("look for link", name)(error)),
    }
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.raw_code() == -libc::ENODEV,
        _ => false,
    }
}
