//! Opening sessions.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use secovia_guest_protocol::{Frame, PORT, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::GuestCallError;
use super::stream::FrameStream;

/// How long the VMM may take to connect us to a guest that may not be up. One whose driver is not there yet may leave us
/// waiting, and another try reaches it sooner then.
const TRY_TIME: Duration = Duration::from_millis(500);

/// How long it may take where the guest has answered before: the host may be busy.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long a guest may take to answer a request.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// `OK ` and a port, with its line end.
const GREETING_MAX: usize = 32;

/// A connection to the guest's PID 1, before the first frame.
pub async fn connect(socket: &Path) -> Result<UnixStream, GuestCallError> {
    connect_within(CONNECT_TIME, socket).await
}

async fn connect_within(time: Duration, socket: &Path) -> Result<UnixStream, GuestCallError> {
    match timeout(time, shake_hands(socket)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

async fn shake_hands(socket: &Path) -> Result<UnixStream, GuestCallError> {
    let mut stream = connect_to_socket(socket).await?;
    stream.write_all(format!("CONNECT {PORT}\n").as_bytes()).await?;
    // Byte by byte: what follows the line is the guest's.
    let mut line = Vec::new();
    loop {
        let byte = stream.read_u8().await?;
        if byte == b'\n' {
            break;
        }
        line.push(byte);
        if line.len() > GREETING_MAX {
            return Err(GuestCallError::Protocol(
                "the VMM answers with a line that does not end".into(),
            ));
        }
    }
    if line.starts_with(b"OK ") {
        Ok(stream)
    } else {
        let line = String::from_utf8_lossy(&line).into_owned();
        Err(GuestCallError::Protocol(format!("the VMM answers {line:?}")))
    }
}

/// Connects to the socket itself, never to where a link of its name leads. Its directory belongs to the VM, and a guest
/// that took its VMM over could lay a link there to a socket that trusts us.
async fn connect_to_socket(path: &Path) -> io::Result<UnixStream> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let held = nix::fcntl::open(path, flags, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(nix::sys::stat::fstat(&held)?.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFSOCK {
        let message = format!("{} is no socket", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", held.as_raw_fd())).await
}

/// Opens a session with `request`: the reply, and the stream of what follows it.
pub async fn open(socket: &Path, request: Request) -> Result<(Reply, FrameStream), GuestCallError> {
    begin(connect(socket).await?, request).await
}

async fn begin(connection: UnixStream, request: Request) -> Result<(Reply, FrameStream), GuestCallError> {
    let mut stream = FrameStream::new(connection);
    let answer = async {
        stream.send(&Frame::Request(request)).await?;
        match stream.next().await? {
            Some(Frame::Reply(reply)) => Ok(reply),
            Some(Frame::Error(error)) => Err(GuestCallError::Refused(error)),
            Some(_) => Err(GuestCallError::Protocol("a frame that is no reply".into())),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    };
    match timeout(ANSWER_TIME, answer).await {
        Ok(reply) => Ok((reply?, stream)),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// A request that is all of its session, to a guest that may not be up; for whoever tries again.
pub async fn try_call(socket: &Path, request: Request) -> Result<Reply, GuestCallError> {
    let connection = connect_within(TRY_TIME, socket).await?;
    begin(connection, request).await.map(|(reply, _)| reply)
}

/// A request that is all of its session.
pub async fn call(socket: &Path, request: Request) -> Result<Reply, GuestCallError> {
    open(socket, request).await.map(|(reply, _)| reply)
}
