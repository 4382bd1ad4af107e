//! The service's place on one cable: a TCP/IP stack (smoltcp), and behind it the store.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use secovia_devices::fill_random;
use secovia_devices::virtio::net::Neighbour;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::http::{self, Answer, Parsed, REQUEST_MAX, Status};
use super::store::SharedMmds;
use super::wire::Wire;

const PORT: u16 = 80;
/// The service's hardware address, Firecracker's: a local one, which no card has.
const MAC: EthernetAddress = EthernetAddress([0x06, 0x01, 0x23, 0x45, 0x67, 0x01]);
/// Connections at a time.
const CONNECTIONS: usize = 8;
/// What each holds of what the guest sends, and of what it is sent.
const RECEIVED: usize = 4096;
const SENT: usize = 16384;
/// How long a guest may leave something unanswered.
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);
/// A connection that did nothing for this long gives way to another.
const IDLE: Duration = Duration::from_millis(500);
/// Where a guest takes no frames, it is not looked for more often than this.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// The service at its address, on the cable of one network interface.
pub struct Endpoint {
    address: Ipv4Addr,
    mmds: SharedMmds,
    wire: Wire,
    stack: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    origin: Instant,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// One connection, or one that may come.
struct Connection {
    socket: SocketHandle,
    /// What was received and not served yet.
    input: Vec<u8>,
    /// What is still to be sent.
    output: Vec<u8>,
    /// Nothing follows what is to be sent.
    last: bool,
    /// When something was received or sent.
    moved: Duration,
}

impl Endpoint {
    /// The service at `address`, on a cable for packets of `mtu` bytes. Fails where the host has no random numbers.
    pub fn new(address: Ipv4Addr, mtu: u16, mmds: SharedMmds) -> io::Result<Self> {
        let mut seed = [0; 8];
        fill_random(&mut seed)?;
        let mut config = Config::new(MAC.into());
        config.random_seed = u64::from_le_bytes(seed);
        let mut wire = Wire::new(mtu);
        let mut stack = Interface::new(config, &mut wire, smoltcp::time::Instant::ZERO);
        stack.update_ip_addrs(|addresses| {
            // Everybody on the cable is a neighbour, whatever address the guest has.
            let _ = addresses.push(IpCidr::new(address.into(), 0));
        });
        let mut endpoint = Self {
            address,
            mmds,
            wire,
            stack,
            sockets: SocketSet::new(vec![]),
            connections: Vec::with_capacity(CONNECTIONS),
            origin: Instant::now(),
        };
        endpoint.open();
        Ok(endpoint)
    }

    /// Makes all sockets anew, and waits for connections.
    fn open(&mut self) {
        self.sockets = SocketSet::new(vec![]);
        self.connections.clear();
        for _ in 0..CONNECTIONS {
            let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
            let mut socket = tcp::Socket::new(buffer(RECEIVED), buffer(SENT));
            socket.set_timeout(Some(SILENCE));
            // A guest that sends a request in pieces waits for no timer.
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(None);
            self.connections.push(Connection {
                socket: self.sockets.add(socket),
                input: Vec::new(),
                output: Vec::new(),
                last: false,
                moved: Duration::ZERO,
            });
        }
        self.serve();
    }

    fn now(&self) -> smoltcp::time::Instant {
        let micros = i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX);
        smoltcp::time::Instant::from_micros(micros)
    }

    /// Does all that can be done now. Bounded by what waits on the wire.
    fn run(&mut self) {
        // A connection that comes now may need room.
        self.make_room(self.origin.elapsed());
        // What is served leads to frames, and what is sent makes room for more.
        for _ in 0..4 {
            let now = self.now();
            self.stack.poll(now, &mut self.wire, &mut self.sockets);
            if !self.serve() {
                return;
            }
        }
    }

