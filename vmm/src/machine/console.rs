//! Standard output from the serial port, and standard input on its way to it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events};
use secovia_devices::serial::{BoundedFile, LimitedWriter, PatientWriter, Serial};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::MachineError;
use crate::config::ConsoleConfig;

/// The serial port takes no more at a time.
const CHUNK: usize = 64;

/// How long a vCPU waits for a reader of the console that does not keep up, before bytes are lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the guest's console goes. A file has no reader who empties it: it holds `limit` bytes, where that is given.
pub(super) fn output(
    config: &ConsoleConfig,
    limit: Option<u64>,
) -> Result<Box<dyn Write + Send>, MachineError> {
    let output = unlimited(config.path.as_deref(), limit)?;
    Ok(match config.limit {
        Some(limit) => Box::new(LimitedWriter::new(output, limit)),
        None => output,
    })
}

/// Where it goes, however much that is in a time.
fn unlimited(path: Option<&Path>, limit: Option<u64>) -> Result<Box<dyn Write + Send>, MachineError> {
    let open = || {
        let output = match path {
            // A FIFO that nobody reads yet would otherwise make this wait.
            Some(path) => File::options()
                .append(true)
                .read(true)
                .create(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)?,
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        let bounded = limit.filter(|_| output.metadata().is_ok_and(|metadata| metadata.is_file()));
        Ok::<Box<dyn Write + Send>, io::Error>(match bounded {
            Some(limit) => Box::new(BoundedFile::new(output, limit)?),
            None => Box::new(PatientWriter::new(output, PATIENCE)),
        })
    };
    open().map_err(|source| match path {
        Some(path) => MachineError::Device {
            field: "serial.serial_out_path".into(),
            reason: format!(
                "{}: {source}; give a file or FIFO that can be written",
                path.display()
            ),
        },
        None => MachineError::host("take standard output for the console")(source),
    })
}

/// The console's input. While the guest does not read, standard input is not watched: whoever types waits.
pub(super) struct Console {
    serial: Arc<Mutex<Serial>>,
    /// Tells that the guest has read; made when the port is full for the first time.
    room: Option<EventFd>,
}

/// What came of readable standard input.
enum Input {
    /// The guest has it.
    Taken,
    /// The guest has no room.
    Full,
    /// There will be no more.
    Ended,
}

impl Console {
    pub(super) fn new(serial: Arc<Mutex<Serial>>) -> Self {
        Self { serial, room: None }
    }

    /// `fd` is ready: standard input, or the event that says that there is room again.
    pub(super) fn process(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        let input = io::stdin().as_raw_fd();
        if let Some(room) = self.room.as_ref().filter(|room| room.as_raw_fd() == fd) {
            let _ = room.read();
            let _ = ops.add(Events::new_raw(input, EventSet::IN));
            return;
        }
        let serial = self.serial.clone();
        // The loop does not wait for a guest that floods its console: standard input stays readable, and so it is back.
        let mut serial = match serial.try_lock() {
            Ok(serial) => serial,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        match take(&mut serial) {
            Input::Taken => {}
            Input::Full => {
                let _ = ops.remove(Events::new_raw(input, EventSet::IN));
                if let Err(error) = self.watch_room(&mut serial, ops) {
                    log::warn!("console input ends: make the event that tells of room: {error}");
                }
            }
            Input::Ended => {
                let _ = ops.remove(Events::new_raw(input, EventSet::IN));
            }
        }
    }

    fn watch_room(&mut self, serial: &mut Serial, ops: &mut EventOps<'_>) -> io::Result<()> {
        if self.room.is_none() {
            let room = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            serial.set_room_event(room.try_clone()?);
            ops.add(Events::new(&room, EventSet::IN))
                .map_err(|error| io::Error::other(error.to_string()))?;
            self.room = Some(room);
        }
        Ok(())
    }
}

/// Moves what the serial port has room for, so that nothing is left over.
fn take(serial: &mut Serial) -> Input {
    let mut buffer = [0; CHUNK];
    let room = serial.capacity().min(buffer.len());
    if room == 0 {
        return Input::Full;
    }
    match nix::unistd::read(io::stdin(), &mut buffer[..room]) {
        Ok(0) => Input::Ended,
        Ok(length) => {
            serial.enqueue(&buffer[..length]);
            Input::Taken
        }
        Err(nix::Error::EINTR | nix::Error::EAGAIN) => Input::Taken,
        Err(error) => {
            log::debug!("read standard input: {error}");
            Input::Ended
        }
    }
}
