//! Which batches a reopened store holds, and a sentence if that cannot be.

use std::fmt;
use std::str::FromStr;

use super::{Numbers, Script};
use crate::sorted_map::{SortedMap, difference};

/// The content that a store may hold.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The sets of batches that may be there, the smallest first. The store must hold exactly one of them.
    pub(crate) candidates: Vec<Numbers>,
    /// Batches that were rejected, for the message if one of them is there.
    pub(crate) rejected: Numbers,
}

impl Question {
    /// The store holds the first `acknowledged` batches, and perhaps those up to `called`, in their order.
    pub(crate) fn in_order(acknowledged: u32, called: u32) -> Self {
        let candidates = (acknowledged..=called.max(acknowledged)).map(Numbers::up_to).collect();
        Self { candidates, rejected: Numbers::default() }
    }

    /// Returns the index of the candidate that `found` is.
    pub(super) fn judge(&self, script: &Script, found: &SortedMap) -> Result<usize, String> {
        let states: Vec<_> = self.candidates.iter().map(|numbers| script.state(numbers)).collect();
        match states.iter().position(|state| state == found) {
            Some(index) => Ok(index),
            None => Err(self.explain(script, found, &states)),
        }
    }

    fn explain(&self, script: &Script, found: &SortedMap, states: &[SortedMap]) -> String {
        let (Some(certain), Some(before), Some(after)) =
            (self.candidates.first(), states.first(), states.last())
        else {
            return "nothing may be there".into();
        };
        let is = |numbers: &[u32]| script.state(&Numbers(numbers.to_vec())) == *found;
        let mut state = SortedMap::new();
        for (at, &number) in certain.0.iter().enumerate() {
            if state == *found {
                let lost = Numbers(certain.0[at..].to_vec());
                return format!("acknowledged batches are lost: {lost} of {certain}");
            }
            script.apply(&mut state, number);
        }
        for at in (0..certain.0.len()).rev().take(EXPLANATIONS_MAX) {
            let mut kept = certain.0.clone();
            let lost = kept.remove(at);
            if is(&kept) {
                return format!("batch {lost} is lost, and later ones up to {:?} are there", kept.last());
            }
        }
        for numbers in &self.candidates {
            for &rejected in &self.rejected.0 {
                let mut more = numbers.0.clone();
                more.push(rejected);
                more.sort_unstable();
                if is(&more) {
                    return format!("batch {rejected} was rejected, and is there");
                }
            }
        }
        if states.len() == 1 {
            return format!("the state is not that after batches {certain}: {}", difference(found, before));
        }
        format!(
            "part of a batch is there: against the state before it: {}; all of it: {}",
            difference(found, before),
            difference(after, before)
        )
    }
}

/// How many of the last batches are tried as the one that is lost.
const EXPLANATIONS_MAX: usize = 40;

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rejected)?;
        self.candidates.iter().try_for_each(|numbers| write!(f, " {numbers}"))
    }
}

impl FromStr for Question {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(' ').map(str::parse);
        let rejected = parts.next().transpose()?.unwrap_or_default();
        Ok(Self { candidates: parts.collect::<Result<_, _>>()?, rejected })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Size;
    use super::*;

    fn judged(question: &Question, holds: &[u32]) -> Result<usize, String> {
        let script = Script::new(7, Size::Small);
        question.judge(&script, &script.state(&Numbers(holds.to_vec())))
    }

    #[test]
    fn a_state_is_explained() {
        let question = Question { rejected: Numbers(vec![5]), ..Question::in_order(3, 4) };
        let question: Question = question.to_string().parse().unwrap();
        assert_eq!(judged(&question, &[1, 2, 3]), Ok(0));
        assert_eq!(judged(&question, &[1, 2, 3, 4]), Ok(1));
        assert_eq!(judged(&question, &[1]), Err("acknowledged batches are lost: 2-3 of 1-3".into()));
        assert!(judged(&question, &[1, 3]).unwrap_err().starts_with("batch 2 is lost"));
        assert_eq!(judged(&question, &[1, 2, 3, 5]), Err("batch 5 was rejected, and is there".into()));
        assert!(judged(&question, &[1, 2, 3, 9]).unwrap_err().starts_with("part of a batch"));
    }
}
