//! A change of the stored record that the app decides when it sees the record. A model's own merge is called here and
//! nowhere else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::{self, Action, Current, Updated};
use crate::error::Error;
use crate::hlc::Hlc;
use crate::model;
use crate::syncable::{RecordId, Syncable};

/// What a closure of [`change`](crate::TransactionManager::change) makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<M> {
    /// Put this model in the place of the record, under the same id.
    Put(M),
    /// Delete the record, if it is there.
    Delete,
    /// Leave the record as it is: nothing is written.
    Keep,
}

impl<M> From<M> for Update<M> {
    fn from(model: M) -> Self {
        Self::Put(model)
    }
}

/// Puts `new` over `old`: if the model brings its own merge, `new` is merged into `old`, otherwise it replaces it.
pub(crate) fn put_over<M: Syncable>(old: Option<M>, new: M) -> M {
    match old {
        Some(old) if M::OWN_MERGE => old.merge(new),
        _ => new,
    }
}

/// Makes an action that does what `change` returns to the record `id`, and gives `saved` the record as it is then.
///
/// Decoding, migrating, merging and encoding are the app's code, as `change` is. All of them run in the driver, which
/// must outlive a panic in any of them: other commits wait there.
pub(crate) fn update<M: Syncable, U: Into<Update<M>>>(
    id: RecordId<M>,
    value_bytes_max: usize,
    change: impl FnOnce(Option<&M>) -> Result<U, Error> + Send + 'static,
    saved: impl FnOnce(Option<M>) + Send + 'static,
) -> Action {
    Action::Update(updater(id, value_bytes_max, change, saved))
}

fn updater<M: Syncable, U: Into<Update<M>>>(
    id: RecordId<M>,
    value_bytes_max: usize,
    change: impl FnOnce(Option<&M>) -> Result<U, Error> + Send + 'static,
    saved: impl FnOnce(Option<M>) + Send + 'static,
) -> Box<engine::Update> {
    let update = move |current: Option<Current<'_>>| {
        let old: Option<M> = current.map(|current| model::decode(&id, current)).transpose()?;
        let new = match change(old.as_ref())?.into() {
            Update::Put(new) => new,
            Update::Delete => {
                saved(None);
                return Ok(Updated::Delete);
            }
            Update::Keep => {
                saved(old);
                return Ok(Updated::Keep);
            }
        };
        if new.sync_id() != id {
            return Err(Error::IdChanged { model: M::SYNC_MODEL });
        }
        let put = put_over(old, new);
        let value = model::encode(&put, value_bytes_max)?;
        saved(Some(put));
        Ok(Updated::Put(value))
    };
    Box::new(move |current| {
        catch_unwind(AssertUnwindSafe(|| update(current))).map_err(|panic| Error::from_panic(&*panic))?
    })
}

/// The same, where `change` is given the stamp of its commit too.
pub(crate) fn update_stamped<M: Syncable, U: Into<Update<M>>>(
    id: RecordId<M>,
    value_bytes_max: usize,
    change: impl FnOnce(Option<&M>, Hlc) -> Result<U, Error> + Send + 'static,
) -> Action {
    Action::Stamped(Box::new(move |stamp| {
        updater(id, value_bytes_max, move |old: Option<&M>| change(old, stamp), drop)
    }))
}

#[cfg(test)]
mod tests {
    //! Goal: a put merges exactly if the model says so, and no mistake of the app ends more than its own commit.
    //! Method: two models that differ in that alone, updated by hand.

    use std::sync::{Arc, Mutex};

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::storage::Value;
    use crate::stored::record;
    use crate::syncable::Shared;

    macro_rules! model {
        ($model:ident, $name:literal, $own_merge:literal) => {
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            struct $model(u32, String);

            impl Syncable for $model {
                const SYNC_MODEL: &'static str = $name;
                type Id = u32;
                type Ownership = Shared;
                const OWN_MERGE: bool = $own_merge;

                fn sync_id(&self) -> u32 {
                    self.0
                }

                fn merge(self, other: Self) -> Self {
                    assert_ne!(other.1, "poison");
                    Self(self.0, self.1 + &other.1)
                }
            }
        };
    }

    model!(Text, "text", true);
    model!(Tag, "tag", false);

    fn stored(model: &impl Syncable) -> Value {
        record::value_of(&model::encode(model, usize::MAX).unwrap().record).to_vec()
    }

