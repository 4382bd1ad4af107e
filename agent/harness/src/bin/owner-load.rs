//! The owner of the machine at work, in a control group of their own.
//!
//! usage: owner-load CGROUP memory MIB
//!        owner-load CGROUP cpu THREADS SECONDS
//!
//! `memory` takes so much and prints in how many milliseconds it had it. `cpu` computes on so many threads for so long, and
//! prints how much CPU time it got, in thousandths of what it could have had.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

const PAGE: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [cgroup, work @ ..] = words.as_slice() else {
        return Err("usage: owner-load CGROUP memory MIB | cpu THREADS SECONDS".into());
    };
    fs::create_dir_all(cgroup)?;
    fs::write(format!("{cgroup}/cgroup.procs"), "0")?;
    match work {
        ["memory", mib] => println!("{}", take(mib.parse()?)),
        ["cpu", threads, seconds] => println!("{}", compute(threads.parse()?, seconds.parse()?)?),
        _ => return Err("expected memory MIB, or cpu THREADS SECONDS".into()),
    }
    Ok(())
}

fn take(mib: usize) -> u128 {
    let begun = Instant::now();
    let mut memory = vec![0u8; mib << 20];
    for page in memory.chunks_mut(PAGE) {
        page[0] = 1;
    }
    let took = begun.elapsed().as_millis();
    black_box(&memory);
    took
}

fn compute(threads: u32, seconds: u64) -> Result<u128, Box<dyn Error>> {
    let begun = Instant::now();
    let until = Duration::from_secs(seconds);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut value = 1u64;
                while begun.elapsed() < until {
                    for _ in 0..10_000 {
                        value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                    }
                }
            });
        }
    });
    let could = begun.elapsed().as_micros() * u128::from(threads);
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() as u128) * 1_000_000 + time.tv_usec() as u128;
    Ok((micros(usage.user_time()) + micros(usage.system_time())) * 1_000 / could)
}
