//! Kubernetes' quantities: `250m`, `1.5`, `64Mi`, `1e3`, `2G`.
//!
//! Source: the documentation of the type `Quantity` in Kubernetes' API reference (`api/resource`).

use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource;

/// An amount that is not negative, in thousandths; what is finer counts as a whole thousandth, as in Kubernetes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    millis: u128,
}

/// A text that is no quantity, or a negative or overly large one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantityError {
    text: String,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no amount that this node knows; write one such as 250m, 1.5 or 64Mi",
            self.text
        )
    }
}

impl std::error::Error for QuantityError {}

/// No resource comes near this: 2^63 of its units. Keeps all arithmetic below 128 bits.
const MOST_MILLIS: u128 = (1 << 63) * 1_000;

/// Digits of a number that are looked at, leading zeros included.
const DIGITS_MOST: usize = 32;

impl Quantity {
    /// This many thousandths.
    pub fn from_millis(millis: u64) -> Self {
        Self {
            millis: millis.into(),
        }
    }

    /// This many units.
    pub fn from_units(units: u64) -> Self {
        Self {
            millis: u128::from(units) * 1_000,
        }
    }

    /// In thousandths.
    pub fn millis(self) -> u64 {
        u64::try_from(self.millis).unwrap_or(u64::MAX)
    }

    /// In whole units, rounded up.
    pub fn units(self) -> u64 {
        self.divided(1)
    }

    /// How many of `divisor` units it is, rounded up.
    pub fn divided(self, divisor: u64) -> u64 {
        let by = u128::from(divisor.max(1)) * 1_000;
        u64::try_from(self.millis.div_ceil(by)).unwrap_or(u64::MAX)
    }

    /// How many of `divisor` it is, rounded up; a divisor of 0 counts as 1.
    pub fn over(self, divisor: Self) -> u64 {
        let by = if divisor.millis == 0 {
            1_000
        } else {
            divisor.millis
        };
        u64::try_from(self.millis.div_ceil(by)).unwrap_or(u64::MAX)
    }
}

impl TryFrom<&resource::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &resource::Quantity) -> Result<Self, QuantityError> {
        quantity.0.parse()
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).ok_or_else(|| QuantityError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.')
        || (whole.is_empty() && fraction.is_empty())
        || whole.len() + fraction.len() > DIGITS_MOST
    {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, shift) = scale(suffix)?;
    // The number is digits * factor * 10^ten, in thousandths.
    let ten = shift + 3 - i32::try_from(fraction.len()).ok()?;
    let scaled = digits.checked_mul(factor)?;
    let millis = match u32::try_from(ten) {
        Ok(ten) => scaled.checked_mul(10u128.checked_pow(ten)?)?,
        Err(_) => match 10u128.checked_pow(ten.unsigned_abs()) {
            Some(by) => scaled.div_ceil(by),
            None => u128::from(scaled > 0),
        },
    };
    (millis <= MOST_MILLIS).then_some(Quantity { millis })
}

/// What a suffix stands for: a factor, and a power of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            ((-40..=40).contains(&exponent)).then_some((1, exponent))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_what_kubernetes_reads() {
        for (text, millis) in [
            ("0", 0),
            ("1", 1_000),
            ("+2", 2_000),
            ("250m", 250),
            ("1.5", 1_500),
            (".5", 500),
            ("5.", 5_000),
            ("0.0001", 1),
            ("1n", 1),
            ("100u", 1),
            ("2k", 2_000_000),
            ("64Ki", 65_536_000),
            ("0.5Mi", 524_288_000),
            ("1M", 1_000_000_000),
            ("1e3", 1_000_000),
            ("12E2", 1_200_000),
            ("5e-1", 500),
            ("7Ei", 7 * (1 << 60) * 1_000),
            ("2E", 2_000_000_000_000_000_000_000),
        ] {
            assert_eq!(text.parse::<Quantity>().map(|q| q.millis), Ok(millis), "{text}");
        }
        for text in [
            "", "-1", "m", ".", "1.2.3", "1K", "1mi", "1 Mi", "1e", "1e99", "9Ei", "0x1", "1e+-1", "Mi", "１",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn rounding_is_up() {
        let quantity: Quantity = "1025Ki".parse().unwrap();
        assert_eq!(quantity.divided(1 << 20), 2);
        assert_eq!("1m".parse::<Quantity>().unwrap().units(), 1);
        assert_eq!(
            "250m"
                .parse::<Quantity>()
                .unwrap()
                .over(Quantity::from_millis(100)),
            3
        );
        assert_eq!("2".parse::<Quantity>().unwrap().over(Quantity::default()), 2);
    }
}
