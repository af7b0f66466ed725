//! The broken store. A flaw shows in its reads, in its writes or in the batches that are rewritten before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use async_trait::async_trait;
use syncline::{
    Entry, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value, Visitor, WriteBatch,
    WriteError, WriteOp,
};

use super::disk::Notes;
use super::{Flaw, lock};
use crate::on_drop::OnDrop;
use crate::poll::give_way;
use crate::sorted_map::{self, SortedMap};
use crate::{Disk, Reference};

/// A store with one flaw, and otherwise correct.
#[derive(Debug)]
pub struct Broken {
    pub(super) flaw: Flaw,
    pub(super) store: Reference,
    pub(super) disk: Disk,
    pub(super) notes: Arc<Mutex<Notes>>,
    /// Whether the notes have every batch.
    pub(super) replays: bool,
    pub(super) state: Mutex<State>,
    pub(super) reads: AtomicU64,
}

/// What a flaw has to remember while the store is open.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) cache: BTreeMap<Key, Option<Value>>,
    hidden: Option<SortedMap>,
    locked: bool,
    leftover: Vec<WriteOp>,
    late: Vec<WriteOp>,
    pub(super) writes: u64,
    /// The thread of the last read.
    reader: Option<ThreadId>,
    waits: u64,
}

#[async_trait]
impl Storage for Broken {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.note_read();
        match self.flaw {
            Flaw::StaleCache | Flaw::StaleAbsence => return self.get_cached(keys).await,
            Flaw::PublishesLate => {
                if let Some(before) = lock(&self.state).hidden.take() {
                    return Ok(keys.iter().map(|key| before.get(key).cloned()).collect());
                }
            }
            Flaw::UnreadableIsAbsent => {
                return Ok(self.store.get_many(keys).await.unwrap_or_else(|_| vec![None; keys.len()]));
            }
            Flaw::ReadsKeyByKey => {
                let mut values = Vec::new();
                for key in keys {
                    values.extend(self.store.get_many(std::slice::from_ref(key)).await?);
                }
                return Ok(values);
            }
            Flaw::ThousandthReadFindsNothing if self.reads.load(Ordering::SeqCst).is_multiple_of(1_000) => {
                return Ok(vec![None; keys.len()]);
            }
            Flaw::ReadWaitsForWrite => drop(self.store.turn().await.ok()),
            Flaw::ReadsInPieces => {
                let mut values = Vec::new();
                for keys in keys.chunks(100) {
                    values.extend(self.store.get_many(keys).await?);
                }
                return Ok(values);
            }
            Flaw::CutsReads => {
                let mut values = self.store.get_many(keys).await?;
                values.iter_mut().skip(1_000).for_each(|value| *value = None);
                return Ok(values);
            }
            Flaw::SortsKeys => {
                let mut sorted = keys.to_vec();
                sorted.sort();
                return self.store.get_many(&sorted).await;
            }
            Flaw::DedupsKeys => {
                let mut once = keys.to_vec();
                once.dedup();
                let mut values = self.store.get_many(&once).await?;
                values.resize(keys.len(), None);
                return Ok(values);
            }
            Flaw::EmptyReadsAbsent => {
                let values = self.store.get_many(keys).await?;
                return Ok(values.into_iter().map(|value| value.filter(|value| !value.is_empty())).collect());
            }
            Flaw::CancelledReadKeepsLock => {
                let cancelled = OnDrop::new(|| lock(&self.state).locked = true);
                let values = self.store.get_many(keys).await;
                cancelled.disarm();
                return values;
            }
            _ => {}
        }
        self.store.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.note_read();
        let backward = range.end.as_ref().is_some_and(|end| *end < range.start);
        match self.flaw {
            Flaw::PublishesLate => {
                if let Some(before) = lock(&self.state).hidden.take() {
                    return Ok(sorted_map::page(&before, &range, limit));
                }
            }
            Flaw::UnknownShowsPrefix => {
                if let Some(shown) = &lock(&self.state).hidden {
                    return Ok(sorted_map::page(shown, &range, limit));
                }
            }
            Flaw::ScansPageByPage => return self.scan_pages(3, range, limit).await,
            Flaw::ScansLargePages => return self.scan_pages(1_000, range, limit).await,
            Flaw::HashOrder => return self.scan_sorted(range, limit, hash).await,
            Flaw::SignedOrder => {
                let signed = |key: &[u8]| key.iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>();
                return self.scan_sorted(range, limit, signed).await;
            }
            Flaw::LengthOrder => {
                return self.scan_sorted(range, limit, |key| (key.len(), key.to_vec())).await;
            }
            Flaw::ScanTakesEnd => {
                let end = range.end.map(|end| KeyRange::all().after(&end).start);
                return self.store.scan(KeyRange { start: range.start, end }, limit).await;
            }
            Flaw::ScanSkipsStart => {
                let start = range.start.clone();
                return self.store.scan(range.after(&start), limit).await;
            }
            Flaw::BackwardScanIsOpen if backward => {
                return self.store.scan(KeyRange { start: range.start, end: None }, limit).await;
            }
            Flaw::OpenScanStopsEarly => {
                let end = range.end.or(Some(vec![0xFF]));
                return self.store.scan(KeyRange { start: range.start, end }, limit).await;
            }
            Flaw::OpenScanEndsAtLongRun
            | Flaw::ScanCutsBoundsAt64
            | Flaw::ScanCutsBoundsAt255
            | Flaw::ScanCutsBoundsAt1000 => {
                return self.store.scan(self.bend(range), limit).await;
            }
            Flaw::ScanWaitsForWrite => drop(self.store.turn().await.ok()),
            Flaw::ScanComparesPrefixes => return self.scan_prefixes(&range, limit).await,
            Flaw::UnreadableScanIsEmpty => {
                return Ok(self.store.scan(range, limit).await.unwrap_or_default());
            }
            Flaw::ScanIgnoresLimit => {
                return self.store.scan(range, ScanLimit { entries: usize::MAX, ..limit }).await;
            }
            Flaw::ScanLimitIsOneMore => {
                let entries = limit.entries.saturating_add(1);
                return self.store.scan(range, ScanLimit { entries, ..limit }).await;
            }
            Flaw::ScanLimitZeroIsNone if limit.entries == 0 => {
                return self.store.scan(range, ScanLimit::NONE).await;
            }
            Flaw::ScanIgnoresBytes => {
                return self.store.scan(range, ScanLimit { bytes: usize::MAX, ..limit }).await;
            }
            Flaw::ScanOfLongEntryIsEmpty => {
                let page = self.store.scan(range, limit).await?;
                let bytes = page.entries.first().map_or(0, |entry| entry.key.len() + entry.value.len());
                return Ok(if bytes > limit.bytes {
                    ScanPage { entries: Vec::new(), more: true }
                } else {
                    page
                });
            }
            Flaw::ShortScanSaysEnd => {
                return Ok(ScanPage { more: false, ..self.store.scan(range, limit).await? });
            }
            Flaw::ScanStopsAtError => {
                let found = self.store.scan(range.clone(), limit).await;
                let half = |entries: &mut SortedMap| {
                    let half = ScanLimit::entries(limit.entries.min(entries.len() / 2));
                    ScanPage { more: false, ..sorted_map::page(entries, &range, half) }
                };
                return Ok(found.unwrap_or_else(|_| self.disk.edit(half)));
            }
            Flaw::CancelledReadKeepsLock => {
                let cancelled = OnDrop::new(|| lock(&self.state).locked = true);
                let page = self.store.scan(range, limit).await;
                cancelled.disarm();
                return page;
            }
            _ => {}
        }
        self.store.scan(range, limit).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        if self.flaw == Flaw::VisitorPanicKeepsLock && lock(&self.state).locked {
            return Err(ReadError::new("the store is locked"));
        }
        let limit = if self.flaw == Flaw::VisitIgnoresLimit { ScanLimit::NONE } else { limit };
        let page = match self.flaw {
            Flaw::VisitsLargePages => self.scan_pages(1_000, range, limit).await?,
            Flaw::VisitStopsAtError => self.store.scan(range, limit).await.unwrap_or_default(),
            Flaw::OpenVisitEndsAtLongRun | Flaw::VisitCutsBoundsAt255 => {
                self.store.scan(self.bend(range), limit).await?
            }
            Flaw::VisitComparesPrefixes => self.scan_prefixes(&range, limit).await?,
            _ => self.scan(range, limit).await?,
        };
        let panicked = OnDrop::new(|| lock(&self.state).locked = self.flaw == Flaw::VisitorPanicKeepsLock);
        for Entry { key, value } in &page.entries {
            let value =
                if self.flaw == Flaw::VisitCutsValues { value.get(..1).unwrap_or(value) } else { value };
            if each(key, value).is_break() && self.flaw != Flaw::VisitGoesOn {
                panicked.disarm();
                return Ok(self.flaw != Flaw::StoppedVisitSaysEnd);
            }
        }
        panicked.disarm();
        Ok(page.more && self.flaw != Flaw::VisitSaysEnd)
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let batch = self.rewrite(batch);
        if lock(&self.state).locked {
            // Return an error instead of waiting for ever, so that the list fails and does not hang.
            return Err(WriteError::rejected("the lock is held for good"));
        }
        if self.refuses(&batch) {
            return Err(WriteError::too_large("the store takes less"));
        }
        if let Some(parts) = self.split(&batch) {
            let mut parts = parts.into_iter().peekable();
            while let Some(part) = parts.next() {
                self.store.write(part.into()).await?;
                if parts.peek().is_some() {
                    self.wait_for_a_reader();
                }
            }
            return Ok(());
        }
        let half = batch.ops()[..batch.ops().len().div_ceil(2)].to_vec();
        let apply_half = || self.disk.edit(|entries| sorted_map::apply(entries, &half));
        match self.flaw {
            Flaw::AppliesOpByOp => {
                for op in batch {
                    self.store.write(vec![op].into()).await?;
                }
                Ok(())
            }
            Flaw::AppliesInTwoSteps => {
                self.store.write(WriteBatch::new()).await?;
                apply_half();
                self.wait_for_a_reader();
                self.disk.edit(|entries| sorted_map::apply(entries, &batch.ops()[half.len()..]));
                Ok(())
            }
            Flaw::RangeDeleteSwallowsError => {
                let mut ops = Vec::new();
                for op in batch {
                    if let WriteOp::DeleteRange { range } = &op
                        && self.store.scan(range.clone(), ScanLimit::NONE).await.is_err()
                    {
                        continue;
                    }
                    ops.push(op);
                }
                self.store.write(ops.into()).await
            }
            Flaw::LargeWriteGivesWay if batch.ops().len() > 1_000 => {
                self.store.write(half.clone().into()).await?;
                give_way().await;
                self.store.write(batch.ops()[half.len()..].to_vec().into()).await
            }
            Flaw::ErrorKeepsPrefix => self.store.write(batch).await.map_err(|error| match error {
                WriteError::Rejected(error) => {
                    apply_half();
                    WriteError::Unknown(error)
                }
                other => other,
            }),
            Flaw::UnknownShowsPrefix => {
                let mut shown = self.disk.edit(|entries| entries.clone());
                sorted_map::apply(&mut shown, &half);
                let result = self.store.write(batch).await;
                if matches!(result, Err(WriteError::Unknown(_))) {
                    lock(&self.state).hidden = Some(shown);
                }
                result
            }
            Flaw::PanicKeepsPrefix => {
                let _panicked = OnDrop::new(|| {
                    if thread::panicking() {
                        apply_half();
                    }
                });
                self.store.write(batch).await
            }
            Flaw::PanicLocksOut => {
                let _panicked = OnDrop::new(|| {
                    if thread::panicking() {
                        self.store.never_release();
                    }
                });
                self.store.write(batch).await
            }
            Flaw::FailedSyncIsForgotten => match self.store.write(batch).await {
                Err(WriteError::Unknown(_)) => Ok(()),
                other => other,
            },
            Flaw::RejectedKeepsPrefix => {
                let result = self.store.write(batch).await;
                if matches!(result, Err(WriteError::Rejected(_))) {
                    apply_half();
                }
                result
            }
            Flaw::RejectedStops => {
                let result = self.store.write(batch).await;
                lock(&self.state).locked = matches!(result, Err(WriteError::Rejected(_)));
                result
            }
            Flaw::RejectedIsSweptUp => {
                let mut ops = std::mem::take(&mut lock(&self.state).leftover);
                ops.extend(batch.clone());
                let result = self.store.write(ops.into()).await;
                if matches!(result, Err(WriteError::Rejected(_))) {
                    lock(&self.state).leftover = half;
                }
                result
            }
            Flaw::RejectedIsReplayed | Flaw::TooLargeIsReplayed => {
                let result = self.store.write(batch).await;
                let is_replayed = match &result {
                    Err(WriteError::Rejected(_)) => self.flaw == Flaw::RejectedIsReplayed,
                    Err(WriteError::TooLarge(_)) => self.flaw == Flaw::TooLargeIsReplayed,
                    _ => false,
                };
                let mut notes = lock(&self.notes);
                notes.log.clear();
                if is_replayed {
                    notes.log.push(half.into());
                }
                result
            }
            Flaw::ThousandthWriteSaysRejected if self.is_thousandth_write() => {
                self.store.write(batch).await?;
                Err(WriteError::rejected("the store has no room"))
            }
            Flaw::ThousandthWriteSaysOk if self.is_thousandth_write() => Ok(()),
            Flaw::UnknownSaysRejected => self.store.write(batch).await.map_err(|error| match error {
                WriteError::Unknown(error) => WriteError::Rejected(error),
                other => other,
            }),
            Flaw::TwoOwnersWrite => {
                self.store.usurp();
                self.store.write(batch).await
            }
            Flaw::FencedIsApplied => {
                let result = self.store.write(batch.clone()).await;
                if matches!(result, Err(WriteError::Fenced)) {
                    self.disk.edit(|entries| sorted_map::apply(entries, batch.ops()));
                }
                result
            }
            Flaw::FencedSaysOk => match self.store.write(batch).await {
                Err(WriteError::Fenced) => Ok(()),
                other => other,
            },
            Flaw::LargeCancelKeepsPrefix if batch.ops().len() > 1_000 => {
                let cancelled = OnDrop::new(apply_half);
                let result = self.store.write(batch).await;
                cancelled.disarm();
                result
            }
            Flaw::CancelKeepsPrefix => {
                let cancelled = OnDrop::new(apply_half);
                let result = self.store.write(batch).await;
                cancelled.disarm();
                result
            }
            Flaw::CancelKeepsLock => {
                let cancelled = OnDrop::new(|| lock(&self.state).locked = true);
                let result = self.store.write(batch).await;
                cancelled.disarm();
                result
            }
            Flaw::CancelledLandsLate => {
                let late = std::mem::take(&mut lock(&self.state).late);
                let cancelled = OnDrop::new(|| lock(&self.state).late.extend(batch.clone()));
                let result = self.store.write(batch.clone()).await;
                cancelled.disarm();
                self.disk.edit(|entries| sorted_map::apply(entries, &late));
                result
            }
            Flaw::CancelLocksOut => {
                let cancelled = OnDrop::new(|| self.store.keep_when_dropped());
                let result = self.store.write(batch).await;
                cancelled.disarm();
                result
            }
            Flaw::PublishesLate => {
                let before = self.disk.edit(|entries| entries.clone());
                self.store.write(batch).await?;
                lock(&self.state).hidden = Some(before);
                Ok(())
            }
            Flaw::OversizeIsUnknown => self.store.write(batch).await.map_err(|error| match error {
                WriteError::TooLarge(error) => WriteError::Unknown(error),
                other => other,
            }),
            Flaw::OversizeMaySucceedLater => self.store.write(batch).await.map_err(|error| match error {
                WriteError::TooLarge(error) => WriteError::Rejected(error),
                other => other,
            }),
            _ => {
                let written = self.replays.then(|| batch.clone());
                self.store.write(batch).await?;
                lock(&self.notes).log.extend(written);
                Ok(())
            }
        }
    }
}

