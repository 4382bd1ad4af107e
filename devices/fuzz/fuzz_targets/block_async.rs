//! The hostile driver of `devices/tests/hostile` against the block device on an io_uring, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

use harness::block::BlockTarget;
use secovia_devices::virtio::block::Engine;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::fuzz(data, || BlockTarget::new(Engine::Async)));
