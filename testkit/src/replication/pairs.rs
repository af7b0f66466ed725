//! Pairs of notes that one commit changes together: a reader that sees half of a pair sees half of a commit.

use std::collections::BTreeMap;

use syncline::{Error, Storage, TransactionManager};

use super::contents::all;
use crate::models::{Note, note};

/// The id of the second note of a pair, less that of the first one.
pub(super) const OTHER: u32 = 1_000;

/// Puts both notes of a pair in one commit.
pub(super) async fn put_pair<S: Storage>(
    library: &TransactionManager<S>,
    n: u32,
    text: &str,
) -> Result<(), Error> {
    let (one, other) = (note(n, text), note(OTHER + n, text));
    let batch = library.commit_batch(move |batch| {
        batch.put(&one)?;
        Ok(batch.put(&other)?)
    });
    batch.await.map(drop)
}

/// Puts both notes of each of these pairs, a commit for each pair.
pub(super) async fn put_pairs<S: Storage>(
    library: &TransactionManager<S>,
    numbers: impl IntoIterator<Item = u32>,
    text: &str,
) {
    for n in numbers {
        put_pair(library, n, text).await.expect("it is saved");
    }
}

/// Deletes both notes of each of these pairs, a commit for each pair.
pub(super) async fn delete_pairs<S: Storage>(
    library: &TransactionManager<S>,
    numbers: impl IntoIterator<Item = u32>,
) {
    for n in numbers {
        let batch = library.commit_batch(move |batch| {
            batch.delete::<Note>(n)?;
            Ok(batch.delete::<Note>(OTHER + n)?)
        });
        batch.await.expect("it is deleted");
    }
}

/// The texts of all notes that a reader sees, by their ids.
pub(super) async fn notes<S: Storage>(library: &TransactionManager<S>) -> BTreeMap<u32, String> {
    all::<Note, _>(library).await.into_iter().map(|note| (note.id, note.text)).collect()
}

/// The notes of whole pairs with these texts.
pub(super) fn pairs<'a>(texts: impl IntoIterator<Item = (u32, &'a str)>) -> BTreeMap<u32, String> {
    let both = |(n, text): (u32, &str)| [(n, text.to_owned()), (OTHER + n, text.to_owned())];
    texts.into_iter().flat_map(both).collect()
}

/// The first pair of which a reader that sees these notes sees a half.
pub(super) fn half(notes: &BTreeMap<u32, String>) -> Option<u32> {
    (0..OTHER).find(|n| notes.get(n) != notes.get(&(OTHER + n)))
}
