use std::collections::BTreeSet;

use super::*;
use crate::rules::Test;

/// Rules with one group of these.
fn parse(rules: &str) -> Result<Rules, RulesError> {
    Rules::parse(&format!(
        r#"{{ "about": [], "values": {{ "ONE": "1", "TWO": "0x2", "UNIX": "1" }},
             "groups": [{{ "group": "g", "rules": [{rules}] }}] }}"#
    ))
}

fn call(number: i64, args: &[u64]) -> Call {
    let mut all = [0xdead_0000_0000; 6];
    for (place, value) in all.iter_mut().zip(args) {
        *place = *value;
    }
    Call { number, args: all }
}

/// Runs a filter as the kernel would, and returns its answer.
fn run(filter: &Filter, call: &Call) -> u32 {
    run_on(filter, 0xc000_003e, call)
}

fn run_on(filter: &Filter, architecture: u32, call: &Call) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&(call.number as u32).to_le_bytes());
    data.extend_from_slice(&architecture.to_le_bytes());
    data.extend_from_slice(&0u64.to_le_bytes());
    for arg in call.args {
        data.extend_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = &filter.program()[at];
        at += 1;
        let k = instruction.k;
        let jump = |taken| usize::from(if taken { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => {
                let bytes = &data[k as usize..][..4];
                accumulator = u32::from_le_bytes(bytes.try_into().unwrap());
            }
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
const TRAP: u32 = 0x0003_0000;
const KILL: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0026;

#[test]
fn the_rules_of_this_version_hold_together_and_compile() {
    let rules = Rules::parse(RULES).unwrap();
    for list in List::ALL {
        let filter = rules.compile(list).unwrap();
        // Linux takes 4096 instructions.
        assert!((10..2000).contains(&filter.program().len()), "{list:?}");
    }
}

/// The numbers that the file gives its names are those of Linux.
#[test]
fn values_are_what_they_are_called() {
    let file: serde_json::Value = serde_json::from_str(RULES).unwrap();
    let values = file["values"].as_object().unwrap();
    let value = |name: &str| {
        let text = values[name].as_str().unwrap();
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).unwrap(),
            None => text.parse().unwrap(),
        }
    };
    let thread_flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let others = [
        ("AF_UNIX", libc::AF_UNIX),
        ("F_DUPFD_CLOEXEC", libc::F_DUPFD_CLOEXEC),
        ("F_GETFD", libc::F_GETFD),
        ("FIONBIO", libc::FIONBIO as i32),
        ("FALLOC_FL_KEEP_SIZE", libc::FALLOC_FL_KEEP_SIZE),
        ("FALLOC_FL_PUNCH_HOLE", libc::FALLOC_FL_PUNCH_HOLE),
        ("FALLOC_FL_ZERO_RANGE", libc::FALLOC_FL_ZERO_RANGE),
        ("MADV_DONTNEED", libc::MADV_DONTNEED),
        ("MADV_HUGEPAGE", libc::MADV_HUGEPAGE),
        ("MAP_ANONYMOUS", libc::MAP_ANONYMOUS),
        ("MAP_PRIVATE", libc::MAP_PRIVATE),
        ("MREMAP_MAYMOVE", libc::MREMAP_MAYMOVE),
        ("O_CREAT", libc::O_CREAT),
        ("O_TRUNC", libc::O_TRUNC),
        ("PROT_EXEC", libc::PROT_EXEC),
        ("PROT_READ", libc::PROT_READ),
        ("PROT_WRITE", libc::PROT_WRITE),
        // linux/io_uring.h
        ("IORING_ENTER_EXT_ARG", 1 << 3),
        ("IORING_ENTER_GETEVENTS", 1 << 0),
        ("IORING_ENTER_SUBMIT", 0),
        ("IORING_REGISTER_ENABLE_RINGS", 12),
        ("IORING_REGISTER_EVENTFD", 4),
        ("IORING_REGISTER_FILES", 2),
        ("IORING_REGISTER_FILES_UPDATE", 6),
        ("IORING_REGISTER_RESTRICTIONS", 11),
        ("PR_SET_NAME", libc::PR_SET_NAME),
        ("F_ADD_SEALS", libc::F_ADD_SEALS),
        ("MADV_REMOVE", libc::MADV_REMOVE),
        ("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS),
        ("SECCOMP_SET_MODE_FILTER", libc::SECCOMP_SET_MODE_FILTER as i32),
        ("SIOCGIFINDEX", libc::SIOCGIFINDEX as i32),
        ("SIGABRT", libc::SIGABRT),
        ("SIGBUS", libc::SIGBUS),
        ("SIGSEGV", libc::SIGSEGV),
        ("SIGRTMIN", libc::SIGRTMIN()),
        ("TCGETS", libc::TCGETS as i32),
        ("TCSETS", libc::TCSETS as i32),
        ("TIOCGPGRP", libc::TIOCGPGRP as i32),
        ("TUNSETIFF", libc::TUNSETIFF as i32),
        ("TUNSETOFFLOAD", libc::TUNSETOFFLOAD as i32),
        ("TUNSETVNETHDRSZ", libc::TUNSETVNETHDRSZ as i32),
        ("THREAD_FLAGS", thread_flags),
    ];
    let mut known = 0;
    for (name, expected) in others {
        assert_eq!(value(name), expected as u32, "{name}");
        known += 1;
    }
    // Requests of ioctl: type 0xae, the number in its family, the size of what is passed and the direction.
    let request =
        |direction: u32, size: usize, number: u32| direction << 30 | (size as u32) << 16 | 0xae00 | number;
    let kvm = [
        ("KVM_GET_API_VERSION", request(0, 0, 0x00)),
        ("KVM_CREATE_VM", request(0, 0, 0x01)),
        ("KVM_CHECK_EXTENSION", request(0, 0, 0x03)),
        ("KVM_GET_VCPU_MMAP_SIZE", request(0, 0, 0x04)),
        (
            "KVM_GET_SUPPORTED_CPUID",
            request(3, size_of::<kvm_bindings::kvm_cpuid2>(), 0x05),
        ),
        ("KVM_CREATE_VCPU", request(0, 0, 0x41)),
        (
            "KVM_SET_USER_MEMORY_REGION",
            request(1, size_of::<kvm_bindings::kvm_userspace_memory_region>(), 0x46),
        ),
        ("KVM_SET_TSS_ADDR", request(0, 0, 0x47)),
        ("KVM_RUN", request(0, 0, 0x80)),
        (
            "KVM_SET_REGS",
            request(1, size_of::<kvm_bindings::kvm_regs>(), 0x82),
        ),
        (
            "KVM_GET_MSRS",
            request(3, size_of::<kvm_bindings::kvm_msrs>(), 0x88),
        ),
        (
            "KVM_GET_SREGS",
            request(2, size_of::<kvm_bindings::kvm_sregs>(), 0x83),
        ),
        (
            "KVM_SET_SREGS",
            request(1, size_of::<kvm_bindings::kvm_sregs>(), 0x84),
        ),
        (
            "KVM_SET_MSRS",
            request(1, size_of::<kvm_bindings::kvm_msrs>(), 0x89),
        ),
        (
            "KVM_SET_CPUID2",
            request(1, size_of::<kvm_bindings::kvm_cpuid2>(), 0x90),
        ),
        (
            "KVM_ENABLE_CAP",
            request(1, size_of::<kvm_bindings::kvm_enable_cap>(), 0xa3),
        ),
        (
            "KVM_SIGNAL_MSI",
            request(1, size_of::<kvm_bindings::kvm_msi>(), 0xa5),
        ),
    ];
    for (name, expected) in kvm {
        assert_eq!(value(name), expected, "{name}");
        known += 1;
    }
    assert_eq!(known, values.len(), "a value is not checked here: add it");
}

#[test]
fn a_filter_answers_as_its_rules_say() {
    let rules = parse(
        r#"{ "call": "read", "on": ["vcpu"], "why": "w" },
           { "call": "clone3", "answer": "ENOSYS", "on": ["vcpu"], "why": "w" },
           { "call": "ioctl", "args": [{ "arg": 1, "is": "ONE" }], "on": ["vcpu"], "why": "w" },
           { "call": "ioctl", "args": [{ "arg": 1, "is": "TWO" }, { "arg": 2, "lacks": "ONE|TWO" }], "on": ["vcpu"], "why": "w" },
           { "call": "tgkill", "args": [{ "arg": 0, "own_pid": true }], "on": ["vcpu"], "why": "w" },
           { "call": "ioctl", "on": ["main"], "why": "w" }"#,
    )
    .unwrap();
    let cases = [
        (call(libc::SYS_read, &[]), ALLOW),
        (call(libc::SYS_write, &[]), TRAP),
        (call(libc::SYS_clone3, &[]), ENOSYS),
        (call(libc::SYS_ioctl, &[9, 1, 9]), ALLOW),
        (call(libc::SYS_ioctl, &[9, 2, 4]), ALLOW),
        (call(libc::SYS_ioctl, &[9, 2, 6]), TRAP),
        (call(libc::SYS_ioctl, &[9, 3, 4]), TRAP),
        (call(libc::SYS_tgkill, &[77]), ALLOW),
        (call(libc::SYS_tgkill, &[78]), TRAP),
        (call(libc::SYS_tgkill, &[OWN_PID.into()]), TRAP),
    ];
    let filter = rules.compile(List::Vcpu).unwrap().for_process(77);
    for (call, expected) in cases {
        assert_eq!(run(&filter, &call), expected, "{call}");
        // The two readings of the rules agree.
        let covered = rules.covering(List::Vcpu, &call, 77).count();
        assert_eq!(covered > 0, expected != TRAP, "{call}");
    }
    // One list's rule without conditions is not lost beside another list's with some.
    let start = rules.compile(List::Start).unwrap();
    assert_eq!(run(&start, &call(libc::SYS_ioctl, &[9, 3, 4])), ALLOW);
    let main = rules.compile(List::Main).unwrap();
    assert_eq!(run(&main, &call(libc::SYS_read, &[])), TRAP);
}

/// Whatever the search through the filter does, it ends where the rules say: for every number there is, and for arguments
/// that miss a condition by a bit, or are another rule's.
#[test]
fn filter_and_rules_agree_on_every_call() {
    let rules = Rules::parse(RULES).unwrap();
    let examples: Vec<_> = rules.all().iter().map(|rule| rule.example(77)).collect();
    let values: BTreeSet<u64> = examples.iter().flat_map(|call| call.args).collect();
    let mut calls: Vec<_> = (0..600)
        .chain([1 << 30, u32::MAX.into()])
        .map(|number| call(number, &[]))
        .collect();
    for example in &examples {
        for arg in 0..example.args.len() {
            let bits = (0..64).map(|bit| example.args[arg] ^ 1 << bit);
            calls.extend(values.iter().copied().chain(bits).map(|value| {
                let mut call = *example;
                call.args[arg] = value;
                call
            }));
        }
    }
    for list in List::ALL {
        let filter = rules.compile(list).unwrap().for_process(77);
        for call in calls.iter().chain(&examples) {
            let expected = match rules.covering(list, call, 77).next() {
                None => TRAP,
                Some(rule) if rule.answer == Answer::ENOSYS => ENOSYS,
                Some(_) => ALLOW,
            };
            assert_eq!(run(&filter, call), expected, "{call} on {list:?}");
        }
    }
}

/// A 64-bit process may make calls of 32-bit programs, whose numbers mean others.
#[test]
fn calls_of_another_architecture_end_the_process() {
    const I386: u32 = 0x4000_0003;
    let rules = Rules::parse(RULES).unwrap();
    for list in List::ALL {
        let filter = rules.compile(list).unwrap();
        for number in 0..600 {
            assert_eq!(run_on(&filter, I386, &call(number, &[])), KILL, "{number}");
        }
    }
}

/// What no filter of a running machine may ever allow, whatever joins the rules.
#[test]
fn no_thread_of_a_running_machine_has_a_way_out() {
    let rules = Rules::parse(RULES).unwrap();
    let never = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_creat,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_mount,
        libc::SYS_bpf,
        libc::SYS_kill,
        libc::SYS_seccomp,
        libc::SYS_mprotect,
        libc::SYS_io_uring_setup,
        libc::SYS_bind,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_init_module,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_perf_event_open,
    ];
    for list in [List::Main, List::Vcpu] {
        for number in never {
            let call = call(number, &[]);
            let rule = rules.covering(list, &call, 77).next();
            assert_eq!(rule, None, "{call} on {}", list.name());
        }
        let exec = call(libc::SYS_mmap, &[0, 4096, 7, 0x22]);
        assert_eq!(rules.covering(list, &exec, 77).next(), None);
        let inet = call(libc::SYS_socket, &[libc::AF_INET as u64]);
        assert_eq!(rules.covering(list, &inet, 77).next(), None);
        let create = call(libc::SYS_ioctl, &[3, 0xae01]);
        assert_eq!(rules.covering(list, &create, 77).next(), None);
    }
    // Not even at the start: memory that is written and executed, another program, another process.
    for call in [
        call(libc::SYS_execve, &[]),
        call(libc::SYS_mmap, &[0, 4096, 7, 0x22]),
        call(libc::SYS_mprotect, &[0, 4096, 5]),
        call(libc::SYS_clone, &[libc::SIGCHLD as u64]),
    ] {
        assert_eq!(rules.covering(List::Start, &call, 77).next(), None, "{call}");
    }
}

#[test]
fn what_is_wrong_with_rules_is_named() {
    for (rules, expected) in [
        (
            r#"{ "call": "reed", "on": ["main"], "why": "w" }"#,
            "g: reed: there is no such system call",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": " " }"#,
            "g: read: no reason",
        ),
        (
            r#"{ "call": "read", "on": [], "why": "w" }"#,
            "g: read: on no thread",
        ),
        (
            r#"{ "call": "read", "on": ["moon"], "why": "w" }"#,
            "unknown variant `moon`",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": "w", "argh": 1 }"#,
            "unknown field `argh`",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": "w", "args": [{ "arg": 6, "is": "ONE" }] }"#,
            "g: read: argument 6",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": "w", "args": [{ "arg": 0, "is": "SIX" }] }"#,
            "g: read: \"SIX\" is not among the values",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": "w", "args": [{ "arg": 0, "is": "ONE", "lacks": "TWO" }] }"#,
            "g: read: argument 0 has no test",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "rare": ["vcpu"], "why": "w" }"#,
            "g: read: rare on a thread that it is not on",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": "w", "answer": "ENOSYS", "args": [{ "arg": 0, "is": "ONE" }] }"#,
            "a call that is refused takes no conditions",
        ),
        (
            r#"{ "call": "read", "on": ["main"], "why": "w" }, { "call": "read", "on": ["vcpu", "main"], "why": "w" }"#,
            "g: read: an earlier rule says the same",
        ),
    ] {
        let message = parse(rules).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_rule_is_named_by_what_it_covers() {
    let rules =
        parse(r#"{ "call": "socket", "args": [{ "arg": 0, "is": "UNIX" }], "on": ["main"], "why": "w" }"#)
            .unwrap();
    let rule = &rules.all()[0];
    assert_eq!(rule.name(), "g: socket, argument 0 is UNIX");
    assert_eq!((rule.on(), rule.why()), (&[List::Main][..], "w"));
    assert_eq!(rule.args[0].test, Test::Is(1));
}

#[test]
fn a_call_is_shown_by_name_or_by_number() {
    assert_eq!(
        call(libc::SYS_ptrace, &[16, 1, 2, 3]).to_string(),
        "ptrace(0x10, 0x1, 0x2, 0x3)"
    );
    assert_eq!(
        call(4000, &[1, 2, 3, 4]).to_string(),
        "number 4000(0x1, 0x2, 0x3, 0x4)"
    );
    assert_eq!(
        call(-1, &[1, 2, 3, 4]).to_string(),
        "number -1(0x1, 0x2, 0x3, 0x4)"
    );
}
