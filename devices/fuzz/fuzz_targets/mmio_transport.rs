//! The hostile driver of `devices/tests/hostile` against the transport, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

use harness::transport::TransportTarget;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::fuzz(data, TransportTarget::new));
