//! The hostile driver of `devices/tests/hostile` against the memory device, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

use harness::mem::MemTarget;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::fuzz(data, MemTarget::default));
