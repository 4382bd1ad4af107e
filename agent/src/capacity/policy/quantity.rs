//! Amounts and times of day as people write them in the policy.

use jiff::civil::Weekday;

/// The largest amount that is taken for meant: an exbibyte.
const BYTES_MAX: u64 = 1 << 60;

/// Whole days have this many minutes.
pub(super) const DAY_MINUTES: u16 = 24 * 60;

/// `512M`, `1.5G`, `2GiB`, `100GB`: bytes, in powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(number.len()..)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let number = number.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) || fraction.len() > 6 {
        return None;
    }
    let unit = 1u64 << shift;
    let mut bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let parts = u128::from(fraction.parse::<u64>().ok()?);
        let of = 10u128.pow(fraction.len() as u32);
        bytes = bytes.checked_add(u64::try_from(parts * u128::from(unit) / of).ok()?)?;
    }
    (bytes <= BYTES_MAX).then_some(bytes)
}

/// CPUs in thousandths.
pub(super) fn millis(cpus: f64) -> Option<u64> {
    ((0.0..=65_536.0).contains(&cpus)).then(|| (cpus * 1_000.0).round() as u64)
}

/// `06:30` or `24:00`: minutes since midnight.
pub(super) fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<u16> {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

/// `mon` to `sun`, or the day's whole English name.
pub(super) fn weekday(text: &str) -> Option<Weekday> {
    let days = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let text = text.to_ascii_lowercase();
    days.into_iter()
        .find(|(name, _)| text == *name || text == name[..3])
        .map(|(_, day)| day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("512M", Some(512 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1.5g", Some(3 << 29)),
            ("0.25 G", Some(1 << 28)),
            ("1T", Some(1 << 40)),
            ("0M", Some(0)),
            ("12", None),
            ("M", None),
            ("-1G", None),
            ("1.G", None),
            (".5G", None),
            ("1,5G", None),
            ("1e3G", None),
            ("9999999999T", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn times_and_days_are_read() {
        for (text, expected) in [
            ("00:00", Some(0)),
            ("06:30", Some(390)),
            ("24:00", Some(1440)),
            ("24:01", None),
            ("6:30", None),
            ("12:60", None),
            ("noon", None),
        ] {
            assert_eq!(minutes(text), expected, "{text}");
        }
        assert_eq!(weekday("Mon"), Some(Weekday::Monday));
        assert_eq!(weekday("sunday"), Some(Weekday::Sunday));
        assert_eq!(weekday("su"), None);
        assert_eq!(millis(0.25), Some(250));
        assert_eq!(millis(-1.0), None);
        assert_eq!(millis(f64::NAN), None);
    }
}
