//! Reads records while values that this version of the app can merge may still lie beside them.
//!
//! After an update of the app the engine folds such values into their records, page by page ([`Event::Folding`]).
//! Until all are folded, a read merges them itself, so that it returns the merged record from the first moment.
//!
//! [`Event::Folding`]: crate::Event::Folding

use std::sync::atomic::Ordering::Acquire;

use crate::engine::Current;
use crate::error::Error;
use crate::events::RecordKey;
use crate::manager::Inner;
use crate::model::Registry;
use crate::pages::Pages;
use crate::storage::{Entry, Key, KeyRange, ReadError, Storage, Value};
use crate::stored::keys;
use crate::stored::record::{self, Header};

impl<S: Storage> Inner<S> {
    /// Reads the values of `keys`, all from one consistent state, with the values beside them merged in.
    pub(crate) async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
        loop {
            let open = self.store().await?;
            let values = open.store.get_many(keys).await?;
            if values.len() != keys.len() {
                return Err(ReadError::new(format!("{} values for {} keys", values.len(), keys.len())).into());
            }
            let is_open = |(key, value): (&Key, &Option<Value>)| {
                value.as_deref().is_some_and(|value| self.models().can_fold(key, value))
            };
            if !self.folding.load(Acquire) || !keys.iter().zip(&values).any(is_open) {
                return Ok(values);
            }
            let mut folded = values.clone();
            for (key, value) in keys.iter().zip(&mut folded) {
                if let Some(value) = value {
                    fold(&open.store, self.models(), key, value).await?;
                }
            }
            // A value that the engine folded between the two reads is in neither of them: then read everything again.
            if open.store.get_many(keys).await? == values {
                return Ok(folded);
            }
        }
    }

    /// Reads the first `limit` entries of a range of records, all from one consistent state, with the values beside
    /// them merged in.
    pub(crate) async fn read_page(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, Error> {
        loop {
            let open = self.store().await?;
            let mut entries = open.store.scan(range.clone(), limit).await?;
            let is_open = |entry: &Entry| self.models().can_fold(&entry.key, &entry.value);
            if !self.folding.load(Acquire) || !entries.iter().any(is_open) {
                return Ok(entries);
            }
            let before = entries.clone();
            for Entry { key, value } in &mut entries {
                fold(&open.store, self.models(), key, value).await?;
            }
            if open.store.scan(range.clone(), limit).await? == before {
                return Ok(entries);
            }
        }
    }
}

impl Registry {
    /// Whether values lie beside the record `stored` that this version of the app may be able to merge into it.
    fn can_fold(&self, key: &[u8], stored: &[u8]) -> bool {
        let beside = |header: Header| header.merge.is_some_and(|merge| merge.beside);
        record::parse(stored).is_ok_and(|(header, _)| beside(header))
            && RecordKey::from_bytes(key).is_some_and(|record| self.merge_of(record.model()).is_some())
    }
}

/// Merges the values beside a record into it, as far as this version of the app can.
async fn fold<S: Storage>(
    store: &S,
    models: &Registry,
    key: &[u8],
    stored: &mut Value,
) -> Result<(), ReadError> {
    if !models.can_fold(key, stored) {
        return Ok(());
    }
    let Some(record) = RecordKey::from_bytes(key) else { return Ok(()) };
    let Some(merge) = models.merge_of(record.model()) else { return Ok(()) };
    let mut besides = Pages::new(store, keys::besides_of(&record));
    while let Some(page) = besides.next().await? {
        for Entry { value: beside, .. } in page {
            // A value that cannot be read or merged stays beside the record, as it does when the engine folds.
            let (Ok((header, value)), Ok((other, other_value))) =
                (record::parse(stored), record::parse(&beside))
            else {
                continue;
            };
            let merged = merge(
                Current { schema: header.schema, value },
                Current { schema: other.schema, value: other_value },
            );
            if let Ok(new) = merged {
                let header = Header { schema: new.schema, ..header };
                *stored = record::of(&header, record::value_of(&new.record));
            }
        }
    }
    Ok(())
}