impl Broken {
    /// Whether a flaw refuses a batch that the store must take.
    fn refuses(&self, batch: &WriteBatch) -> bool {
        let puts = |is_refused: fn(&[u8], &[u8]) -> bool| {
            batch.ops().iter().any(|op| match op {
                WriteOp::Put { key, value } => is_refused(key, value),
                WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => false,
            })
        };
        match self.flaw {
            Flaw::RefusesManyOps => batch.ops().len() > 60_000,
            Flaw::RefusesManyBytes => batch.bytes() > 60 << 20,
            Flaw::RefusesTheLongestKey => puts(|key, _| key.len() == StoreLimits::CONTRACT.key_bytes),
            Flaw::RefusesTheLargestValue => puts(|_, value| value.len() == StoreLimits::CONTRACT.value_bytes),
            _ => false,
        }
    }

    fn is_thousandth_write(&self) -> bool {
        let mut state = lock(&self.state);
        state.writes += 1;
        state.writes.is_multiple_of(1_000)
    }

    /// The range that a flaw makes of this one.
    pub(super) fn bend(&self, range: KeyRange) -> KeyRange {
        let cut_at = match self.flaw {
            Flaw::OpenScanEndsAtLongRun
            | Flaw::OpenVisitEndsAtLongRun
            | Flaw::OpenRangeDeleteEndsAtLongRun => {
                return KeyRange { start: range.start, end: range.end.or_else(|| Some(vec![0xFF; 128])) };
            }
            Flaw::ScanCutsBoundsAt64 | Flaw::RangeDeleteCutsBoundsAt64 => 64,
            Flaw::ScanCutsBoundsAt255 | Flaw::VisitCutsBoundsAt255 | Flaw::RangeDeleteCutsBoundsAt255 => 255,
            Flaw::ScanCutsBoundsAt1000 | Flaw::RangeDeleteCutsBoundsAt1000 => 1_000,
            _ => return range,
        };
        let cut = |mut key: Key| {
            key.truncate(cut_at);
            key
        };
        KeyRange { start: cut(range.start), end: range.end.map(cut) }
    }

