//! Tokens: proof that whoever shows one has asked for it by PUT, which a server that can be made to send GET requests for
//! others cannot.
//!
//! A token is the moment at which it ends, and a code over that by a key that only this process has. So there is no list
//! of them that a guest could fill.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use secovia_devices::fill_random;
use sha2::Sha256;

/// How many seconds a token may hold.
pub(super) const SECONDS: RangeInclusive<u32> = 1..=21_600;

/// Bytes of the moment, in milliseconds.
const MOMENT: usize = 8;

/// Gives tokens and knows them again.
pub(super) struct Tokens {
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// With a key that nobody has had.
    pub(super) fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        fill_random(&mut key)?;
        Ok(Self {
            // Any length is a key to it.
            key: Hmac::new_from_slice(&key).map_err(io::Error::other)?,
        })
    }

    /// A token that holds for so many seconds after `now`, the time since any moment, the same one for all calls.
    pub(super) fn give(&self, seconds: u32, now: Duration) -> String {
        let end = now.saturating_add(Duration::from_secs(seconds.into()));
        let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let mut code = self.key.clone();
        code.update(&end);
        let code = code.finalize().into_bytes();
        end.iter()
            .chain(&code)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Whether `token` is one of ours, and holds at `now`.
    pub(super) fn knows(&self, token: &str, now: Duration) -> bool {
        let Some(bytes) = bytes(token) else {
            return false;
        };
        let Some((end, shown)) = bytes.split_first_chunk::<MOMENT>() else {
            return false;
        };
        let mut code = self.key.clone();
        code.update(end);
        // Takes as long for a wrong code as for the right one.
        code.verify_slice(shown).is_ok() && now.as_millis() < u128::from(u64::from_be_bytes(*end))
    }
}

/// The bytes of hexadecimal text.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}
