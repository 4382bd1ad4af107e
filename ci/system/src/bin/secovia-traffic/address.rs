//! Where a stream leads to, and the streams themselves.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, socket,
};

/// Any machine, where one listens.
const ANY: u32 = u32::MAX;

/// A place to connect to or to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `tcp:ADDRESS:PORT`
    Tcp(SocketAddr),
    /// `vsock:CID:PORT`, `any` for the machine where one listens
    Vsock { cid: u32, port: u32 },
    /// `unix:PATH:PORT`: the host's way into a guest of secovia-vmm, whose socket device has this path
    Unix { path: PathBuf, port: u32 },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is none of tcp:ADDRESS:PORT, vsock:CID:PORT and unix:PATH:PORT");
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        if kind == "tcp" {
            return Ok(Self::Tcp(rest.parse().map_err(|_| bad())?));
        }
        let (place, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        match (kind, place) {
            ("vsock", "any") => Ok(Self::Vsock { cid: ANY, port }),
            ("vsock", cid) => Ok(Self::Vsock {
                cid: cid.parse().map_err(|_| bad())?,
                port,
            }),
            ("unix", path) => Ok(Self::Unix {
                path: path.into(),
                port,
            }),
            _ => Err(bad()),
        }
    }
}

impl Address {
    /// Connects. Reading, writing and shutting down are the same for all kinds, so all are a TCP stream from here on.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
            Self::Vsock { cid, port } => {
                let socket = vsock()?;
                connect(socket.as_raw_fd(), &VsockAddr::new(*cid, *port))?;
                Ok(socket.into())
            }
            Self::Unix { path, port } => {
                let mut stream = UnixStream::connect(path)?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                // Byte by byte: what follows the line is the guest's.
                let (mut line, mut byte) = (Vec::new(), [0]);
                while byte != *b"\n" {
                    stream.read_exact(&mut byte)?;
                    line.extend(byte);
                }
                if !line.starts_with(b"OK ") {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Ok(OwnedFd::from(stream).into())
            }
        }
    }

    /// Listens.
    pub(crate) fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address)?)),
            Self::Vsock { cid, port } => {
                let socket = vsock()?;
                bind(socket.as_raw_fd(), &VsockAddr::new(*cid, *port))?;
                listen(&socket, Backlog::MAXCONN)?;
                Ok(Listener::Vsock(socket))
            }
            Self::Unix { .. } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a guest listens at vsock:any:PORT",
            )),
        }
    }
}

fn vsock() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Vsock, SockType::Stream, flags, None)?)
}

/// Where streams come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Vsock(OwnedFd),
}

impl Listener {
    /// Waits for the next stream.
    pub(crate) fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
            // The standard library takes no peer's address but those of IP.
            Self::Vsock(socket) => Ok(rustix::net::accept(socket)?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |text: &str| text.parse::<Address>();
        assert_eq!(
            read("tcp:10.0.0.1:80"),
            Ok(Address::Tcp("10.0.0.1:80".parse().unwrap()))
        );
        assert_eq!(
            read("vsock:any:7"),
            Ok(Address::Vsock {
                cid: u32::MAX,
                port: 7
            })
        );
        assert_eq!(read("vsock:3:7"), Ok(Address::Vsock { cid: 3, port: 7 }));
        let unix = Address::Unix {
            path: "/a:b".into(),
            port: 7,
        };
        assert_eq!(read("unix:/a:b:7"), Ok(unix));
        for bad in ["", "tcp", "tcp:host:80", "vsock:3", "vsock:x:3", "udp:1:2"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
