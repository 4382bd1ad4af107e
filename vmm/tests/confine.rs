//! Threads under their filters, without a machine: what each may do goes through, and what it may not ends the process.
//!
//! `unsafe` in here: processes are forked, and make system calls by their numbers, which is what the tests are about. None
//! of the calls is given memory that it could do anything with.

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::{ptr, thread};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, dup2_stderr, fork, pipe};
use secovia_seccomp::{Call, List, RULES, Rules};
use secovia_vmm::confine::Seccomp;
use secovia_vmm::kvm::install_kick_handler;
use secovia_vmm::{logger, metrics, sys};
use secovia_vmm_api::Exit;

/// Runs `body` in a process of its own; returns its status and what it wrote to standard error.
fn in_a_process(body: impl FnOnce()) -> (WaitStatus, String) {
    let (reader, writer) = pipe().unwrap();
    // SAFETY: the child has this one thread and a copy of the whole memory; no other test holds a lock that it needs: the
    // allocator's are released in the child by the C library, and nothing is printed through the test harness.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            dup2_stderr(writer.as_fd()).unwrap();
            body();
            sys::exit_now(0);
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut errors = String::new();
            File::from(reader).read_to_string(&mut errors).unwrap();
            (waitpid(child, None).unwrap(), errors)
        }
    }
}

/// Makes calls on a thread under the filter of `list`; on the first thread where that is the filter of the start.
fn under(list: List, calls: &(impl Fn() -> Vec<Call> + Sync)) -> (WaitStatus, String) {
    in_a_process(|| {
        logger::start("test", None, log::LevelFilter::Warn).unwrap();
        let seccomp = Seccomp::built_in();
        seccomp.enter(List::Start).unwrap();
        let make = || calls().iter().for_each(make);
        match list {
            List::Start => make(),
            list => thread::scope(|scope| {
                scope.spawn(|| {
                    hold_a_signal();
                    seccomp.enter(list).unwrap();
                    make();
                    // Not every kind of thread may end alone.
                    sys::exit_now(0);
                });
            }),
        }
    })
}

/// Lets a signal wait for this thread that has a handler, so that letting it through shows the way back from one.
fn hold_a_signal() {
    install_kick_handler().unwrap();
    mask_kick(libc::SIG_BLOCK);
    // SAFETY: a signal to this thread, which is blocked.
    unsafe { libc::raise(libc::SIGRTMIN()) };
}

/// Blocks the signal that kicks vCPUs on this thread, or lets it through.
fn mask_kick(how: i32) {
    let mut signals = MaybeUninit::uninit();
    // SAFETY: the set is made before it is used; nothing is asked back.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGRTMIN());
        libc::pthread_sigmask(how, signals.as_ptr(), ptr::null_mut());
    }
}

fn make(call: &Call) {
    if call.number == libc::SYS_rt_sigreturn {
        // Out of nothing it would be the end of the thread.
        return mask_kick(libc::SIG_UNBLOCK);
    }
    let [a, b, c, d, e, f] = call.args;
    // SAFETY: the arguments are no addresses of anything, so that the kernel refuses the call or does something that
    // concerns no memory.
    unsafe { libc::syscall(call.number, a, b, c, d, e, f) };
}

fn call(number: i64, args: [u64; 6]) -> Call {
    Call { number, args }
}

