//! The hostile driver of `devices/tests/hostile` against a PCI bus, led by the fuzzer.
#![no_main]

#[path = "../../tests/hostile/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::pci::fuzz(data));
