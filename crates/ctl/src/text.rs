//! Durations and counts in words.

/// A duration as `kubectl` shows ages: the two largest units that matter.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..7200 => format!("{minutes}m"),
        7200..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    }
}

/// `1 peer`, `2 peers`, `2 prefixes`.
pub(crate) fn count(number: u64, singular: &str) -> String {
    match (number, singular.ends_with('x')) {
        (1, _) => format!("1 {singular}"),
        (_, false) => format!("{number} {singular}s"),
        (_, true) => format!("{number} {singular}es"),
    }
}

/// `1 route is`, `2 routes are`.
pub(crate) fn count_is(number: u64, singular: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", count(number, singular))
}

/// A value or nothing.
pub(crate) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_plurals() {
        let words = [0, 1, 2].map(|number| count(number, "prefix"));
        assert_eq!(words, ["0 prefixes", "1 prefix", "2 prefixes"]);
        assert_eq!(count_is(1, "route"), "1 route is");
        assert_eq!(count_is(2, "route"), "2 routes are");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (3599, "59m"),
            (7200, "2h"),
            (10_920, "3h2m"),
            (86_400, "24h"),
            (273_600, "3d4h"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
