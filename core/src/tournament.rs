//! Combines many items into few, pairwise.
//!
//! Combining each item with all those before it visits the first ones as often as there are items. In pairs of pairs,
//! each is visited as often as the number of items has binary digits.

/// Combines `items`, neighbours first. Returns what is left: one item, and beside it all that could not be combined.
pub(crate) fn combine_all<T>(
    items: impl IntoIterator<Item = T>,
    mut combine: impl FnMut(T, T) -> Result<T, Box<[T; 2]>>,
) -> Vec<T> {
    // Combined items, each with the binary logarithm of how many it is of: a larger one is never behind a smaller one.
    let mut combined: Vec<(u32, T)> = Vec::new();
    let mut apart = Vec::new();
    for item in items {
        let mut next = Some((0, item));
        while let Some((level, item)) = next.take() {
            match combined.pop_if(|(other, _)| *other == level) {
                None => combined.push((level, item)),
                Some((_, before)) => match combine(before, item) {
                    Ok(both) => next = Some((level + 1, both)),
                    Err(two) => apart.extend(*two),
                },
            }
        }
    }
    let mut last = None;
    while let Some((_, before)) = combined.pop() {
        last = match last.take() {
            None => Some(before),
            Some(item) => combine(before, item).map_err(|two| apart.extend(*two)).ok(),
        };
    }
    apart.extend(last);
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_items_end_in_one_and_each_is_visited_seldom() {
        for count in [0_u64, 1, 2, 3, 7, 8, 9, 1_000] {
            let mut visited = 0;
            let left = combine_all((0..count).map(|n| vec![n]), |mut one, other| {
                visited += one.len() + other.len();
                one.extend(other);
                Ok(one)
            });
            let all: Vec<_> = left.into_iter().flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>(), "in their order");
            let digits = u64::from(u64::BITS - count.leading_zeros()) + 1;
            assert!(visited as u64 <= count * digits, "{visited} visits of {count}");
        }
    }

    #[test]
    fn what_cannot_be_combined_is_left_apart() {
        let combine = |one: u64, other: u64| {
            if one % 10 == 9 || other % 10 == 9 { Err(Box::new([one, other])) } else { Ok(one + other) }
        };
        for items in [vec![9, 9, 9], vec![10, 9, 20, 30], vec![9, 10, 20, 30, 40, 9, 50]] {
            let left = combine_all(items.clone(), combine);
            assert_eq!(left.iter().sum::<u64>(), items.iter().sum::<u64>(), "nothing is lost");
            let nines = |items: &[u64]| items.iter().filter(|item| **item == 9).count();
            assert_eq!(nines(&left), nines(&items));
        }
        assert_eq!(combine_all([10, 20, 9], combine), [30, 9]);
    }
}
