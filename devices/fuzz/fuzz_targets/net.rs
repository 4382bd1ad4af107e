//! The hostile driver of `devices/tests/hostile` against the network device, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

use harness::net::NetTarget;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::fuzz(data, NetTarget::default));
