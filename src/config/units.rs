//! Floor 7. The units in which a size (`64M`) or a time (`5s`) may be written.
//!
//! A number without a unit counts in the setting's own unit, so that files and variables that were
//! written for Reverb read as before. Sizes count in powers of 1024, as those of PHP and nginx do.

/// The things that a whole number counts.
#[derive(Clone, Copy)]
pub(super) enum NumberUnit {
    /// Things; the number stands alone.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// The units of sizes in bytes, smallest first. A `B` or `iB` behind them changes nothing.
const SIZES: [(&str, u64); 5] = [("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), TERA];
const TERA: (&str, u64) = ("T", 1 << 40);

/// The units of times in milliseconds, smallest first.
const TIMES: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl NumberUnit {
    /// Reads digits and perhaps a unit behind them. `None` for anything else, for numbers that do
    /// not fit, and for times that are no whole number of the setting's own unit.
    pub(super) fn read(self, text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, suffix) = text.split_at_checked(digits)?;
        let number: u64 = digits.parse().ok()?;
        let suffix = suffix.trim_start();
        if suffix.is_empty() {
            return Some(number);
        }
        match self {
            Self::Count => None,
            Self::Bytes => number.checked_mul(size_named(suffix)?),
            Self::Seconds | Self::Milliseconds => {
                let (_, factor) = TIMES.iter().find(|(name, _)| *name == suffix)?;
                let milliseconds = number.checked_mul(*factor)?;
                let own = self.in_milliseconds();
                milliseconds.is_multiple_of(own).then_some(milliseconds / own)
            }
        }
    }

    /// The numbers from `min` to `max` in words, to end the sentence "it takes ...".
    pub(super) fn range(self, min: u64, max: u64) -> String {
        let (what, units) = match self {
            Self::Count => return format!("a whole number from {min} to {max}"),
            Self::Bytes => ("size", "bytes, or `K`, `M`, `G`"),
            Self::Seconds => ("time", "seconds, or `s`, `m`, `h`, `d`"),
            Self::Milliseconds => ("time", "milliseconds, or `ms`, `s`"),
        };
        format!("a {what} from {} to {} ({units})", self.written(min), self.written(max))
    }

    /// A number with the largest unit that leaves it whole.
    fn written(self, number: u64) -> String {
        let (units, own): (&[(&str, u64)], u64) = match self {
            Self::Count => return number.to_string(),
            Self::Bytes => (&SIZES, 1),
            Self::Seconds | Self::Milliseconds => (&TIMES, self.in_milliseconds()),
        };
        let whole = number.saturating_mul(own);
        let fits = |&&(_, factor): &&(&str, u64)| whole.is_multiple_of(factor);
        match units.iter().rev().find(fits) {
            Some((name, factor)) if number > 0 => format!("{}{name}", whole / factor),
            _ => number.to_string(),
        }
    }

    const fn in_milliseconds(self) -> u64 {
        if matches!(self, Self::Milliseconds) { 1 } else { 1000 }
    }
}

/// The factor of `K`, `kb`, `KiB` and so on. Case does not matter, since no size here is in bits.
fn size_named(suffix: &str) -> Option<u64> {
    let name = suffix.to_ascii_uppercase();
    let binary = name.strip_suffix("IB").filter(|name| !name.is_empty());
    let name = binary.or_else(|| name.strip_suffix('B')).unwrap_or(&name);
    SIZES.iter().find(|(known, _)| *known == name).map(|&(_, factor)| factor)
}

/// A size as an operator may write it, in whole mebibytes, rounded up.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{}M", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_of_1024_in_any_spelling() {
        for (text, bytes) in [
            ("64", 64),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("10k", 10_240),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("7B", 7),
            (" 7 ", 7),
        ] {
            assert_eq!(NumberUnit::Bytes.read(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "-1", "+1", "1.5M", "1M1", "1X", "1s", "99999999999999999999", "1 iB"]
        {
            assert_eq!(NumberUnit::Bytes.read(text), None, "{text}");
        }
        assert_eq!(NumberUnit::Bytes.read("99999999999T"), None, "more than fits");
    }

    #[test]
    fn times_take_units_and_are_whole_in_their_own() {
        for (text, seconds) in
            [("5", 5), ("5s", 5), ("5 s", 5), ("2m", 120), ("1h", 3600), ("1d", 86_400)]
        {
            assert_eq!(NumberUnit::Seconds.read(text), Some(seconds), "{text}");
        }
        assert_eq!(NumberUnit::Seconds.read("2000ms"), Some(2));
        assert_eq!(NumberUnit::Seconds.read("500ms"), None);
        assert_eq!(NumberUnit::Milliseconds.read("50"), Some(50));
        assert_eq!(NumberUnit::Milliseconds.read("50ms"), Some(50));
        assert_eq!(NumberUnit::Milliseconds.read("1s"), Some(1000));
        for text in ["5M", "5x", "s", "1.5s", "-5s"] {
            assert_eq!(NumberUnit::Seconds.read(text), None, "{text}");
        }
        assert_eq!(NumberUnit::Count.read("5"), Some(5));
        assert_eq!(NumberUnit::Count.read("5k"), None);
    }

    #[test]
    fn ranges_are_shown_in_the_units_that_are_taken() {
        assert_eq!(NumberUnit::Count.range(1, 65_535), "a whole number from 1 to 65535");
        assert_eq!(
            NumberUnit::Bytes.range(4096, 64 << 30),
            "a size from 4K to 64G (bytes, or `K`, `M`, `G`)"
        );
        assert_eq!(
            NumberUnit::Seconds.range(0, 300),
            "a time from 0 to 5m (seconds, or `s`, `m`, `h`, `d`)"
        );
        assert_eq!(
            NumberUnit::Milliseconds.range(0, 10_000),
            "a time from 0 to 10s (milliseconds, or `ms`, `s`)"
        );
    }
}