    /// Runs an update of record 1 over `old`; returns its outcome and the record that the caller gets.
    fn run_any<M: Syncable, U: Into<Update<M>> + 'static>(
        old: Option<&M>,
        change: impl FnOnce(Option<&M>) -> Result<U, Error> + Send + 'static,
    ) -> Result<(Updated, Option<M>), Error>
    where
        RecordId<M>: From<u32>,
    {
        let saved = Arc::new(Mutex::new(None));
        let save = Arc::clone(&saved);
        let action = update(1.into(), 10, change, move |model| *save.lock().unwrap() = Some(model));
        let Action::Update(update) = action else { panic!("{action:?}") };
        let old = old.map(stored);
        let outcome = update(old.as_deref().map(|value| Current { schema: 1, value }))?;
        let saved = saved.lock().unwrap().take().expect("the record is given back");
        Ok((outcome, saved))
    }

    /// As [`run_any`], of a change that puts; returns the value that is stored and the model that the caller gets.
    fn run<M: Syncable>(
        old: Option<&M>,
        change: impl FnOnce(Option<&M>) -> Result<M, Error> + Send + 'static,
    ) -> Result<(Value, M), Error>
    where
        RecordId<M>: From<u32>,
    {
        let (Updated::Put(value), Some(saved)) = run_any(old, change)? else { panic!("it does not put") };
        Ok((record::value_of(&value.record).to_vec(), saved))
    }

    #[test]
    fn a_change_may_delete_or_keep() {
        let old = Text(1, "a".into());
        for stored in [Some(&old), None] {
            let (outcome, record) = run_any(stored, |_| Ok(Update::Delete)).unwrap();
            assert!(matches!(outcome, Updated::Delete) && record.is_none(), "{outcome:?}, {record:?}");
            let (outcome, record) = run_any(stored, |_| Ok(Update::Keep)).unwrap();
            assert!(matches!(outcome, Updated::Keep) && record.as_ref() == stored, "{outcome:?}, {record:?}");
        }
        let (outcome, record) = run_any(Some(&old), |_| Ok(Update::Put(Text(1, "b".into())))).unwrap();
        assert!(matches!(outcome, Updated::Put(_)) && record == Some(Text(1, "ab".into())), "{outcome:?}");
    }

    #[test]
    fn a_put_is_merged_only_if_the_model_brings_its_own_merge() {
        let (text, tag) = (|text: &str| Text(1, text.into()), |text: &str| Tag(1, text.into()));
        assert_eq!(put_over(Some(text("a")), text("b")), text("ab"));
        assert_eq!(put_over(None, text("b")), text("b"));
        assert_eq!(put_over(Some(tag("a")), tag("b")), tag("b"));

        let (value, saved) = run(Some(&text("a")), move |_| Ok(text("b"))).unwrap();
        assert_eq!((value, saved), (stored(&text("ab")), text("ab")));
        let (value, saved) = run(Some(&tag("a")), move |_| Ok(tag("b"))).unwrap();
        assert_eq!((value, saved), (stored(&tag("b")), tag("b")));
    }

    #[test]
    fn a_change_sees_what_is_there() {
        let is_absent = |old: Option<&Tag>| Ok(Tag(1, old.is_none().to_string()));
        assert_eq!(run(None, is_absent).unwrap().1.1, "true");
        assert_eq!(run(Some(&Tag(1, "a".into())), is_absent).unwrap().1.1, "false");
    }

    #[test]
    fn mistakes_of_the_app_are_errors_of_its_commit() {
        let old = Text(1, "a".into());
        let put =
            |id: u32, text: &'static str| run(Some(&old), move |_| Ok(Text(id, text.into()))).unwrap_err();
        assert!(matches!(put(2, "b"), Error::IdChanged { model: "text" }));
        let moved = run(None, |_: Option<&Tag>| Ok(Tag(2, "b".into()))).unwrap_err();
        assert!(matches!(moved, Error::IdChanged { model: "tag" }));
        assert!(matches!(put(1, "poison"), Error::Panicked { .. }), "in the merge");
        assert!(matches!(put(1, "a long text"), Error::TooLarge { .. }));
        let panics = run(Some(&old), |_| -> Result<Text, Error> { panic!("in the change") }).unwrap_err();
        assert!(matches!(panics, Error::Panicked { message } if message == "in the change"));
    }

    #[test]
    fn a_value_that_is_too_long_only_when_merged_is_refused() {
        let merged = run(Some(&Text(1, "12345".into())), |_| Ok(Text(1, "6789".into())));
        assert!(matches!(merged, Err(Error::TooLarge { size: 11, .. })), "{merged:?}");
    }
}
