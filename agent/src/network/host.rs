//! The network as the agent uses it: one lock, under which what is wanted is known and plans are carried out.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use super::links::{self, Host, LinkError, Namespace, Surroundings};
use super::nft;
use super::watch::Changes;
use super::{Lease, NetworkPolicy, Port, Ports, Step, guest_rules, host_rules, plan};

/// The wait before rules that could not be looked at are looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// The node's network.
#[derive(Debug)]
pub struct Network {
    policy: NetworkPolicy,
    host: Host,
    /// The microVMs that are up. Held while the host is changed.
    up: Mutex<Ports>,
}

/// Why a microVM gets no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The owner has the addresses elsewhere.
    #[error(
        "`network.{key}` in agent.toml is {subnet}, and this host has a route to {route}, which overlaps; choose a subnet that \
         nothing of yours has, and restart the agent"
    )]
    Clash {
        /// The key.
        key: &'static str,
        /// Ours.
        subnet: IpNet,
        /// The owner's.
        route: IpNet,
    },
    /// The links cannot be made.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Network {
    /// A network with this policy, in the namespace that `pinned` leads to, or the process's own where there is none. Nothing
    /// is done yet.
    pub fn new(policy: NetworkPolicy, pinned: &Path) -> Self {
        Self {
            policy,
            host: Host::open(pinned),
            up: Mutex::default(),
        }
    }

    /// What it may be.
    pub fn policy(&self) -> &NetworkPolicy {
        &self.policy
    }

    fn up(&self) -> MutexGuard<'_, Ports> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be: what is wrong, and what to do.
    pub fn check(&self) -> Result<(), NetworkError> {
        self.check_clash(&links::look(&self.host)?)
    }

    /// The host's table of sockets, `tcp` or `udp6` and the like (proc_pid_net(5)); empty where it cannot be read.
    pub fn sockets(&self, table: &str) -> String {
        let path = format!("/proc/thread-self/net/{table}");
        self.host
            .run(|| Ok(std::fs::read_to_string(path).unwrap_or_default()))
            .unwrap_or_default()
    }

    /// Makes the host as it should be when exactly `up` are up. For the agent's start.
    pub fn repair(&self, up: Ports) -> Result<(), NetworkError> {
        let mut held = self.up();
        *held = up;
        let seen = links::look(&self.host)?;
        for step in plan(&held, &seen.observed) {
            match step {
                Step::Rules => self.put_rules(&held, &seen)?,
                Step::RemoveLink(name) => {
                    log::info!("link {name} leads to no microVM: removed");
                    links::remove(&self.host, &name)?;
                }
                Step::Address(lease) => links::address(&self.host, &lease)?,
                Step::Missing(lease) => log::warn!(
                    "the microVM with address {} has lost its link to the host; stop and start it",
                    lease.v4
                ),
            }
        }
        Ok(())
    }

    /// Makes a namespace for a VMM that `uid` runs, with a link to the host. The rules are there before the link is.
    pub fn attach(&self, port: &Port, uid: u32) -> Result<Namespace, NetworkError> {
        let mut up = self.up();
        let seen = links::look(&self.host)?;
        self.check_clash(&seen)?;
        // What an earlier run left that the kernel has not removed yet.
        links::remove(&self.host, &port.lease.link())?;
        up.insert(port.lease.v4, port.clone());
        let made = self
            .put_rules(&up, &seen)
            .and_then(|()| links::make(&self.host, &port.lease, uid, &guest_rules(&port.lease)));
        if made.is_err() {
            up.remove(&port.lease.v4);
            // The reason is what counts; what is left in the rules is for nobody, and goes with the next change.
            let _ = links::remove(&self.host, &port.lease.link());
            let _ = self.put_rules(&up, &seen);
        }
        Ok(made?)
    }

    /// Forgets a microVM whose VMM is gone. One that was not up is no error.
    pub fn detach(&self, lease: &Lease) -> Result<(), NetworkError> {
        let mut up = self.up();
        if up.remove(&lease.v4).is_none() {
            return Ok(());
        }
        links::remove(&self.host, &lease.link())?;
        Ok(self.put_rules(&up, &links::look(&self.host)?)?)
    }

    /// Puts the rules back whenever somebody has taken them away, from now on and as long as the network is in use.
    pub fn guard(self: &Arc<Self>) -> Result<(), NetworkError> {
        let changes = self.host.run(|| Changes::open().map_err(LinkError::watch))?;
        let network = Arc::downgrade(self);
        let guard = thread::Builder::new().name("rules".to_string());
        let watching = guard.spawn(move || {
            loop {
                let waited = changes.wait();
                let Some(network) = network.upgrade() else {
                    return;
                };
                if let Err(error) = waited.map_err(LinkError::watch).and_then(|()| network.put_back()) {
                    log::error!("keep the rules of the network: {error}");
                    thread::sleep(AGAIN);
                }
            }
        });
        watching.map_err(LinkError::watch)?;
        Ok(())
    }

    fn put_back(&self) -> Result<(), LinkError> {
        let up = self.up();
        if self.host.run(|| Ok(nft::is_there()?))? {
            return Ok(());
        }
        log::warn!("somebody removed the table inet secovia: it is put back");
        self.put_rules(&up, &links::look(&self.host)?)
    }

    fn put_rules(&self, up: &Ports, seen: &Surroundings) -> Result<(), LinkError> {
        let rules = host_rules(&self.policy, &seen.attached, up);
        self.host.run(|| Ok(nft::apply(&rules)?))
    }

    fn check_clash(&self, seen: &Surroundings) -> Result<(), NetworkError> {
        let ours = [
            ("subnet", IpNet::V4(self.policy.subnet)),
            ("subnet6", IpNet::V6(self.policy.subnet6)),
        ];
        for (key, subnet) in ours {
            let overlaps = |route: &&IpNet| {
                route.prefix_len() > 0 && (route.contains(&subnet) || subnet.contains(*route))
            };
            if let Some(route) = seen.routes.iter().chain(&seen.attached).find(overlaps) {
                let route = *route;
                return Err(NetworkError::Clash { key, subnet, route });
            }
        }
        Ok(())
    }
}
