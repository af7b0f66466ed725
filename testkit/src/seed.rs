//! The seed of all randomness, which is fixed unless `SYNCLINE_SEED` is set.

/// Returns the seed of a run: that of `SYNCLINE_SEED`, decimal or hexadecimal after `0x`, or otherwise a fixed one.
///
/// # Panics
/// If the variable is set to something that is no such number.
#[must_use]
pub fn seed() -> u64 {
    const SEED: u64 = 0x5EED;
    match std::env::var("SYNCLINE_SEED") {
        Err(_) => SEED,
        Ok(text) => parse(&text).unwrap_or_else(|| panic!("SYNCLINE_SEED is not a 64-bit number: {text:?}")),
    }
}

fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!((parse("17"), parse("0x11"), parse("seventeen")), (Some(17), Some(17), None));
    }
}
