//! A guest that has the VMM's process make system calls, where the VMM has the back door for it.

use crate::machine::LOAD_ADDRESS;
use crate::{code, elf};

/// One argument of a call.
#[derive(Debug, Clone)]
pub enum Argument {
    /// A number.
    Number(u64),
    /// Where these bytes lie, with a zero byte after them.
    Bytes(Vec<u8>),
    /// Where so many bytes lie that may be written; all the same ones.
    Room,
    /// What the call before gave.
    Previous,
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Argument {
    fn from(number: i32) -> Self {
        Self::Number(number as i64 as u64)
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

/// One call: its number and arguments; those that are not given are 0.
#[derive(Debug, Clone)]
pub struct Call {
    /// The system call's number.
    pub number: i64,
    /// Its arguments, six at most.
    pub args: Vec<Argument>,
}

impl Call {
    /// A call with these arguments.
    pub fn new(number: i64, args: impl IntoIterator<Item = Argument>) -> Self {
        Self {
            number,
            args: args.into_iter().collect(),
        }
    }
}

/// Memory above the guest's own, which nobody else uses.
const ROOM: u64 = 0x40_0000;
/// Numbers of 64 bits that a call takes.
const NUMBERS: usize = 9;
/// What the result is before the call was made.
const UNTOUCHED: u64 = 0x5ec0_1a11_5ec0_1a11;
/// In the place of a call: there is none any more.
const END: u64 = u64::MAX;

/// A guest that makes these calls one after the other, prints `done\n`, or `closed\n` where the VMM has no back door, and
/// resets. As an ELF file.
pub fn guest(calls: &[Call]) -> Vec<u8> {
    let mut image = code::back_door().to_vec();
    let table = image.len();
    let mut data_at = LOAD_ADDRESS + (table + calls.len() * NUMBERS * 8 + 8) as u64;
    let (mut numbers, mut data) = (Vec::new(), Vec::new());
    for call in calls {
        let mut kinds = [0; 8];
        let mut block = vec![call.number as u64];
        for (kind, argument) in kinds.iter_mut().zip(&call.args) {
            let (number, this) = match argument {
                Argument::Number(number) => (*number, 0),
                Argument::Bytes(bytes) => {
                    let at = data_at;
                    data.extend_from_slice(bytes);
                    data.push(0);
                    data_at += bytes.len() as u64 + 1;
                    (at, 1)
                }
                Argument::Room => (ROOM, 1),
                Argument::Previous => (0, 2),
            };
            block.push(number);
            *kind = this;
        }
        block.resize(NUMBERS - 2, 0);
        block.extend([u64::from_le_bytes(kinds), UNTOUCHED]);
        numbers.extend(block);
    }
    numbers.push(END);
    image.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    image.extend(data);
    elf::wrap(&image, LOAD_ADDRESS, elf::Entry::Long)
}
