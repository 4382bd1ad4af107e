//! Watches a process and notes which rules its calls need.
//!
//! Which filters a thread is under is seen as it installs them: the program that it hands to the kernel is held against
//! those that the rules compile to. Threads begin with the filters of the thread that starts them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use secovia_seccomp::{Call, Filter, List, RULES, Rules, RulesError};

use crate::error::Error;
use crate::hits::Hits;
use crate::sys::{self, Stop};

/// The rules of this tree.
pub(crate) fn rules() -> Result<Rules, Error> {
    Ok(Rules::parse(RULES)?)
}

/// One traced thread.
#[derive(Debug, Clone, Copy)]
struct Thread {
    /// Its process.
    process: i32,
    /// The narrowest filter that it is under.
    list: Option<List>,
}

/// What is known of all threads.
struct Watch {
    rules: Rules,
    filters: Vec<(List, Filter)>,
    threads: HashMap<i32, Thread>,
    hits: Hits,
}

/// Traces the process `pid` to its end, and leaves the rules that it needed in a file in `out`.
pub(crate) fn run(pid: i32, out: &Path) -> Result<(), Error> {
    let process = format!("process {pid}");
    let traced = |operation| Error::at(operation, &process);
    let mut watch = Watch::new(pid)?;
    sys::seize(pid).map_err(traced("trace"))?;
    let mut ready = io::stdout();
    let said = ready.write_all(b"r").and_then(|()| ready.flush());
    said.map_err(Error::at("write to", "standard output"))?;
    // Threads may be gone before they are asked or resumed: that is what their end will tell.
    let mut early = HashSet::new();
    while let Some((thread, stop)) = sys::wait().map_err(traced("wait for"))? {
        // A new thread may stop before the one that started it tells of it; it waits until it is known whose it is.
        if stop != Stop::Gone && !watch.threads.contains_key(&thread) {
            early.insert(thread);
            continue;
        }
        let signal = match stop {
            Stop::Gone => {
                watch.threads.remove(&thread);
                continue;
            }
            Stop::Call => {
                if let Ok(registers) = sys::registers(thread) {
                    watch.call(thread, &registers);
                }
                0
            }
            Stop::Started(new, same_process) => {
                watch.started(thread, new, same_process);
                if early.remove(&new) {
                    let _ = sys::resume(new, 0);
                }
                0
            }
            Stop::Signal(signal) => signal,
            Stop::Event => 0,
        };
        let _ = sys::resume(thread, signal);
    }
    let path = out.join(format!("{pid}"));
    fs::write(&path, watch.hits.to_string()).map_err(Error::at("write", path))
}

impl Watch {
    fn new(pid: i32) -> Result<Self, Error> {
        let rules = rules()?;
        let filters = List::ALL.map(|list| Ok((list, rules.compile(list)?)));
        let filters = filters.into_iter().collect::<Result<_, RulesError>>()?;
        let first = Thread {
            process: pid,
            list: None,
        };
        Ok(Self {
            rules,
            filters,
            threads: HashMap::from([(pid, first)]),
            hits: Hits::default(),
        })
    }

    /// A thread is at the beginning or the end of a call.
    fn call(&mut self, thread: i32, registers: &libc::user_regs_struct) {
        // Linux sets this before the filters see the call. An end with this very error is counted twice, and no harm.
        if registers.rax != -i64::from(libc::ENOSYS) as u64 {
            return;
        }
        let call = Call {
            number: registers.orig_rax as i64,
            args: [
                registers.rdi,
                registers.rsi,
                registers.rdx,
                registers.r10,
                registers.r8,
                registers.r9,
            ],
        };
        let Some(state) = self.threads.get_mut(&thread) else {
            return;
        };
        let pid = state.process as u32;
        if let Some(list) = state.list {
            for rule in self
                .rules
                .covering(list, &call, pid)
                .filter(|rule| rule.on().contains(&list))
            {
                self.hits.add(list, rule);
            }
        }
        if call.number == libc::SYS_seccomp
            && let Ok(program) = program(state.process, registers.rdx)
        {
            let same = |filter: &Filter| bytes(&filter.clone().for_process(pid)) == program;
            // One that was made of other rules tells nothing about these.
            state.list = self
                .filters
                .iter()
                .find(|(_, filter)| same(filter))
                .map(|(list, _)| *list);
        }
    }

    /// A thread started another, or a process.
    fn started(&mut self, by: i32, new: i32, same_process: bool) {
        if let Some(parent) = self.threads.get(&by) {
            let process = if same_process { parent.process } else { new };
            let list = parent.list;
            self.threads.insert(new, Thread { process, list });
        }
    }
}

/// A filter as the kernel takes it: for each instruction its code, two jumps and a constant.
fn bytes(filter: &Filter) -> Vec<u8> {
    let instructions = filter.program().iter();
    instructions
        .flat_map(|instruction| {
            let [a, b] = instruction.code.to_le_bytes();
            let [c, d, e, f] = instruction.k.to_le_bytes();
            [a, b, instruction.jt, instruction.jf, c, d, e, f]
        })
        .collect()
}

/// The filter that a process is about to install: at `address` its length, and where it lies.
fn program(process: i32, address: u64) -> io::Result<Vec<u8>> {
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut head = [0; 16];
    memory.read_exact_at(&mut head, address)?;
    let [a, b, _, _, _, _, _, _, place @ ..] = head;
    let mut program = vec![0; usize::from(u16::from_le_bytes([a, b])) * 8];
    memory.read_exact_at(&mut program, u64::from_le_bytes(place))?;
    Ok(program)
}
