//! The VM generation ID: 16 random bytes in guest memory that change when the machine's past is no longer unique.
//!
//! A guest that was restored from a snapshot reseeds its random numbers when it sees a new ID.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::{GuestMemory, sys};

/// Why there is no generation ID.
#[derive(Debug, thiserror::Error)]
pub enum VmGenIdError {
    /// The place does not do.
    #[error("VM generation ID at {address:#x}: not 16 bytes of guest memory at a multiple of 8")]
    Address {
        /// The address that was asked for.
        address: u64,
    },
    /// The host gave no random bytes.
    #[error("VM generation ID: random bytes from the host: {0}")]
    Random(std::io::Error),
    /// The ID was not written.
    #[error("VM generation ID at {address:#x}: write to guest memory: {source}")]
    Memory {
        /// Its address.
        address: u64,
        /// Why.
        source: vm_memory::GuestMemoryError,
    },
}

/// The generation ID of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmGenId {
    address: GuestAddress,
}

impl VmGenId {
    /// The ID's length.
    pub const LEN: u64 = 16;

    /// Puts a fresh ID at `address`, which the ACPI tables name by the device's `ADDR`. It must be a multiple of 8, in a
    /// page that the guest is told not to use.
    pub fn new(memory: &GuestMemory, address: GuestAddress) -> Result<Self, VmGenIdError> {
        if !address.0.is_multiple_of(8) || !memory.check_range(address, Self::LEN as usize) {
            return Err(VmGenIdError::Address { address: address.0 });
        }
        let id = Self { address };
        id.regenerate(memory)?;
        Ok(id)
    }

    /// Puts a new ID in place of the old one, after a restore and before a vCPU runs. The guest is then to be told
    /// by [`GedEvent::VmGenId`](crate::ged::GedEvent::VmGenId).
    pub fn regenerate(&self, memory: &GuestMemory) -> Result<(), VmGenIdError> {
        let mut id = [0; Self::LEN as usize];
        sys::fill_random(&mut id).map_err(VmGenIdError::Random)?;
        memory
            .write_slice(&id, self.address)
            .map_err(|source| VmGenIdError::Memory {
                address: self.address.0,
                source,
            })
    }

    /// Where it is.
    pub fn address(&self) -> GuestAddress {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_and_every_restore_has_another_id() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap();
        let read = |address| memory.read_obj::<[u8; 16]>(GuestAddress(address)).unwrap();
        let id = VmGenId::new(&memory, GuestAddress(0x1000)).unwrap();
        VmGenId::new(&memory, GuestAddress(0x1010)).unwrap();
        let first = read(0x1000);
        assert_ne!(first, [0; 16]);
        assert_ne!(first, read(0x1010));
        id.regenerate(&memory).unwrap();
        assert_ne!(first, read(0x1000));
        assert_eq!(id.address(), GuestAddress(0x1000));
        // The neighbours are untouched.
        assert_eq!(read(0xff0), [0; 16]);
    }

    #[test]
    fn a_place_that_does_not_do_is_refused() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap();
        for address in [0x1004, 0x1ff8, 0x2000, u64::MAX - 7] {
            let error = VmGenId::new(&memory, GuestAddress(address)).unwrap_err();
            assert!(
                matches!(error, VmGenIdError::Address { .. }),
                "{address:#x}: {error}"
            );
        }
    }
}
