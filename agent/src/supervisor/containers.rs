//! Drives a guest with several containers: brings it to run them, keeps their output, and reports what they do. It decides
//! nothing.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secovia_guest_protocol::{
    ContainerReport, ExitStatus, FileSpec, Frame, GuestErrorCode, MAX_PAYLOAD, PodReport, PodSpec, Request,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::collect::{AGAIN, Collector};
use crate::guest::{self, FrameStream, GuestCallError};
use crate::logs::LogWriter;

/// How long what containers wrote last may take to be read when all have ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The least time between two reports that are taken from a guest: it could say something new for ever.
const PACE: Duration = Duration::from_millis(100);

/// How long the guest may take over one file.
const FILE_TIME: Duration = Duration::from_secs(30);

/// What the guest is to be told before its containers start, and then.
pub(super) struct Containers {
    pub(super) spec: PodSpec,
    /// Files of volumes. May be secrets: never logged.
    pub(super) files: Vec<(FileSpec, Vec<u8>)>,
    /// For each container, in the order of the guest's reports, where its output is kept.
    pub(super) logs: Vec<(String, PathBuf)>,
    pub(super) log_max_bytes: u64,
    /// Told when a log has grown.
    pub(super) grown: Arc<watch::Sender<u64>>,
}

/// How far a container has come: what its collector waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// The number of the last run that there was.
    run: Option<u32>,
    /// There will be none more.
    is_over: bool,
}

impl Containers {
    /// Writes the files and starts the containers.
    pub(super) async fn start(&self, socket: &std::path::Path) -> Result<(), GuestCallError> {
        for (spec, bytes) in &self.files {
            let write = write(socket, spec, bytes);
            match timeout(FILE_TIME, write).await {
                Ok(written) => written?,
                Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        }
        guest::call(socket, Request::StartPod(self.spec.clone()))
            .await
            .map(drop)
    }

    /// Keeps the output and tells what the containers do until all have ended: with which status, or nothing where the VMM
    /// is gone before.
    pub(super) async fn follow(
        self,
        socket: PathBuf,
        mut gone: watch::Receiver<bool>,
        tell: impl Fn(Vec<ContainerReport>),
    ) -> Option<ExitStatus> {
        let mut collecting = JoinSet::new();
        let mut progress = Vec::new();
        for (name, dir) in &self.logs {
            let sender = watch::Sender::new(Progress::default());
            let log = match LogWriter::open(dir, self.log_max_bytes) {
                Ok(log) => log,
                Err(error) => {
                    log::warn!("{error}; the output of container {name} is not kept");
                    progress.push(sender);
                    continue;
                }
            };
            let collector = Collector {
                socket: socket.clone(),
                container: Some(name.clone()),
                end_input: false,
                log: Arc::new(Mutex::new(log)),
                grown: Arc::clone(&self.grown),
                told: Arc::new(AtomicBool::new(false)),
            };
            collecting.spawn(collect(collector, sender.subscribe(), gone.clone()));
            progress.push(sender);
        }
        let status = loop {
            if *gone.borrow() {
                return None;
            }
            let heard = |report: PodReport| {
                // A guest that tells of other containers than it was given is not believed.
                if report.containers.len() != progress.len() {
                    return;
                }
                for (container, sender) in report.containers.iter().zip(&progress) {
                    let run = super::report::has_run(container).then_some(container.restarts);
                    sender.send_if_modified(|now| {
                        let is_new = run > now.run;
                        now.run = now.run.max(run);
                        is_new
                    });
                }
                tell(report.containers);
            };
            match listen(&socket, heard).await {
                Ok(status) => break status,
                Err(error) => log::debug!("containers of {}: {error}", socket.display()),
            }
            tokio::select! {
                _ = gone.wait_for(|gone| *gone) => return None,
                () = sleep(AGAIN) => {}
            }
        };
        for sender in &progress {
            sender.send_modify(|now| now.is_over = true);
        }
        let _ = timeout(LAST_WORDS, async {
            while collecting.join_next().await.is_some() {}
        })
        .await;
        Some(status)
    }
}

async fn write(socket: &std::path::Path, spec: &FileSpec, bytes: &[u8]) -> Result<(), GuestCallError> {
    let (_, mut stream) = match guest::open(socket, Request::Write(spec.clone())).await {
        // An earlier try of this agent's, or of one before, came so far.
        Err(GuestCallError::Refused(error)) if error.code == GuestErrorCode::AlreadyStarted => return Ok(()),
        opened => opened?,
    };
    for piece in bytes.chunks(MAX_PAYLOAD / 4) {
        stream.send(&Frame::Stdin(piece.to_vec())).await?;
    }
    stream.send(&Frame::StdinEof).await?;
    match stream.next().await? {
        Some(Frame::Reply(_)) => Ok(()),
        Some(Frame::Error(error)) => Err(GuestCallError::Refused(error)),
        _ => Err(GuestCallError::Protocol("a file is not acknowledged".into())),
    }
}

/// Hears what the guest says of its containers, to the end of all, or of the connection.
async fn listen(socket: &std::path::Path, heard: impl Fn(PodReport)) -> Result<ExitStatus, GuestCallError> {
    let (_, mut stream) = guest::open(socket, Request::Watch {}).await?;
    loop {
        match stream.next().await? {
            Some(Frame::Pod(report)) => heard(report),
            Some(Frame::Exit(status)) => return Ok(status),
            Some(Frame::Error(error)) => return Err(GuestCallError::Refused(error)),
            Some(_) => return Err(GuestCallError::Protocol("a frame that is no report".into())),
            None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
        sleep(PACE).await;
    }
}

/// Reads one run of a container after the other.
async fn collect(
    collector: Collector,
    mut progress: watch::Receiver<Progress>,
    mut gone: watch::Receiver<bool>,
) {
    // What the log ends with may be a run that was read to its end; then its end is all that comes again.
    let mut wanted = collector.last_run().unwrap_or(0);
    loop {
        let is_due = |now: &Progress| now.is_over || now.run >= Some(wanted);
        let now = tokio::select! {
            now = progress.wait_for(is_due) => match now {
                Ok(now) => *now,
                Err(_) => return,
            },
            _ = gone.wait_for(|gone| *gone) => return,
        };
        if now.run < Some(wanted) {
            return;
        }
        match read_run(&collector, wanted).await {
            Ok(run) => wanted = run.saturating_add(1),
            // Its last run could not be started: there may be another.
            Err(GuestCallError::Refused(error)) if error.code == GuestErrorCode::NotRunning => {
                if now.is_over || !next(&mut progress, &mut gone, now).await {
                    return;
                }
            }
            Err(error) => {
                log::debug!("output from {}: {error}", collector.socket.display());
                if *gone.borrow() {
                    return;
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// Waits for a change; false where there will be none.
async fn next(
    progress: &mut watch::Receiver<Progress>,
    gone: &mut watch::Receiver<bool>,
    now: Progress,
) -> bool {
    tokio::select! {
        changed = progress.wait_for(|other| *other != now) => changed.is_ok(),
        _ = gone.wait_for(|gone| *gone) => false,
    }
}

/// Reads a run to its end; gives the number of that which was there.
async fn read_run(collector: &Collector, wanted: u32) -> Result<u32, GuestCallError> {
    let (run, mut stream): (u32, FrameStream) = collector.attach_run(wanted).await?;
    collector.read(&mut stream).await?;
    Ok(run)
}