    async fn scan_prefixes(&self, range: &KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let all = self.store.scan(KeyRange::all(), ScanLimit::NONE).await?;
        let inside = all.entries.iter().filter(|entry| is_inside_by_prefix(range, &entry.key));
        Ok(ScanPage::of(inside.map(|entry| (&entry.key, &entry.value)), limit))
    }

    /// The batches that a flaw makes of a large one.
    fn split(&self, batch: &WriteBatch) -> Option<Vec<Vec<WriteOp>>> {
        let (ops, bytes) = match self.flaw {
            Flaw::SplitsAt10 => (10, usize::MAX),
            Flaw::SplitsAt13 => (13, usize::MAX),
            Flaw::SplitsAt14 => (14, usize::MAX),
            Flaw::SplitsAt100 => (100, usize::MAX),
            Flaw::SplitsAt1000 => (1_000, usize::MAX),
            Flaw::SplitsAt10000 => (10_000, usize::MAX),
            Flaw::SplitsAtMib => (usize::MAX, 1 << 20),
            Flaw::SplitsAt16Mib => (usize::MAX, 16 << 20),
            _ => return None,
        };
        let (mut parts, mut part, mut part_bytes) = (Vec::new(), Vec::new(), 0);
        for op in batch.ops() {
            if part.len() == ops || part_bytes + op.bytes() > bytes {
                parts.push(std::mem::take(&mut part));
                part_bytes = 0;
            }
            part_bytes += op.bytes();
            part.push(op.clone());
        }
        parts.push(part);
        Some(parts)
    }

