//! The PCI bus of a machine that has one: devices come to it and leave it, also while the guest runs.

use std::sync::{Arc, Mutex};

use secovia_devices::GuestMemory;
use secovia_devices::interrupt::MsiSink;
use secovia_devices::pci::Root;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::pci::PciTransport;
use secovia_devices::virtio::transport::Transport;

use super::error::MachineError;
use crate::layout;

/// The bus, and what a device on it needs.
pub(super) struct Pci {
    root: Arc<Root>,
    memory: GuestMemory,
    sink: Arc<dyn MsiSink>,
}

impl Pci {
    /// A bus with nothing on it but its host bridge.
    pub(super) fn new(memory: GuestMemory, sink: Arc<dyn MsiSink>) -> Self {
        Self {
            root: Root::new(layout::PCI_WINDOW),
            memory,
            sink,
        }
    }

    /// The bus itself.
    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Puts a device at the first free place; the guest finds it when it looks. Returns the place's number, from 1 on.
    pub(super) fn plug(
        &self,
        device: Box<dyn VirtioDevice>,
    ) -> Result<(usize, Arc<Mutex<dyn Transport>>), MachineError> {
        let assembly = |error: &dyn std::error::Error| MachineError::Assembly(error.to_string());
        let (number, base) = self.root.free().map_err(|error| assembly(&error))?;
        let function = PciTransport::new(device, self.memory.clone(), self.sink.clone(), base)
            .map_err(|error| assembly(&error))?;
        let place = function.place();
        let function = Arc::new(Mutex::new(function));
        self.root.plug(number, function.clone(), place);
        Ok((number, function))
    }

    /// Takes the device with this number away, whether the guest still uses it or not.
    pub(super) fn unplug(&self, number: usize) {
        self.root.unplug(number);
    }
}
