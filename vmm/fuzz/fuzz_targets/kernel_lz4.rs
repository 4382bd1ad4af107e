//! The payload of a `bzImage`, packed with LZ4: the stream is the fuzzer's, and so is the size that it claims.
#![no_main]

use secovia_vmm_fuzz::packed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| packed(b"\x02\x21\x4c\x18", data));