#[test]
fn a_forbidden_call_ends_the_process_and_is_named() {
    const NONE: [u64; 6] = [0; 6];
    let cases = [
        (
            List::Start,
            call(libc::SYS_ptrace, [16, 1, 2, 3, 4, 5]),
            "ptrace(0x10, 0x1, 0x2, 0x3)",
        ),
        (List::Start, call(libc::SYS_execve, NONE), "execve("),
        (
            List::Start,
            call(libc::SYS_mmap, [0, 4096, 7, 0x22, u64::MAX, 0]),
            "mmap(0x0, 0x1000, 0x7, 0x22)",
        ),
        (
            List::Start,
            call(libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
            "clone(0x11",
        ),
        (List::Main, call(libc::SYS_openat, [u64::MAX; 6]), "openat("),
        (
            List::Main,
            call(libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
            "socket(0x2, 0x1",
        ),
        (
            List::Main,
            call(libc::SYS_tgkill, [1, 1, 34, 0, 0, 0]),
            "tgkill(0x1, 0x1, 0x22",
        ),
        (
            List::Vcpu,
            call(libc::SYS_kill, [1, 0, 0, 0, 0, 0]),
            "kill(0x1, 0x0",
        ),
        (
            List::Vcpu,
            call(libc::SYS_ioctl, [0, 0xae01, 0, 0, 0, 0]),
            "ioctl(0x0, 0xae01",
        ),
        (
            List::Vcpu,
            call(libc::SYS_mprotect, [0, 4096, 4, 0, 0, 0]),
            "mprotect(",
        ),
        (
            List::Worker,
            call(libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
            "socket(",
        ),
        (List::Worker, call(4000, NONE), "number 4000("),
        (
            List::Api,
            call(libc::SYS_openat, [u64::MAX, 0, 0x42, 0, 0, 0]),
            "openat(0xffffffffffffffff, 0x0, 0x42",
        ),
        (List::Api, call(libc::SYS_unlink, NONE), "unlink("),
        (
            List::Api,
            call(libc::SYS_ioctl, [0, 0xae80, 0, 0, 0, 0]),
            "ioctl(0x0, 0xae80",
        ),
    ];
    for (list, call, named) in cases {
        let (status, errors) = under(list, &|| vec![call]);
        assert!(
            matches!(status, WaitStatus::Exited(_, code) if code == i32::from(Exit::ForbiddenCall.code())),
            "{call} on {list:?}: {status:?} {errors}"
        );
        let expected = format!("[test] ERROR forbidden system call {named}");
        assert!(errors.contains(&expected), "{errors}");
        assert!(
            errors.contains(&format!("under the filter {}:", list.name())),
            "{errors}"
        );
        assert_eq!(errors.matches('\n').count(), 1, "{errors}");
    }
}

#[test]
fn a_forbidden_call_is_counted_where_metrics_go() {
    let path = std::env::temp_dir().join(format!("secovia-confine-metrics-{}", std::process::id()));
    metrics::open(&path).unwrap();
    let (status, _) = under(List::Vcpu, &|| vec![call(libc::SYS_ptrace, [16, 1, 2, 3, 4, 5])]);
    assert!(matches!(status, WaitStatus::Exited(_, 6)), "{status:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // Other tests of this process may have left a line, too.
    let found = text.lines().any(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["seccomp"]["num_faults"] == 1
            && line["seccomp"]["thread"] == "vcpu"
            && line["seccomp"]["call"] == "ptrace(0x10, 0x1, 0x2, 0x3)"
    });
    assert!(found, "{text}");
}

#[test]
fn what_no_machine_can_be_made_to_need_is_allowed_where_it_should_be() {
    let rules = Rules::parse(RULES).unwrap();
    let mut tried = 0;
    for rule in rules.all() {
        for list in rule.rare() {
            tried += 1;
            let (status, errors) = under(*list, &|| vec![rule.example(std::process::id())]);
            assert!(
                matches!(status, WaitStatus::Exited(_, 0)),
                "{} on {list:?}: {status:?} {errors}",
                rule.name()
            );
        }
    }
    assert!(tried > 0);
}

#[test]
fn without_filters_everything_is_allowed() {
    let (status, errors) = in_a_process(|| {
        let seccomp = Seccomp::off();
        List::ALL.iter().for_each(|list| seccomp.enter(*list).unwrap());
        make(&call(libc::SYS_ptrace, [16, 0, 0, 0, 0, 0]));
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?} {errors}");
}

#[test]
fn a_file_of_rules_takes_the_place_of_the_built_in_ones() {
    let folder = std::env::temp_dir().join(format!("secovia-confine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("rules.json");
    let all = RULES.replace("\"call\": \"sysinfo\"", "\"call\": \"ptrace\"");
    std::fs::write(&path, all).unwrap();
    let seccomp = Seccomp::of_file(&path).unwrap();
    for (number, expected) in [
        (libc::SYS_ptrace, 0),
        (libc::SYS_sysinfo, Exit::ForbiddenCall.code()),
    ] {
        let (status, errors) = in_a_process(|| {
            seccomp.enter(List::Start).unwrap();
            make(&call(number, [u64::MAX; 6]));
        });
        assert!(
            matches!(status, WaitStatus::Exited(_, code) if code == i32::from(expected)),
            "{status:?} {errors}"
        );
    }
    std::fs::write(&path, "{}").unwrap();
    let error = Seccomp::of_file(&path).unwrap_err();
    assert!(error.to_string().contains("missing field `about`"), "{error}");
    assert_eq!(error.exit(), Exit::BadConfiguration);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        Seccomp::of_file(&path)
            .unwrap_err()
            .to_string()
            .contains("give a readable file")
    );
}
