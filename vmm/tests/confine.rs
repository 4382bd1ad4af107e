//! Threads under their filters, without a machine: what each may do goes through, and what it may not ends the process.
//!
//! Each case is tried in a process of its own: this program again, told to run nothing but [`the_case_of_this_process`]. It
//! is not a fork of this one, which has many threads: what one of them holds at that moment would be held for ever there.
//!
//! `unsafe` in here: system calls are made by their numbers, which is what the tests are about. None of them is given memory
//! that it could do anything with.

use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::{env, ptr, thread};

use nix::unistd::alarm;
use secovia_seccomp::{Call, List, RULES, Rules};
use secovia_vmm::confine::Seccomp;
use secovia_vmm::kvm::install_kick_handler;
use secovia_vmm::{logger, metrics, sys};
use secovia_vmm_api::Exit;
use serde::Deserialize;
use serde_json::{Value, json};

/// Where a process finds the [`Case`] that it is for.
const CASE: &str = "SECOVIA_CONFINE_CASE";

/// What a process tries, as JSON in its environment.
#[derive(Deserialize)]
struct Case {
    filters: Filters,
    /// The filter of the thread that makes the call.
    list: List,
    does: Does,
    /// The file that metrics go to.
    #[serde(default)]
    metrics: Option<PathBuf>,
    /// After so many seconds the process is ended by a signal, so that a call that waits is a failed test with a name.
    #[serde(default = "patience")]
    patience: u32,
}

fn patience() -> u32 {
    60
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Filters {
    BuiltIn,
    OfFile(PathBuf),
    Off,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Does {
    /// A call with this number and these arguments.
    Call(i64, [u64; 6]),
    /// The example of the built-in rule that stands at this place among all.
    Rule(usize),
}

/// Tries `case` in a process of its own; returns its status and what it wrote to standard error.
fn in_a_process(case: &Value) -> (ExitStatus, String) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_case_of_this_process", "--nocapture"])
        .env(CASE, case.to_string())
        .output()
        .unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// A call on a thread under the built-in filter of `list`.
fn under(list: List, call: &Call) -> (ExitStatus, String) {
    in_a_process(&json!({"filters": "built_in", "list": list.name(), "does": does(call)}))
}

fn does(call: &Call) -> Value {
    json!({"call": [call.number, call.args]})
}

/// The whole of a process that [`in_a_process`] starts; nothing where the tests are run.
#[test]
fn the_case_of_this_process() {
    let Some(case) = env::var_os(CASE) else {
        return;
    };
    let case: Case = serde_json::from_str(case.to_str().unwrap()).unwrap();
    alarm::set(case.patience);
    logger::start("test", None, log::LevelFilter::Warn).unwrap();
    if let Some(path) = &case.metrics {
        metrics::open(path).unwrap();
    }
    let seccomp = match &case.filters {
        Filters::BuiltIn => Seccomp::built_in(),
        Filters::OfFile(path) => Seccomp::of_file(path).unwrap(),
        Filters::Off => Seccomp::off(),
    };
    let call = match case.does {
        Does::Call(number, args) => call(number, args),
        Does::Rule(place) => Rules::parse(RULES).unwrap().all()[place].example(std::process::id()),
    };
    seccomp.enter(List::Start).unwrap();
    match case.list {
        // The filter of the start is that of the first thread.
        List::Start => make(&call),
        list => thread::scope(|scope| {
            scope.spawn(|| {
                hold_a_signal();
                seccomp.enter(list).unwrap();
                make(&call);
                // Not every kind of thread may end alone.
                sys::exit_now(0);
            });
        }),
    }
    sys::exit_now(0);
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
        let (status, errors) = under(list, &call);
        assert_eq!(
            status.code(),
            Some(i32::from(Exit::ForbiddenCall.code())),
            "{call} on {list:?}: {status} {errors}"
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
    let call = call(libc::SYS_ptrace, [16, 1, 2, 3, 4, 5]);
    let (status, errors) =
        in_a_process(&json!({"filters": "built_in", "list": "vcpu", "does": does(&call), "metrics": path}));
    assert_eq!(status.code(), Some(6), "{status} {errors}");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["seccomp"]["num_faults"], 1, "{text}");
    assert_eq!(line["seccomp"]["thread"], "vcpu", "{text}");
    assert_eq!(line["seccomp"]["call"], "ptrace(0x10, 0x1, 0x2, 0x3)", "{text}");
}

#[test]
fn what_no_machine_can_be_made_to_need_is_allowed_where_it_should_be() {
    let rules = Rules::parse(RULES).unwrap();
    let mut tried = 0;
    for (place, rule) in rules.all().iter().enumerate() {
        for list in rule.rare() {
            tried += 1;
            let (status, errors) =
                in_a_process(&json!({"filters": "built_in", "list": list.name(), "does": {"rule": place}}));
            assert!(status.success(), "{} on {list:?}: {status} {errors}", rule.name());
        }
    }
    assert!(tried > 0);
}

#[test]
fn a_case_that_waits_is_ended() {
    let (status, errors) = in_a_process(
        &json!({"filters": "off", "list": "start", "does": {"call": [libc::SYS_pause, [0, 0, 0, 0, 0, 0]]}, "patience": 1}),
    );
    assert_eq!(status.signal(), Some(libc::SIGALRM), "{status} {errors}");
}

#[test]
fn without_filters_everything_is_allowed() {
    let call = call(libc::SYS_ptrace, [16, 0, 0, 0, 0, 0]);
    for list in List::ALL {
        let (status, errors) =
            in_a_process(&json!({"filters": "off", "list": list.name(), "does": does(&call)}));
        assert!(status.success(), "{list:?}: {status} {errors}");
    }
}

#[test]
fn a_file_of_rules_takes_the_place_of_the_built_in_ones() {
    let folder = std::env::temp_dir().join(format!("secovia-confine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("rules.json");
    let all = RULES.replace("\"call\": \"sysinfo\"", "\"call\": \"ptrace\"");
    std::fs::write(&path, all).unwrap();
    for (number, expected) in [
        (libc::SYS_ptrace, 0),
        (libc::SYS_sysinfo, Exit::ForbiddenCall.code()),
    ] {
        let call = call(number, [u64::MAX; 6]);
        let (status, errors) =
            in_a_process(&json!({"filters": {"of_file": path}, "list": "start", "does": does(&call)}));
        assert_eq!(status.code(), Some(i32::from(expected)), "{status} {errors}");
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
