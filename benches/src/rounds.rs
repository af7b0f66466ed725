//! Paired rounds: every side of a comparison does the same work in turn, round after round.

use crate::Result;

/// Runs `rounds` rounds, in each of them every side once, and returns the figures by side.
///
/// `prepare` makes the work of a round, `run` measures it for one side. The order of the sides is reversed every
/// round, so that none always comes first, and the sides that are compared stay neighbours in time. A round before
/// them warms up and is not counted.
///
/// # Errors
/// The first error of `run`.
pub fn paired<const SIDES: usize, Work>(
    rounds: usize,
    mut prepare: impl FnMut() -> Work,
    mut run: impl FnMut(&Work, usize) -> Result<f64>,
) -> Result<[Vec<f64>; SIDES]> {
    let mut figures = [const { Vec::new() }; SIDES];
    for round in 0..=rounds {
        let work = prepare();
        let mut sides: Vec<_> = figures.iter_mut().enumerate().collect();
        if round % 2 == 1 {
            sides.reverse();
        }
        for (side, figures) in sides {
            let figure = run(&work, side)?;
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

/// The middle of some figures and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `figures`; not a number if there are none.
    #[must_use]
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { median, min: at(0), max: at(sorted.len().wrapping_sub(1)) }
    }

    /// The spread of the ratios of two sides, round by round.
    #[must_use]
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Self {
        let ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Self::of(&ratios)
    }

    /// The spread of a figure that was measured once.
    #[must_use]
    pub const fn once(figure: f64) -> Self {
        Self { median: figure, min: figure, max: figure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_turns_and_the_first_round_does_not_count() {
        let (mut order, mut prepared) = (Vec::new(), 0..);
        let round = || prepared.next().unwrap();
        let figures = paired::<2, i32>(3, round, |&round, side| {
            order.push((round, side));
            Ok(f64::from(10 * round) + side as f64)
        });
        assert_eq!(order, [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1), (3, 1), (3, 0)]);
        assert_eq!(figures.unwrap(), [vec![10., 20., 30.], vec![11., 21., 31.]]);
    }

    #[test]
    fn the_median_is_of_the_ratios() {
        let spread = Spread::of_ratios(&[1., 2., 30.], &[2., 2., 10.]);
        assert_eq!(spread, Spread { median: 1., min: 0.5, max: 3. });
        assert_eq!(Spread::of(&[4., 1., 3., 2.]).median, 2.5);
        assert!(Spread::of(&[]).median.is_nan());
    }
}
