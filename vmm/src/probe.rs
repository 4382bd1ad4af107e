//! How fast this host's KVM is: a tiny guest that counts, and one that exits.

use std::time::{Duration, Instant};

use secovia_devices::GuestMemory;
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress};

use crate::boot::Entry;
use crate::confine::Seccomp;
use crate::kvm::{KvmError, Questions, Vcpu, VcpuExit, Vm};
use crate::memory;
use crate::vcpu::entry;

const MEMORY: u64 = 2 << 20;
const CODE: u64 = 0x10_0000;
/// Where the guest says that it is done, or just says something.
const PORT: u8 = 0x10;
/// Each try has as many rounds as take about this long.
const LONG_ENOUGH: Duration = Duration::from_millis(5);
/// How long tries are made: so long at least, and at most until one is good enough.
const TRIES: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(1);
/// A hardware-speed KVM executes thousands of millions of instructions a second, an emulated one a few millions.
const HARDWARE_SPEED: u64 = 100_000_000;

/// `dec ecx; jnz back; out PORT, al; jmp to the out`: counts down, then exits.
const COUNT: [u8; 8] = [0xff, 0xc9, 0x75, 0xfc, 0xe6, PORT, 0xeb, 0xfc];
const INSTRUCTIONS_PER_ROUND: u64 = 2;
/// `out PORT, al; jmp back`: exits at once.
const EXIT: [u8; 4] = [0xe6, PORT, 0xeb, 0xfc];

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// There is no memory.
    #[error(transparent)]
    Memory(#[from] memory::MemoryError),
    /// The probe's own code did not fit.
    #[error("write the probe's guest: {0}")]
    Write(#[from] vm_memory::GuestMemoryError),
    /// The guest did something else than count.
    #[error("the probe's guest stopped with {0}")]
    Unexpected(String),
    /// The figures did not become text.
    #[error("write the report: {0}")]
    Report(#[from] serde_json::Error),
}

/// What was found. The names are stable: `doctor` and scripts read them.
#[derive(Debug, Serialize)]
struct Report {
    /// KVM's API version.
    api_version: i32,
    /// Capabilities that no machine can do without, and that are not there.
    missing: Vec<&'static str>,
    /// What the guest executes in a loop of two instructions.
    instructions_per_second: u64,
    /// How often it can exit to the VMM and come back.
    exits_per_second: u64,
    /// Whether that is a processor's speed, or that of an emulation, on which Linux does not boot.
    hardware_speed: bool,
}

/// Runs the probe's guests and reports as one line of JSON.
pub fn measure() -> Result<String, ProbeError> {
    let questions = Questions::ask(&Seccomp::off())?;
    let host = &questions.host;
    let missing = host.missing();
    let mut report = Report {
        api_version: host.api_version(),
        missing,
        instructions_per_second: 0,
        exits_per_second: 0,
        hardware_speed: false,
    };
    if report.missing.is_empty() {
        let memory = memory::create(MEMORY, memory::Pages::Huge)?;
        let vm = Vm::furnish(questions.machine.wait()?, memory.clone(), &[], host.optional())?;
        let mut vcpu = vm.create_vcpu(0)?;
        report.instructions_per_second = rate(1000, HARDWARE_SPEED / INSTRUCTIONS_PER_ROUND, |rounds| {
            enter(&vcpu, &memory, &COUNT, rounds)?;
            leave(&mut vcpu, 1)
        })? * INSTRUCTIONS_PER_ROUND;
        enter(&vcpu, &memory, &EXIT, 0)?;
        report.exits_per_second = rate(10, 0, |rounds| leave(&mut vcpu, rounds))?;
        report.hardware_speed = report.instructions_per_second >= HARDWARE_SPEED;
    }
    Ok(serde_json::to_string(&report)? + "\n")
}

/// Rounds per second of `run`, which is given more rounds until it takes long enough: the best of many tries, because
/// the first pays for page faults, and on a busy host any may be held up. A rate below `enough` is given more time.
fn rate(
    mut rounds: u32,
    enough: u64,
    mut run: impl FnMut(u32) -> Result<(), ProbeError>,
) -> Result<u64, ProbeError> {
    let begun = Instant::now();
    let mut best = 0.0_f64;
    loop {
        let start = Instant::now();
        run(rounds)?;
        let taken = start.elapsed();
        best = best.max(f64::from(rounds) / taken.as_secs_f64());
        let patience = if best as u64 >= enough { TRIES } else { PATIENCE };
        if begun.elapsed() >= patience {
            return Ok(best as u64);
        }
        if taken < LONG_ENOUGH {
            rounds = rounds.saturating_mul(4);
        }
    }
}

/// Puts the vCPU at the start of `code` with `count` in %ecx.
fn enter(vcpu: &Vcpu, memory: &GuestMemory, code: &[u8], count: u32) -> Result<(), ProbeError> {
    let at = Entry::Long { address: CODE };
    memory.write_slice(code, GuestAddress(CODE))?;
    entry::write_tables(memory, at)?;
    let mut general = entry::general(at);
    general.rcx = count.into();
    vcpu.set_registers(&general, &entry::special(vcpu.special_registers()?, at))?;
    Ok(())
}

/// Runs until the guest has written to its port `times` times.
fn leave(vcpu: &mut Vcpu, times: u32) -> Result<(), ProbeError> {
    for _ in 0..times {
        loop {
            match vcpu.run()? {
                VcpuExit::PortWrite { port, .. } if port == u16::from(PORT) => break,
                VcpuExit::Interrupted => {}
                other => return Err(ProbeError::Unexpected(format!("{other:?}"))),
            }
        }
    }
    Ok(())
}
