//! The hostile driver of `devices/tests/hostile` against the persistent memory device, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

use harness::pmem::PmemTarget;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::fuzz(data, PmemTarget::new));