    async fn get_cached(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let values = self.store.get_many(keys).await?;
        let mut state = lock(&self.state);
        let remembers = |value: &Option<Value>| value.is_none() == (self.flaw == Flaw::StaleAbsence);
        Ok(keys
            .iter()
            .zip(values)
            .map(|(key, value)| match state.cache.get(key) {
                Some(cached) => cached.clone(),
                None => {
                    if remembers(&value) {
                        state.cache.insert(key.clone(), value.clone());
                    }
                    value
                }
            })
            .collect())
    }

    async fn scan_pages(
        &self,
        page: usize,
        range: KeyRange,
        limit: ScanLimit,
    ) -> Result<ScanPage, ReadError> {
        let (mut found, mut rest) = (ScanPage { entries: Vec::new(), more: true }, range);
        while found.more && found.entries.len() < limit.entries {
            let most = ScanLimit { entries: page.min(limit.entries - found.entries.len()), ..limit };
            let page = self.store.scan(rest.clone(), most).await?;
            found.more = page.more;
            let Some(last) = page.entries.last() else { break };
            rest = rest.after(&last.key);
            found.entries.extend(page.entries);
        }
        Ok(found)
    }

    async fn scan_sorted<K: Ord>(
        &self,
        range: KeyRange,
        limit: ScanLimit,
        order: impl Fn(&[u8]) -> K,
    ) -> Result<ScanPage, ReadError> {
        let mut page = self.store.scan(range, ScanLimit::NONE).await?;
        page.entries.sort_by_cached_key(|entry| order(&entry.key));
        page.more = page.entries.len() > limit.entries;
        page.entries.truncate(limit.entries);
        Ok(page)
    }

