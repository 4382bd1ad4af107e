//! A `vmlinux`: all of its bytes but the magic number, which is no news to anybody.
#![no_main]

use secovia_vmm_fuzz::load;

libfuzzer_sys::fuzz_target!(|data: &[u8]| load(&[b"\x7fELF", data].concat(), Some(&data[..data.len() / 2])));
