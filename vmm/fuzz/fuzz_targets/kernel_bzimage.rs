//! A `bzImage` whose setup header is the fuzzer's too, but for the magic numbers without which it is none.
#![no_main]

use secovia_vmm_fuzz::load;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut image = data.to_vec();
    for (at, magic) in [(0x1fe, &b"\x55\xaa"[..]), (0x202, b"HdrS")] {
        if let Some(place) = image.get_mut(at..at + magic.len()) {
            place.copy_from_slice(magic);
        }
    }
    load(&image, None);
});
