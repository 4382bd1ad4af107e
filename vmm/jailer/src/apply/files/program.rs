//! Whether a file can be run where there is nothing but it: an ELF program of this machine (gABI, "ELF Header", "Program
//! Header") that needs no loader.

use std::os::fd::BorrowedFd;

use crate::apply::error::Problem;

#[cfg(test)]
mod tests;

/// `\x7fELF`, 64 bits, little-endian, version 1.
const IDENT: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
/// `e_machine` of x86-64.
const X86_64: u16 = 62;
/// `e_type` of programs: at a fixed address, or anywhere.
const PROGRAMS: [u16; 2] = [2, 3];
/// `p_type` of the segment that names a loader.
const INTERPRETER: u32 = 3;
/// The length of a program header.
const HEADER: usize = 56;
/// What is read: the ELF header and the program headers behind it, of which no linker makes so many.
const READ: usize = 4096;

/// Refuses what would fail in the jail, where the caller could not see why.
pub(super) fn check(file: BorrowedFd<'_>) -> Result<(), Problem> {
    let mut buffer = [0; READ];
    let length = rustix::io::pread(file, &mut buffer, 0).map_err(Problem::os("the disk has to answer"))?;
    check_bytes(&buffer[..length])
        .map_err(|found| Problem::new(found, "build the VMM as a static program of this kind of machine"))
}

fn check_bytes(bytes: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "its program headers are cut off";
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let short = |at| number(at, 2).and_then(|value| u16::try_from(value).ok());
    let is = |allowed: &[u16], at| short(at).is_some_and(|value| allowed.contains(&value));
    if !bytes.starts_with(&IDENT) || !is(&PROGRAMS, 16) || !is(&[X86_64], 18) {
        return Err("it is no 64-bit x86 ELF program");
    }
    let (start, size, count) = (
        number(32, 8).ok_or(CUT)?,
        number(54, 2).ok_or(CUT)?,
        number(56, 2).ok_or(CUT)?,
    );
    if size != HEADER {
        return Err("its program headers have a wrong size");
    }
    for index in 0..count {
        let at = start.checked_add(index * HEADER).ok_or(CUT)?;
        if number(at, 4).ok_or(CUT)? == INTERPRETER as usize {
            return Err("it needs a loader and libraries, which are not in the jail");
        }
    }
    Ok(())
}
