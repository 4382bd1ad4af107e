//! What the server needs of the machine that it runs on.

use std::io;
use std::path::PathBuf;

use secovia_guest_protocol::{ContainerSpec, NetworkSetup, VolumeSpec};

use crate::children::Pids;

/// The machine that the server runs on. Its functions may be called from any thread.
pub trait Machine: Send + Sync + 'static {
    /// Gives the machine its name. Called before the workload starts; an error refuses the start.
    fn set_hostname(&self, name: &str) -> io::Result<()>;

    /// Sets the machine's interface up. Called before the workload starts, where it is to have a network; an error refuses
    /// the start.
    fn set_network(&self, setup: &NetworkSetup) -> io::Result<()>;

    /// The directory that files of volumes are written to, each volume's below its name. Containers reach it by their
    /// mounts alone. None where containers cannot be had.
    fn volume_files(&self) -> Option<PathBuf> {
        None
    }

    /// Makes what containers will mount. Called once, before the first of them starts.
    fn prepare_volumes(&self, _: &[VolumeSpec]) -> io::Result<()> {
        let message = "this machine was started for one workload";
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }

    /// Moves the calling thread, and all that it will start, into a new root of a container; says whose process numbers
    /// the container gets.
    fn enter(&self, _: &Room<'_>) -> io::Result<Pids> {
        Ok(Pids::Ours)
    }

    /// Moves the calling thread, and all that it will start, to where a container's process is.
    fn join(&self, _: i32) -> io::Result<Pids> {
        Ok(Pids::Ours)
    }

    /// Nanoseconds from the machine's start to the server's.
    fn started_after_ns(&self) -> u64;

    /// Ends the machine. Called once, when the workload has ended and the host has been told, or had its chance.
    fn power_off(&self);
}

/// A container's world.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    /// Whose.
    pub container: &'a ContainerSpec,
    /// The volumes that it may mount.
    pub volumes: &'a [VolumeSpec],
    /// The machine's name.
    pub hostname: &'a str,
    /// The machine's network, where it has one.
    pub network: Option<&'a NetworkSetup>,
}