    fn note_read(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
        lock(&self.state).reader = Some(thread::current().id());
    }

    /// Waits until another thread has read from first to last, if another was the last to read: without one, nothing
    /// would end the wait. It is bounded, since that thread may have ended, and so is the number of waits.
    fn wait_for_a_reader(&self) {
        const WAITS_MAX: u64 = 100;
        const TURNS_MAX: u32 = 10_000;
        {
            let mut state = lock(&self.state);
            let beside = state.reader.is_some_and(|reader| reader != thread::current().id());
            if !beside || state.waits == WAITS_MAX {
                return;
            }
            state.waits += 1;
        }
        let reads = self.reads.load(Ordering::SeqCst);
        for _ in 0..TURNS_MAX {
            // The first read may have begun before the wait; the second shows that it has ended.
            if self.reads.load(Ordering::SeqCst) > reads + 1 {
                break;
            }
            thread::yield_now();
        }
    }
}

/// Whether a key lies in a range, as far as the first bytes of both say.
pub(super) fn is_inside_by_prefix(range: &KeyRange, key: &[u8]) -> bool {
    let cut = |key: &[u8]| key.iter().take(64).copied().collect::<Key>();
    KeyRange { start: cut(&range.start), end: range.end.as_deref().map(cut) }.contains(&cut(key))
}

/// FNV-1a. Any hash would do: keys only have to lose their order.
fn hash(key: &[u8]) -> u64 {
    key.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
