//! What happens when a thread makes a call that its filter does not allow: a line in the log, one in the metrics, and the end.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Once;

use nix::sys::signal::{SigSet, Signal};
use secovia_seccomp::{Call, List};
use secovia_vmm_api::Exit;
use vmm_sys_util::signal::register_signal_handler;

use crate::{logger, metrics, sys};

thread_local! {
    /// The narrowest filter that this thread is under. For the handler alone.
    static LIST: Cell<Option<List>> = const { Cell::new(None) };
}

/// Longer than any line of the handler's.
const LINE: usize = 512;

/// Prepares this thread for being told that it made a forbidden call under the filter of `list`.
pub(super) fn expect_on_this_thread(list: List) -> io::Result<()> {
    // Later threads are under a filter that lets nobody install handlers; the first one's is enough for all.
    static HANDLER: Once = Once::new();
    let mut installed = Ok(());
    HANDLER.call_once(|| {
        // Whoever started this process may have left it blocked, and a blocked one is deadly.
        let unblocked = SigSet::from(Signal::SIGSYS)
            .thread_unblock()
            .map_err(io::Error::from);
        installed = unblocked.and_then(|()| {
            register_signal_handler(libc::SIGSYS, handler)
                .map_err(|error| io::Error::from_raw_os_error(error.errno()))
        });
    });
    LIST.set(Some(list));
    installed
}

/// Ends the process. Async-signal-safe: it may have interrupted anything, so it takes no lock and no memory, and makes
/// no calls but write and exit_group, which every filter allows.
extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel calls this handler of SIGSYS, installed with SA_SIGINFO, with both pointers valid.
    let call = unsafe { forbidden_call(info, context) };
    let list = LIST.get().map_or("unknown", List::name);
    let mut line = [0; LINE];
    let mut rest = &mut line[..];
    // What does not fit is cut off, which is not worth more than the rest of the line.
    let _ = writeln!(
        rest,
        "{} [{}] ERROR forbidden system call {call} on a thread under the filter {list}: the machine ends",
        sys::utc_now(),
        logger::id(),
    );
    let length = LINE - rest.len();
    logger::write_raw(&line[..length]);
    let mut rest = &mut line[..];
    let _ = writeln!(
        rest,
        "{{\"utc_timestamp_ms\":{},\"seccomp\":{{\"num_faults\":1,\"call\":\"{call}\",\"thread\":\"{list}\"}}}}",
        sys::utc_now().milliseconds(),
    );
    let length = LINE - rest.len();
    metrics::write_raw(&line[..length]);
    sys::exit_now(Exit::ForbiddenCall.code());
}

/// The call that raised SIGSYS, with its arguments.
///
/// # Safety
/// `info` and `context` are what the kernel passes to a handler of SIGSYS that seccomp raised.
unsafe fn forbidden_call(info: *const libc::siginfo_t, context: *const libc::c_void) -> Call {
    /// Where `si_syscall` lies in the structure, as 32-bit numbers: after number, error, code, a gap, and an address.
    const SI_SYSCALL: usize = 6;
    // SAFETY: `info` is valid, as the caller says, and longer than this.
    let number = unsafe { info.cast::<i32>().add(SI_SYSCALL).read() };
    // SAFETY: `context` is valid, as the caller says, and a `ucontext_t`.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let args = [
        libc::REG_RDI,
        libc::REG_RSI,
        libc::REG_RDX,
        libc::REG_R10,
        libc::REG_R8,
        libc::REG_R9,
    ]
    .map(|register| registers.get(register as usize).copied().unwrap_or_default() as u64);
    Call {
        number: number.into(),
        args,
    }
}
