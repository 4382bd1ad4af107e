//! The hostile driver of `devices/tests/hostile` against the balloon, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

use harness::balloon::BalloonTarget;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::fuzz(data, BalloonTarget::default));
