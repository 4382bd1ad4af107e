//! The capabilities of a virtio function: where in the BAR what lies (virtio 1.2, 4.1.4), and the messages.

use super::part;
use crate::pci::{ConfigSpace, MSIX};

/// Vendor-specific.
const VENDOR: u8 = 0x09;
/// Its message control: on, and all held back.
const MSIX_WRITABLE: u16 = 0xc000;

/// The kinds of 4.1.4.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const STATUS: u8 = 3;
const DEVICE: u8 = 4;
const CONFIG_ACCESS: u8 = 5;

/// The common configuration's length without what no feature here has (4.1.4.3).
const COMMON_LEN: u32 = 0x38;

/// Where those of them lie that the guest changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    /// MSI-X's message control.
    pub(super) message_control: usize,
    /// The one by which the BAR is accessed.
    config_access: usize,
}

/// An access to the BAR by way of the configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConfigAccess {
    /// Where.
    pub(super) at: u32,
    /// 1, 2 or 4 bytes.
    pub(super) len: usize,
}

impl Capabilities {
    /// Adds all of them, with `vectors` messages (at least 1).
    pub(super) fn add(config: &mut ConfigSpace, vectors: u16) -> Self {
        let mut messages = Vec::with_capacity(10);
        messages.extend(vectors.saturating_sub(1).to_le_bytes());
        // The lowest three bits are the BAR's number.
        messages.extend(part::MESSAGES.to_le_bytes());
        messages.extend(part::PENDING.to_le_bytes());
        let msix = config.add_capability(MSIX, &messages, &MSIX_WRITABLE.to_le_bytes());

        for (kind, at, len) in [
            (COMMON, part::COMMON, COMMON_LEN),
            (STATUS, part::STATUS, 1),
            (DEVICE, part::DEVICE, part::LEN),
        ] {
            config.add_capability(VENDOR, &structure(kind, at, len, &[]), &[]);
        }
        let stride = part::NOTIFY_STRIDE.to_le_bytes();
        config.add_capability(VENDOR, &structure(NOTIFY, part::NOTIFY, part::LEN, &stride), &[]);
        // BAR, offset and length are the guest's to set; the four bytes of data are looked after by `config_access`.
        let mut writable = [0; 14];
        writable.iter_mut().skip(6).for_each(|byte| *byte = 0xff);
        let access = config.add_capability(VENDOR, &structure(CONFIG_ACCESS, 0, 0, &[0; 4]), &writable);
        // There is room for these in any configuration space.
        Self {
            message_control: msix.unwrap_or_default().saturating_add(2),
            config_access: access.unwrap_or_default(),
        }
    }

    /// The access to the BAR that an access of `len` bytes to the configuration space at `offset` means, if it does.
    pub(super) fn config_access(
        &self,
        config: &ConfigSpace,
        offset: u64,
        len: usize,
    ) -> Option<ConfigAccess> {
        let field = |at: usize| self.config_access.saturating_add(at);
        if offset != field(16) as u64 {
            return None;
        }
        let (at, length) = (config.u32_at(field(8)), config.u32_at(field(12)));
        let wanted = usize::try_from(length).ok()?;
        let fits = matches!(wanted, 1 | 2 | 4) && wanted <= len && at.is_multiple_of(length);
        fits.then_some(ConfigAccess { at, len: wanted })
    }
}

/// `struct virtio_pci_cap` without identifier and link, of BAR 0.
fn structure(kind: u8, at: u32, len: u32, more: &[u8]) -> Vec<u8> {
    let whole = more.len().saturating_add(16);
    let mut body = vec![whole as u8, kind, 0, 0, 0, 0];
    body.extend(at.to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(more);
    body
}
