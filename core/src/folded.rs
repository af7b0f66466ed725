//! Reads records while values that this version of the app can merge may still lie beside them.
//!
//! After an update of the app the engine folds such values into their records, page by page ([`Event::Folding`]).
//! Until all are folded, a read merges them itself, so that it returns the merged record from the first moment.
//!
//! [`Event::Folding`]: crate::Event::Folding

use std::sync::atomic::Ordering::Acquire;

use crate::engine::{Current, Overlay};
use crate::error::Error;
use crate::events::RecordKey;
use crate::manager::Inner;
use crate::model::Registry;
use crate::pages::Pages;
use crate::storage::{Entry, Key, KeyRange, ReadError, ScanLimit, Storage, Value, Visitor};
use crate::stored::keys;
use crate::stored::record::{self, Header};
use crate::tournament::combine_all;

impl<S: Storage> Inner<S> {
    /// Reads the values of `keys`, all from one consistent state, with the values beside them merged in.
    pub(crate) async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
        loop {
            // Asked before the read: folding may end during it, and the read may show the records as they were before.
            let folding = self.folding.load(Acquire);
            let (state, overlay) = self.overlay.look();
            let open = self.store().await?;
            let values = match overlay {
                Overlay::None => open.store.get_many(keys).await?,
                Overlay::Hidden => vec![None; keys.len()],
                Overlay::Joined(as_of) => {
                    let values = self.read_joined(&open.store, &as_of, keys).await?;
                    if self.overlay.is_still(state) {
                        return Ok(values);
                    }
                    continue;
                }
            };
            if !self.overlay.is_still(state) {
                continue;
            }
            if values.len() != keys.len() {
                return Err(ReadError::new(format!("{} values for {} keys", values.len(), keys.len())).into());
            }
            let is_open = |(key, value): (&Key, &Option<Value>)| {
                value.as_deref().is_some_and(|value| self.models().can_fold(key, value))
            };
            if !folding || !keys.iter().zip(&values).any(is_open) {
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

    /// Shows the first entries of a range of records, as far as the limit allows, all from one consistent state, with the
    /// values beside them merged in. Returns whether there may be more.
    pub(crate) async fn visit(
        &self,
        range: &KeyRange,
        limit: ScanLimit,
        each: Visitor<'_>,
    ) -> Result<bool, Error> {
        loop {
            let folding = self.folding.load(Acquire);
            let (state, overlay) = self.overlay.look();
            let open = self.store().await?;
            match overlay {
                Overlay::Hidden => return Ok(false),
                Overlay::Joined(as_of) => {
                    let visited = self.visit_joined(&open.store, (state, as_of), range, limit, each).await?;
                    match visited {
                        Some(more) => return Ok(more),
                        None => continue,
                    }
                }
                // A page that is lent is of one state, and whoever lists has to look at the next one anyway.
                Overlay::None if !folding => return Ok(open.store.visit(range.clone(), limit, each).await?),
                Overlay::None => {}
            }
            let mut page = open.store.scan(range.clone(), limit).await?;
            let is_open = |entry: &Entry| self.models().can_fold(&entry.key, &entry.value);
            if page.entries.iter().any(is_open) {
                let before = page.clone();
                for Entry { key, value } in &mut page.entries {
                    fold(&open.store, self.models(), key, value).await?;
                }
                if open.store.scan(range.clone(), limit).await? != before {
                    continue;
                }
            }
            let stopped = page.entries.iter().any(|entry| each(&entry.key, &entry.value).is_break());
            return Ok(stopped || page.more);
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
        // A value that cannot be read or merged stays beside the record, as it does when the engine folds.
        let merged = |one: &Value, other: &Value| {
            let ((header, value), (other, other_value)) =
                (record::parse(one).ok()?, record::parse(other).ok()?);
            let (one, other) = (
                Current { schema: header.schema, value },
                Current { schema: other.schema, value: other_value },
            );
            let new = merge(one, other).ok()?;
            Some(record::of(&Header { schema: new.schema, ..header }, record::value_of(&new.record)))
        };
        // Merge the values with each other first: the record, which grows with each of them, is then merged once.
        let values = page.into_iter().map(|entry| entry.value);
        for beside in
            combine_all(values, |one, other| merged(&one, &other).ok_or_else(|| Box::new([one, other])))
        {
            if let Some(both) = merged(stored, &beside) {
                *stored = both;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::{AtomicBool, Ordering::Release};
    use std::sync::{Arc, Mutex, OnceLock};

    use async_trait::async_trait;
    use futures::executor::block_on;
    use tokio::sync::{Semaphore, broadcast, mpsc, watch};
    use uuid::Uuid;

    use std::ops::ControlFlow;

    use super::*;
    use crate::clock::{SystemClock, WallMs};
    use crate::driver::OpenStore;
    use crate::engine::made::Bag;
    use crate::hlc::Hlc;
    use crate::ids::{DeviceId, GroupId, ReplicaId};
    use crate::pages::PAGE;
    use crate::storage::ScanPage;
    use crate::storage::{WriteBatch, WriteError};
    use crate::stored::Identity;
    use crate::stored::record::Merged;

    /// A store in which the engine folds everything just after the first read.
    struct FoldsMeanwhile {
        rows: Mutex<BTreeMap<Key, Value>>,
        then: Mutex<Option<BTreeMap<Key, Value>>>,
        /// Whether folding ends with it.
        ends: bool,
        folding: Arc<AtomicBool>,
    }

    impl FoldsMeanwhile {
        fn was_read(&self) {
            if let Some(then) = self.then.lock().unwrap().take() {
                *self.rows.lock().unwrap() = then;
                self.folding.store(!self.ends, Release);
            }
        }
    }

    #[async_trait]
    impl Storage for FoldsMeanwhile {
        async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
            let values = keys.iter().map(|key| self.rows.lock().unwrap().get(key).cloned()).collect();
            self.was_read();
            Ok(values)
        }

        async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
            let rows = self.rows.lock().unwrap().clone();
            self.was_read();
            Ok(ScanPage::of(rows.iter().filter(|(key, _)| range.contains(key)), limit))
        }

        async fn write(&self, _: WriteBatch) -> Result<(), WriteError> {
            Ok(())
        }
    }

    const AUTHOR: ReplicaId = ReplicaId(Uuid::from_u128(7));

    fn row(n: u64, items: impl IntoIterator<Item = u32>, beside: bool) -> Value {
        let value = postcard::to_allocvec(&Bag { id: 1, items: items.into_iter().collect() }).unwrap();
        let merge = Some(Merged { beside, ..Merged::plain(Hlc::NEVER) });
        let stamp = Hlc::new(WallMs::new(1000 + n).unwrap(), 0, AUTHOR);
        record::of(&Header { tombstone: false, schema: 1, stamp, seq: n, merge }, &value)
    }

    fn record_key() -> RecordKey {
        RecordKey::new::<Bag>(&1)
    }

    /// The rows of a bag that holds 0, with the values 1 to `besides` beside it.
    fn unfolded(besides: u32) -> BTreeMap<Key, Value> {
        let beside = |n: u32| {
            let seq = u64::from(n) + 1;
            (keys::beside(&record_key(), AUTHOR, seq), row(seq, [n], false))
        };
        let record = (record_key().into_bytes(), row(1, [0], true));
        (1..=besides).map(beside).chain([record]).collect()
    }

    type Reads = fn(&Inner<FoldsMeanwhile>) -> Value;

    fn by_key(inner: &Inner<FoldsMeanwhile>) -> Value {
        block_on(inner.read(&[record_key().into_bytes()])).unwrap().remove(0).unwrap()
    }

    fn by_page(inner: &Inner<FoldsMeanwhile>) -> Value {
        let mut first = None;
        let mut each = |_: &[u8], value: &[u8]| {
            first.get_or_insert(value.to_vec());
            ControlFlow::Continue(())
        };
        block_on(inner.visit(&RecordKey::range_of_model::<Bag>(), PAGE, &mut each)).unwrap();
        first.unwrap()
    }

    /// The items of the bag, as the app reads them.
    fn read(besides: u32, then: Option<BTreeMap<Key, Value>>, ends: bool, reads: Reads) -> BTreeSet<u32> {
        let folding = Arc::new(AtomicBool::new(true));
        let (rows, then) = (Mutex::new(unfolded(besides)), Mutex::new(then));
        let store = FoldsMeanwhile { rows, then, ends, folding: Arc::clone(&folding) };
        let (closed, when_closed) = watch::channel(());
        let open = Arc::new(OpenStore { store, _closed: closed });
        let mut registry = Registry::new();
        registry.add::<Bag>().unwrap();
        let inner = Inner {
            store: Arc::downgrade(&open),
            requests: mpsc::unbounded_channel().0,
            control: mpsc::unbounded_channel().0,
            queue: Arc::new(Semaphore::new(1)),
            notices: broadcast::channel(1).0.downgrade(),
            closed: when_closed,
            stop_reason: Arc::new(OnceLock::new()),
            begun: watch::channel(true).1,
            clock: Arc::new(SystemClock::new()),
            identity: Identity {
                group: GroupId(Uuid::nil()),
                device: DeviceId(Uuid::nil()),
                replica: ReplicaId(Uuid::nil()),
            },
            folding,
            overlay: Arc::default(),
            models: Arc::new(registry),
            limits: Arc::default(),
            projections: None,
            adding: Default::default(),
            own_commits: Arc::default(),
            waits: Default::default(),
        };
        crate::model::decode_bytes::<Bag>(record::value_of(&reads(&inner))).unwrap().items
    }

    /// Goal: a read is whole also if its record is folded during it, and if folding ends then. Method: a store that
    /// folds everything just after it was read.
    #[test]
    fn a_read_during_which_its_record_is_folded_is_whole() {
        for reads in [by_key as Reads, by_page] {
            for ends in [false, true] {
                let folded = BTreeMap::from([(record_key().into_bytes(), row(2, [0, 1], false))]);
                assert_eq!(read(1, Some(folded), ends, reads), BTreeSet::from([0, 1]), "ends: {ends}");
            }
        }
    }

    #[test]
    fn a_read_merges_all_that_lies_beside_a_record() {
        for reads in [by_key as Reads, by_page] {
            assert_eq!(read(600, None, false, reads), (0..=600).collect());
        }
    }
}