    /// Serves every connection; says whether something was moved.
    fn serve(&mut self) -> bool {
        let now = self.origin.elapsed();
        let mut moved = false;
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
            let served = connection.serve(socket, &self.mmds);
            moved |= served;
            // One that has just come has not been idle.
            if served || socket.state() == State::Listen {
                connection.moved = now;
            }
        }
        self.make_room(now);
        moved
    }

    /// Where no connection more can come, the one goes that is over, or that has been idle longest.
    fn make_room(&mut self, now: Duration) {
        let sockets = &self.sockets;
        let state = |connection: &Connection| sockets.get::<tcp::Socket<'_>>(connection.socket).state();
        if self
            .connections
            .iter()
            .any(|connection| state(connection) == State::Listen)
        {
            return;
        }
        let over = |connection: &&mut Connection| (state(connection) != State::TimeWait, connection.moved);
        let idle = |connection: &&mut Connection| {
            state(connection) == State::TimeWait
                || connection.output.is_empty() && now.saturating_sub(connection.moved) >= IDLE
        };
        let Some(gone) = self.connections.iter_mut().filter(idle).min_by_key(over) else {
            return;
        };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(gone.socket);
        socket.abort();
        gone.begin(socket);
    }
}

impl Connection {
    /// Waits for a connection anew, on a socket that is closed.
    fn begin(&mut self, socket: &mut tcp::Socket<'_>) {
        self.input.clear();
        self.output.clear();
        self.last = false;
        // Only fails where it is open, or at port 0.
        let _ = socket.listen(PORT);
    }

    /// Reads what came, answers it, and sends what there is room for; says whether something was moved.
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, mmds: &SharedMmds) -> bool {
        if !socket.is_open() {
            self.begin(socket);
            return false;
        }
        let mut moved = false;
        let mut piece = [0; 1024];
        while !self.last && self.input.len() < REQUEST_MAX {
            let Ok(length @ 1..) = socket.recv_slice(&mut piece) else {
                break;
            };
            self.input
                .extend_from_slice(piece.get(..length).unwrap_or_default());
            moved = true;
        }
        loop {
            if let Ok(length @ 1..) = socket.send_slice(&self.output) {
                self.output.drain(..length.min(self.output.len()));
                moved = true;
            }
            if !self.output.is_empty() {
                return moved;
            }
            if self.last {
                socket.close();
                return moved;
            }
            match http::parse(&self.input) {
                Ok(Parsed::Partial) => break,
                Ok(Parsed::Whole(request, length)) => {
                    self.input.drain(..length.min(self.input.len()));
                    self.output = mmds.lock().answer(&request).bytes(request.close);
                    self.last = request.close;
                }
                Err(error) => {
                    self.input.clear();
                    self.output = Answer::refused(Status::Bad, &error.to_string()).bytes(true);
                    self.last = true;
                }
            }
        }
        // All that the guest will ever send was served.
        if socket.state() == State::CloseWait && !socket.can_recv() {
            socket.close();
        }
        moved
    }
}

impl Neighbour for Endpoint {
    fn is_for_it(&self, head: &[u8]) -> bool {
        const IPV4: &[u8] = &[0x08, 0x00];
        const ARP: &[u8] = &[0x08, 0x06];
        // Where the one that a packet is for stands, and the one that is asked for.
        let at = match head.get(12..14) {
            Some(IPV4) => 30..34,
            Some(ARP) => 38..42,
            _ => return false,
        };
        head.get(at) == Some(&self.address.octets())
    }

    fn take(&mut self, frame: &[u8]) {
        self.wire.put(frame);
        self.run();
    }

    fn give(&mut self) -> Option<Vec<u8>> {
        if !self.wire.has_some() {
            self.run();
        }
        self.wire.get()
    }

    fn has_some(&self) -> bool {
        self.wire.has_some()
    }

    fn wait(&mut self) -> Option<Duration> {
        let now = self.now();
        let wait = self.stack.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(wait.total_micros()).max(LEAST_WAIT))
    }

    fn reset(&mut self) {
        while self.wire.get().is_some() {}
        self.open();
    }
}
