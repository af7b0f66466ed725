//! Reads of records while a snapshot is being installed.
//!
//! Until the switch nothing of a snapshot is to be seen; from then on all of it is, though it is folded into the live
//! records only step by step. So a read joins the staged records with the live ones meanwhile. It reads the staged ones
//! first: a fold leaves them where they are until all of it is folded, so what the read shows is the state at the moment in
//! which it read the live ones. A read during which the overlay changed is made anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{Joined, Overlay, Rules, join};
use crate::error::Error;
use crate::events::RecordKey;
use crate::ids::ReplicaId;
use crate::manager::Inner;
use crate::storage::{Entry, GET_KEYS_MAX, Key, KeyRange, ReadError, ScanLimit, Storage, Value, Visitor};
use crate::stored::keys;

/// The overlay that reads show, shared by the driver and the managers.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Changes whenever the overlay does; the lowest bit says whether there is one. Reads rarely need more than that.
    state: AtomicU64,
    overlay: Mutex<Overlay>,
}

impl Shown {
    pub(crate) fn new(overlay: Overlay) -> Self {
        let shown = Self::default();
        shown.set(overlay);
        shown
    }

    /// Shows this overlay from now on.
    pub(crate) fn set(&self, overlay: Overlay) {
        let mut shown = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        let any = u64::from(overlay != Overlay::None);
        *shown = overlay;
        let state = self.state.load(Ordering::Acquire);
        self.state.store(((state >> 1).wrapping_add(1) << 1) | any, Ordering::Release);
    }

    /// The overlay, and the state by which a read knows whether it is still the same at its end.
    pub(crate) fn look(&self) -> (u64, Overlay) {
        let state = self.state.load(Ordering::Acquire);
        if state & 1 == 0 {
            return (state, Overlay::None);
        }
        let shown = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        (self.state.load(Ordering::Acquire), shown.clone())
    }

    pub(crate) fn is_still(&self, state: u64) -> bool {
        self.state.load(Ordering::Acquire) == state
    }
}

impl<S: Storage> Inner<S> {
    /// The values of `keys`, joined with those that are staged.
    pub(crate) async fn read_joined(
        &self,
        store: &S,
        as_of: &BTreeMap<ReplicaId, u64>,
        keys: &[Key],
    ) -> Result<Vec<Option<Value>>, Error> {
        let staged: Vec<_> = keys.iter().map(|key| keys::staged(key)).collect();
        let staged = read(store, &staged).await?;
        let live = read(store, keys).await?;
        let rows = keys.iter().zip(live).zip(staged);
        rows.map(|((key, live), staged)| self.joined(as_of, key, live, staged.as_deref())).collect()
    }

    fn joined(
        &self,
        as_of: &BTreeMap<ReplicaId, u64>,
        key: &[u8],
        live: Option<Value>,
        staged: Option<&[u8]>,
    ) -> Result<Option<Value>, Error> {
        let Some(record) = RecordKey::from_bytes(key) else { return Ok(live) };
        let context = (&Rules::ALL, self.models());
        Ok(match join(context, as_of, &record, live.as_deref(), staged)? {
            Joined::Live | Joined::Beside(..) => live,
            Joined::Gone => None,
            Joined::New(_, bytes) => Some(bytes),
        })
    }

    /// The first records of a range, joined with those that are staged, and whether there are more. `None` in the place of
    /// the records if the overlay has changed meanwhile.
    pub(crate) async fn scan_joined(
        &self,
        store: &S,
        as_of: &BTreeMap<ReplicaId, u64>,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<(Vec<Entry>, Option<KeyRange>), Error> {
        let staged = store.scan(keys::staged_range(range), limit).await?;
        let live = store.scan(range.clone(), limit).await?;
        let unstaged = |key: &[u8]| keys::unstaged(key).unwrap_or_default().to_vec();
        let ends = [
            live.entries.last().filter(|_| live.more).map(|entry| entry.key.clone()),
            staged.entries.last().filter(|_| staged.more).map(|entry| unstaged(&entry.key)),
        ];
        // Both are known up to here.
        let end = ends.into_iter().flatten().min();
        let mut rows: BTreeMap<Key, (Option<Value>, Option<Value>)> = BTreeMap::new();
        for Entry { key, value } in live.entries {
            rows.entry(key).or_default().0 = Some(value);
        }
        for Entry { key, value } in staged.entries {
            rows.entry(unstaged(&key)).or_default().1 = Some(value);
        }
        let mut entries = Vec::new();
        for (key, (live, staged)) in rows {
            if end.as_ref().is_some_and(|end| key > *end) {
                break;
            }
            if let Some(value) = self.joined(as_of, &key, live, staged.as_deref())? {
                entries.push(Entry { key, value });
            }
        }
        Ok((entries, end.map(|end| range.clone().after(&end))))
    }

    /// As [`visit`](Inner::visit), of records that are joined. Returns `None` if the overlay has changed meanwhile: nothing
    /// was shown then.
    pub(crate) async fn visit_joined(
        &self,
        store: &S,
        (state, as_of): (u64, Arc<BTreeMap<ReplicaId, u64>>),
        range: &KeyRange,
        limit: ScanLimit,
        each: Visitor<'_>,
    ) -> Result<Option<bool>, Error> {
        let mut rest = Some(range.clone());
        while let Some(range) = rest {
            let (entries, next) = self.scan_joined(store, &as_of, &range, limit).await?;
            if !self.overlay.is_still(state) {
                return Ok(None);
            }
            if !entries.is_empty() || next.is_none() {
                // A page of both states may have more records than the limit says: the others come with the next one.
                let more = next.is_some() || entries.len() > limit.entries;
                let mut shown = entries.iter().take(limit.entries);
                let stopped = shown.any(|entry| each(&entry.key, &entry.value).is_break());
                return Ok(Some(stopped || more));
            }
            // All of these were deleted. A page without records would look like the last one.
            rest = next;
        }
        Ok(Some(false))
    }
}

async fn read<S: Storage>(store: &S, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
    let mut values = Vec::with_capacity(keys.len());
    for piece in keys.chunks(GET_KEYS_MAX) {
        values.extend(store.get_many(piece).await?);
    }
    if values.len() != keys.len() {
        return Err(ReadError::new(format!("{} values for {} keys", values.len(), keys.len())).into());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_knows_whether_the_overlay_is_still_the_same() {
        let shown = Shown::default();
        let joined = Overlay::Joined(Arc::default());
        let mut states = vec![shown.look().0];
        for overlay in [Overlay::Hidden, joined.clone(), joined, Overlay::None, Overlay::None] {
            shown.set(overlay.clone());
            let (state, seen) = shown.look();
            assert_eq!(seen, overlay);
            assert!(shown.is_still(state) && !states.contains(&state), "{state}");
            states.push(state);
        }
    }
}
