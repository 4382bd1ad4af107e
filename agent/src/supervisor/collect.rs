//! Keeps a workload's output.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secovia_guest_protocol::{ExitStatus, Frame, Reply, Request};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, sleep_until};

use crate::guest::{self, FrameStream, GuestCallError};
use crate::logs::{LogWriter, Piece};

/// The wait before a guest that was lost is asked again.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// The least time between two writes to the log: a workload that floods its output is to wait for the agent, and not
/// the host's owner for it.
const PACE: Duration = Duration::from_millis(5);

/// How much output is written at a time.
const BATCH: usize = 256 * 1024;

/// Reads the guest's output into the log, from the byte on that the log ends with.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    /// The way to the guest.
    pub(super) socket: PathBuf,
    /// Of which container, where there are several.
    pub(super) container: Option<String>,
    /// The workload's input is not for anybody: end it at once.
    pub(super) end_input: bool,
    /// Only one stream is read at a time; the lock is there for the compiler and the pause between two streams.
    pub(super) log: Arc<Mutex<LogWriter>>,
    /// Told when the log has grown.
    pub(super) grown: Arc<watch::Sender<u64>>,
    /// The agent's log has it that the guest cannot be attached to: once is enough, for a guest can do it for ever.
    pub(super) told: Arc<AtomicBool>,
}

impl Collector {
    /// Attaches to the workload's output; tries until the VMM is gone.
    pub(super) async fn attach(&self, gone: &mut watch::Receiver<bool>) -> Option<FrameStream> {
        loop {
            if *gone.borrow() {
                return None;
            }
            let from = self.log().output();
            let request = Request::Attach {
                from,
                stdin: self.end_input,
            };
            match self.open(request).await {
                Ok(stream) => return Some(stream),
                Err(error) if self.told.swap(true, Ordering::Relaxed) => {
                    log::debug!("attach to {}: {error}", self.socket.display());
                }
                Err(error) => log::warn!("attach to {}: {error}; trying on", self.socket.display()),
            }
            sleep(AGAIN).await;
        }
    }

    async fn open(&self, request: Request) -> Result<FrameStream, GuestCallError> {
        let (_, mut stream) = guest::open(&self.socket, request).await?;
        if self.end_input {
            stream.send(&Frame::StdinEof).await?;
        }
        Ok(stream)
    }

    /// The number of the run that the log ends with.
    pub(super) fn last_run(&self) -> Option<u32> {
        self.log().run()
    }

    /// Attaches to a run of a container, from the byte on that the log ends with; gives the number of that which is there.
    pub(super) async fn attach_run(&self, wanted: u32) -> Result<(u32, FrameStream), GuestCallError> {
        let from = {
            let log = self.log();
            if log.run() == Some(wanted) {
                log.output()
            } else {
                0
            }
        };
        let request = Request::AttachTo {
            container: self.container.clone().unwrap_or_default(),
            run: Some(wanted),
            from,
            stdin: false,
        };
        let (run, stream) = match guest::open(&self.socket, request).await? {
            (Reply::Run(run), stream) => (run, stream),
            _ => return Err(GuestCallError::Protocol("it does not say which run".into())),
        };
        let mut log = self.log();
        if log.run() != Some(run)
            && let Err(error) = block_in_place(|| log.begin_run(Some(run)))
        {
            log::warn!("{error}");
        }
        Ok((run, stream))
    }

    /// Reads until the workload's exit; nothing where the VMM is gone before.
    pub(super) async fn run(
        self,
        mut stream: FrameStream,
        mut gone: watch::Receiver<bool>,
    ) -> Option<ExitStatus> {
        loop {
            match self.read(&mut stream).await {
                Ok(status) => return Some(status),
                Err(error) => log::debug!("output from {}: {error}", self.socket.display()),
            }
            sleep(AGAIN).await;
            stream = self.attach(&mut gone).await?;
        }
    }

    /// Reads until the exit, or until the connection is lost.
    pub(super) async fn read(&self, stream: &mut FrameStream) -> Result<ExitStatus, GuestCallError> {
        let mut not_before = Instant::now();
        loop {
            // Meanwhile more arrives, and is read at once.
            sleep_until(not_before).await;
            let mut next = stream.next().await?;
            let mut pieces = Vec::new();
            let mut bytes = 0;
            let mut exit = None;
            // All that has arrived is one batch.
            while let Some(frame) = next {
                let (length, piece) = match frame {
                    Frame::Stdout(data) => (data.len(), Piece::Stdout(data)),
                    Frame::Stderr(data) => (data.len(), Piece::Stderr(data)),
                    Frame::Gap(count) => (0, Piece::Gap(count)),
                    Frame::Exit(status) => {
                        exit = Some(status);
                        break;
                    }
                    Frame::Error(error) => return Err(GuestCallError::Refused(error)),
                    _ => return Err(GuestCallError::Protocol("a frame that is no output".into())),
                };
                bytes += length;
                pieces.push(piece);
                next = if bytes < BATCH { stream.ready()? } else { None };
            }
            let ended = pieces.is_empty() && exit.is_none();
            self.keep(pieces);
            not_before = Instant::now() + PACE;
            match exit {
                Some(status) => return Ok(status),
                None if ended => {
                    let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(GuestCallError::Unreachable(error));
                }
                None => {}
            }
        }
    }

    /// Writes to the log. A log that cannot be written must not stop the workload: what is lost is told as a gap.
    fn keep(&self, pieces: Vec<Piece>) {
        if pieces.is_empty() {
            return;
        }
        block_in_place(|| {
            let mut log = self.log();
            if let Err(error) = log.append(&pieces) {
                log::warn!("{error}; output is lost");
                log.lose(&pieces);
            }
        });
        self.grown.send_modify(|count| *count += 1);
    }

    fn log(&self) -> MutexGuard<'_, LogWriter> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
