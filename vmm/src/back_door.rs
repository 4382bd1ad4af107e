//! A device that makes system calls for its guest: what a guest could do that has taken the process over. Only in the
//! program that tests try to break out of.
//!
//! The guest writes the address of a call in its memory to the port; the call is made on the vCPU's thread, and its result
//! is written back and told in the log. A call is nine numbers of 64 bits:
//!
//! | number | is |
//! |---|---|
//! | 0 | the system call's number |
//! | 1 to 6 | its arguments |
//! | 7 | for each argument a byte: 0 as it is; 1 an address in the guest's memory, for which the process's own is passed; 2 the result of the call before |
//! | 8 | the result; a negative error number where it failed |

use secovia_devices::GuestMemory;
use secovia_devices::bus::{BusDevice, Effect};
use secovia_seccomp::Call;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// The device.
pub(crate) struct BackDoor {
    memory: GuestMemory,
    previous: i64,
}

const NUMBERS: usize = 9;
const KINDS: usize = 7;
const RESULT: u64 = 8;

impl BackDoor {
    /// Its port. The stub guest that goes through it has the same number.
    pub(crate) const PORT: u64 = 0x5ec;
    /// The length of its range.
    pub(crate) const LEN: u64 = 4;

    pub(crate) fn new(memory: GuestMemory) -> Self {
        Self { memory, previous: 0 }
    }

    /// Makes the call at `address`. `None` where there is none.
    fn serve(&mut self, address: u32) -> Option<()> {
        let address = u64::from(address);
        let mut numbers = [0_u64; NUMBERS];
        for (place, number) in (0..).zip(&mut numbers) {
            *number = self.memory.read_obj(GuestAddress(address + 8 * place)).ok()?;
        }
        let [number, args @ ..] = numbers;
        let kinds = numbers.get(KINDS)?.to_le_bytes();
        let mut call = Call {
            number: number as i64,
            args: [0; 6],
        };
        for ((to, from), kind) in call.args.iter_mut().zip(args).zip(kinds) {
            *to = match kind {
                0 => from,
                1 => self.memory.get_host_address(GuestAddress(from)).ok()? as u64,
                _ => self.previous as u64,
            };
        }
        self.previous = make(&call);
        log::error!("back door: {call} is {}", self.previous);
        self.memory
            .write_obj(self.previous, GuestAddress(address + 8 * RESULT))
            .ok()
    }
}

fn make(call: &Call) -> i64 {
    let [a, b, c, d, e, f] = call.args;
    // SAFETY: none. The guest may do to this process what it likes, which is what the device is for.
    match unsafe { libc::syscall(call.number, a, b, c, d, e, f) } {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or_default()),
        result => result,
    }
}

impl BusDevice for BackDoor {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (0, Ok(address)) = (offset, data.try_into().map(u32::from_le_bytes))
            && self.serve(address).is_none()
        {
            log::error!("back door: no call at {address:#x}");
        }
        Effect::None
    }
}
