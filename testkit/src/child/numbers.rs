//! Sets of batches, by their numbers, as text: `1-5,7`.

use std::fmt;
use std::str::FromStr;

/// The numbers of batches, in the order in which they were written, which ascends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers(pub Vec<u32>);

impl Numbers {
    /// The first batches.
    pub(crate) fn up_to(last: u32) -> Self {
        Self((1..=last).collect())
    }

    pub(crate) fn with(&self, number: u32) -> Self {
        Self(self.0.iter().copied().chain([number]).collect())
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &number in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        if runs.is_empty() {
            return f.write_str("none");
        }
        let runs = runs.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        f.write_str(&runs.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Numbers {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = Vec::new();
        for run in text.split(',').filter(|run| *run != "none") {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            numbers.extend(first.parse::<u32>()?..=last.parse()?);
        }
        Ok(Self(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_from_their_text() {
        for numbers in [vec![], vec![1], vec![1, 2, 3], vec![1, 3, 4, 9]] {
            let numbers = Numbers(numbers);
            assert_eq!(numbers.to_string().parse(), Ok(numbers));
        }
        assert_eq!(Numbers(vec![1, 2, 3, 5]).to_string(), "1-3,5");
    }
}
