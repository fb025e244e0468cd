//! Durations in the unit that suits them.

/// Microseconds as text: `999 us`, `45.6 ms`, `1.50 s`.
pub(crate) fn duration_text(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        assert_eq!(
            [7, 999, 1000, 45_600, 1_500_000].map(duration_text),
            ["7 us", "999 us", "1.0 ms", "45.6 ms", "1.50 s"]
        );
    }
}
