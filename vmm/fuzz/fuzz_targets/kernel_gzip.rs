//! The payload of a `bzImage`, packed with gzip: the stream is the fuzzer's, and so is the size that it claims.
#![no_main]

use secovia_vmm_fuzz::packed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| packed(b"\x1f\x8b\x08", data));
