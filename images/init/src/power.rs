//! The end of the machine, and who may ask for it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::reboot::{RebootMode, reboot};
use secovia_guest_protocol::{NetworkSetup, VolumeSpec};
use secovia_init::children::Pids;
use secovia_init::server::{Machine, Room, Server};
use secovia_init::{network, sys};

use crate::boot::Roots;
use crate::console::say;
use crate::rooms;

/// How long the workload may take when the power button was pressed.
const BUTTON_GRACE: Duration = Duration::from_secs(10);
/// How long processes that nobody started through us may take.
const STRAY_GRACE: Duration = Duration::from_millis(500);

/// The real machine.
pub(crate) struct Guest {
    started_after: Duration,
    roots: Mutex<Roots>,
    /// Nothing runs in the root that this process has: each container gets one of its own.
    for_containers: bool,
}

impl Guest {
    pub(crate) fn new(started_after: Duration, roots: Roots, for_containers: bool) -> Self {
        Self {
            started_after,
            roots: Mutex::new(roots),
            for_containers,
        }
    }
}

impl Machine for Guest {
    fn set_hostname(&self, name: &str) -> io::Result<()> {
        nix::unistd::sethostname(name)?;
        if !self.for_containers {
            network::write_hosts(name);
        }
        Ok(())
    }

    fn set_network(&self, setup: &NetworkSetup) -> io::Result<()> {
        network::set_up(setup)?;
        if self.for_containers {
            return Ok(());
        }
        network::write_servers(&setup.dns)
    }

    fn volume_files(&self) -> Option<PathBuf> {
        self.for_containers.then(|| rooms::FILES.into())
    }

    fn prepare_volumes(&self, volumes: &[VolumeSpec]) -> io::Result<()> {
        if !self.for_containers {
            let message = "this machine was started for one workload";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        rooms::prepare(volumes)
    }

    fn enter(&self, room: &Room<'_>) -> io::Result<Pids> {
        rooms::enter(room)
    }

    fn join(&self, pid: i32) -> io::Result<Pids> {
        rooms::join(pid)
    }

    fn started_after_ns(&self) -> u64 {
        u64::try_from(self.started_after.as_nanos()).unwrap_or(u64::MAX)
    }

    fn power_off(&self) {
        let roots = self.roots.lock().map(|mut roots| roots.take());
        off(roots.unwrap_or_default());
    }
}

/// Ends every process, brings the disks to rest and switches off. Returns only where the machine cannot be switched off.
pub(crate) fn off(roots: Option<File>) {
    end_strays();
    nix::unistd::sync();
    if let Some(roots) = roots
        && let Err(error) = sys::freeze(roots.as_fd())
    {
        say(format_args!("bringing the writable layer to rest: {error}"));
    }
    for mode in [RebootMode::RB_POWER_OFF, RebootMode::RB_AUTOBOOT] {
        let Err(error) = reboot(mode);
        say(format_args!("switching off: {error}"));
    }
}

/// Asks whatever still runs to end, and insists after a short while.
fn end_strays() {
    let begin = Instant::now();
    let _ = sys::signal_everyone(libc::SIGTERM);
    // Signal 0 only asks whether there is anybody.
    while sys::signal_everyone(0).is_ok() && begin.elapsed() < STRAY_GRACE {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = sys::signal_everyone(libc::SIGKILL);
}

/// The signals that ask PID 1 for the end: the power button (our kernel sends it as systemd's number for power-off),
/// a failing power supply, Ctrl-Alt-Del, and those of the usual poweroff, halt and reboot programs.
pub(crate) struct Signals(sys::SignalSet);

impl Signals {
    /// Blocks them in this thread and in all that it starts, so that they wait for [`Signals::watch`].
    pub(crate) fn block() -> io::Result<Self> {
        const POWER_BUTTON: i32 = 38;
        let set = sys::SignalSet::of(&[
            POWER_BUTTON,
            libc::SIGPWR,
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ]);
        set.block()?;
        Ok(Self(set))
    }

    /// Watches for them in a thread of its own.
    pub(crate) fn watch(self, server: Server) -> io::Result<()> {
        std::thread::Builder::new()
            .name("signals".to_string())
            .spawn(move || {
                while self.0.wait().is_ok() {
                    server.shutdown(BUTTON_GRACE);
                }
            })
            .map(drop)
    }
}
