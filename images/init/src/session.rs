//! What is said on one connection: a request, its answer, and the stream that may follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secovia_guest_protocol::{FileSpec, Frame, GuestError, GuestErrorCode, ProcessSpec, Reply, Request};

use crate::children::{Pids, thread};
use crate::connection::{Connection, Incoming, LAST_WORD, ReadError};
use crate::guest::Guest;
use crate::output::{ReaderId, Stream};
use crate::pod::Pod;
use crate::process::{Event, Process};
use crate::stdin::Fed;

/// How long a host may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a host may take to hang up after the last frame.
const LINGER_TIME: Duration = Duration::from_secs(5);
/// The most output in one frame.
const CHUNK: usize = 64 * 1024;
/// How much output of an exec is under way at most.
const EXEC_HISTORY: usize = 256 * 1024;

/// Why a container's name means nothing.
const NO_CONTAINERS: &str = "this guest runs no containers";

/// Serves one connection to its end.
pub(crate) fn serve(guest: &Arc<Guest>, connection: Arc<Connection>) {
    connection.limit_reads(Some(REQUEST_TIME));
    let mut incoming = Incoming::new(&connection);
    let request = match incoming.next() {
        Ok(Some(Frame::Request(request))) => request,
        Ok(Some(_)) => return refuse(&connection, "the first frame is not a request"),
        Ok(None) | Err(ReadError::Socket(_)) => return,
        Err(error @ ReadError::Codec(_)) => return refuse(&connection, &error.to_string()),
    };
    connection.limit_reads(None);
    match request {
        Request::Info {} => answer(&connection, Ok(Reply::Info(guest.info()))),
        Request::Start(spec) => answer(&connection, guest.start(&spec).map(|()| Reply::Done {})),
        Request::Signal { signal } => {
            answer(&connection, guest.signal(signal).map(|()| Reply::Done {}));
        }
        Request::Shutdown { grace_ms } => {
            answer(&connection, Ok(Reply::Done {}));
            guest.shutdown(Duration::from_millis(grace_ms));
        }
        Request::Attach { from, stdin } => attach(guest, &connection, &mut incoming, None, from, stdin),
        Request::Write(spec) => write(guest, &connection, &mut incoming, &spec),
        Request::StartPod(spec) => answer(&connection, guest.start_pod(spec).map(|()| Reply::Done {})),
        Request::Watch {} => match guest.pod() {
            Some(pod) => watch(&connection, &mut incoming, &pod),
            None => refuse(&connection, NO_CONTAINERS),
        },
        Request::AttachTo {
            container,
            run,
            from,
            stdin,
        } => attach(
            guest,
            &connection,
            &mut incoming,
            Some((&container, run)),
            from,
            stdin,
        ),
        Request::Exec(spec) => exec(guest, &connection, &mut incoming, None, spec),
        Request::ExecIn { container, process } => {
            exec(guest, &connection, &mut incoming, Some(&container), process);
        }
    }
}

fn answer(connection: &Connection, result: Result<Reply, GuestError>) {
    // Where the host is gone nobody needs the answer.
    let _ = connection.send(&match result {
        Ok(reply) => Frame::Reply(reply),
        Err(error) => Frame::Error(error),
    });
}

fn refuse(connection: &Connection, message: &str) {
    let error = GuestError {
        code: GuestErrorCode::BadRequest,
        message: message.to_string(),
    };
    connection.send_within(LAST_WORD, &Frame::Error(error));
}

/// Attaches to the workload, or to a run of a container.
fn attach(
    guest: &Guest,
    connection: &Arc<Connection>,
    incoming: &mut Incoming<'_>,
    container: Option<(&str, Option<u32>)>,
    mut from: u64,
    stdin: bool,
) {
    let found = match (guest.pod(), container) {
        (None, None) => Ok((Reply::Done {}, Arc::clone(guest.workload()))),
        (None, Some(_)) => return refuse(connection, NO_CONTAINERS),
        (Some(pod), None) => pod.run(pod.first(), None).map(|(_, run)| (Reply::Done {}, run)),
        (Some(pod), Some((name, wanted))) => pod.run(name, wanted).map(|(number, run)| {
            // What was counted in another run says nothing of this one.
            if wanted.is_some_and(|wanted| wanted != number) {
                from = 0;
            }
            (Reply::Run(number), run)
        }),
    };
    match found {
        Ok((reply, process)) => match process.attach(from) {
            Some(id) => stream(connection, incoming, &process, id, (reply, stdin)),
            None => refuse(
                connection,
                &format!("the workload has not written {from} bytes yet"),
            ),
        },
        Err(error) => answer(connection, Err(error)),
    }
}

/// Takes the bytes of a file.
fn write(guest: &Guest, connection: &Connection, incoming: &mut Incoming<'_>, spec: &FileSpec) {
    let mut file = match guest.new_file(spec) {
        Ok(file) => file,
        Err(error) => return answer(connection, Err(error)),
    };
    answer(connection, Ok(Reply::Done {}));
    connection.limit_reads(Some(REQUEST_TIME));
    let written = loop {
        match incoming.next() {
            Ok(Some(Frame::Stdin(bytes))) => {
                if let Err(error) = file.write(&bytes) {
                    break Err(error);
                }
            }
            Ok(Some(Frame::StdinEof)) => break file.finish(),
            Ok(Some(_)) => return refuse(connection, "this frame has no place in this session"),
            Ok(None) | Err(ReadError::Socket(_)) => return,
            Err(error @ ReadError::Codec(_)) => return refuse(connection, &error.to_string()),
        }
    };
    answer(
        connection,
        written.map(|()| Reply::Done {}).map_err(|error| GuestError {
            code: GuestErrorCode::Failed,
            message: format!(
                "cannot write {:?} in volume {:?}: {error}",
                spec.path, spec.volume
            ),
        }),
    );
}

