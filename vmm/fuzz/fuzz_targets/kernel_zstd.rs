//! The payload of a `bzImage`, packed with Zstandard: the stream is the fuzzer's, and so is the size that it claims.
#![no_main]

use secovia_vmm_fuzz::packed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| packed(b"\x28\xb5\x2f\xfd", data));
