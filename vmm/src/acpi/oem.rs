//! Whose tables these are.

/// OEM identifier of every table.
pub(super) const OEM: [u8; 6] = *b"SECOV ";
/// OEM table identifier of every table.
pub(super) const OEM_TABLE: [u8; 8] = *b"SECOVMM ";
/// OEM revision of every table.
pub(super) const OEM_REVISION: u32 = 1;