/// Tells what the containers do from a second thread, and notices here when the host hangs up.
fn watch(connection: &Arc<Connection>, incoming: &mut Incoming<'_>, pod: &Arc<Pod>) {
    answer(connection, Ok(Reply::Done {}));
    let gone = Arc::new(AtomicBool::new(false));
    let follower = {
        let (connection, pod, gone) = (Arc::clone(connection), Arc::clone(pod), Arc::clone(&gone));
        thread("watch", move || {
            let mut version = None;
            while let Some(report) = pod.next_report(&mut version, &gone) {
                if connection.send(&Frame::Pod(report)).is_err() {
                    break;
                }
            }
            if let Some(status) = pod.outcome()
                && connection.send(&Frame::Exit(status)).is_ok()
            {
                connection.linger(LINGER_TIME);
            }
            connection.hang_up();
        })
    };
    if follower.is_ok() && matches!(incoming.next(), Ok(Some(_)) | Err(ReadError::Codec(_))) {
        refuse(connection, "this frame has no place in this session");
    }
    gone.store(true, Ordering::Relaxed);
    pod.wake();
    connection.hang_up();
}

fn exec(
    guest: &Guest,
    connection: &Arc<Connection>,
    incoming: &mut Incoming<'_>,
    container: Option<&str>,
    spec: ProcessSpec,
) {
    let found = match (guest.pod(), container) {
        (None, None) => Ok((Pids::Ours, spec)),
        (None, Some(_)) => return refuse(connection, NO_CONTAINERS),
        (Some(pod), container) => pod.enter(container.unwrap_or(pod.first()), spec),
    };
    let started = found.and_then(|(pids, spec)| {
        let process = guest.new_process(EXEC_HISTORY, pids)?;
        let id = process.attach(0);
        process.start(&spec).map(|()| (process, id))
    });
    match started {
        Ok((process, Some(id))) => {
            stream(connection, incoming, &process, id, (Reply::Done {}, true));
            process.hang_up();
        }
        // Nothing is less than what was written: byte 0 can always be attached to.
        Ok((process, None)) => process.hang_up(),
        Err(error) => answer(connection, Err(error)),
    }
}

/// Streams output to the host from a second thread and takes the host's frames in this one, until either end is done.
fn stream(
    connection: &Arc<Connection>,
    incoming: &mut Incoming<'_>,
    process: &Arc<Process>,
    id: ReaderId,
    (reply, stdin): (Reply, bool),
) {
    answer(connection, Ok(reply));
    let follower = {
        let (connection, process) = (Arc::clone(connection), Arc::clone(process));
        thread("follow", move || {
            follow(&connection, &process, id);
            process.detach(id);
            connection.hang_up();
        })
    };
    if follower.is_ok()
        && let Err(message) = listen(connection, incoming, process, stdin)
    {
        refuse(connection, &message);
    }
    // The follower may wait for output or for the host to read: both end with this.
    process.detach(id);
    connection.hang_up();
}

/// Sends what the command writes, then how it ended.
fn follow(connection: &Connection, process: &Process, id: ReaderId) {
    loop {
        let (frame, count) = match process.follow(id, CHUNK) {
            Event::Data(stream, bytes) => {
                let count = bytes.len() as u64;
                match stream {
                    Stream::Stdout => (Frame::Stdout(bytes), count),
                    Stream::Stderr => (Frame::Stderr(bytes), count),
                }
            }
            Event::Gap(count) => (Frame::Gap(count), count),
            Event::Exit(status) => {
                if connection.send(&Frame::Exit(status)).is_ok() {
                    connection.linger(LINGER_TIME);
                }
                return;
            }
            Event::Detached => return,
        };
        if connection.send(&frame).is_err() {
            return;
        }
        process.advance(id, count);
    }
}

/// Does what the host says until it hangs up; an error is a host that breaks the protocol.
fn listen(
    connection: &Connection,
    incoming: &mut Incoming<'_>,
    process: &Process,
    stdin: bool,
) -> Result<(), String> {
    loop {
        match incoming.next() {
            Ok(Some(Frame::Stdin(bytes))) if stdin => {
                if process.feed(&bytes, connection.as_fd()) == Fed::HungUp {
                    return Ok(());
                }
            }
            Ok(Some(Frame::StdinEof)) if stdin => process.end_input(),
            Ok(Some(Frame::Resize(size))) => process.resize(size),
            // A signal that comes too late, or whose number makes no sense, changes nothing.
            Ok(Some(Frame::Signal(signal))) => drop(process.signal(signal)),
            Ok(Some(_)) => return Err("this frame has no place in this session".to_string()),
            Ok(None) | Err(ReadError::Socket(_)) => return Ok(()),
            Err(error @ ReadError::Codec(_)) => return Err(error.to_string()),
        }
    }
}
