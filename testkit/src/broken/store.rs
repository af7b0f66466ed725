//! The broken store. A flaw shows in its reads, in its writes or in the batches that are rewritten before.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use async_trait::async_trait;
use syncline::{
    Entry, Key, KeyRange, ReadError, ScanLimit, ScanMeter, ScanPage, Storage, StoreLimits, Value, Visitor,
    WriteBatch, WriteError, WriteOp,
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
    /// All threads that have read, and how many reads are under way.
    readers: HashSet<ThreadId>,
    reading: usize,
    last_scan: Option<(KeyRange, ScanLimit, ScanPage)>,
    cancelled: u64,
    waits: u64,
}

#[async_trait]
impl Storage for Broken {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.note_read();
        let _slot = self.take_slot()?;
        match self.flaw {
            Flaw::FirstGetFindsNothing if self.reads.load(Ordering::SeqCst) == 1 => {
                return Ok(vec![None; keys.len()]);
            }
            Flaw::UnreadableOfManyIsAbsent if keys.len() > 100 => {
                return Ok(self.store.get_many(keys).await.unwrap_or_else(|_| vec![None; keys.len()]));
            }
            Flaw::ReadsInLargePieces => {
                let mut values = Vec::new();
                for keys in keys.chunks(1_000) {
                    values.extend(self.store.get_many(keys).await?);
                }
                return Ok(values);
            }
            Flaw::IgnoresCase | Flaw::IgnoresTrailingSpaces | Flaw::ComparesNumbers => {
                let spelled = self.spelled();
                let keys: Vec<_> =
                    keys.iter().map(|key| spelled.get(&self.fold(key)).unwrap_or(key).clone()).collect();
                return self.store.get_many(&keys).await;
            }
            Flaw::RejectedShowsInGets => {
                let mut values = self.store.get_many(keys).await?;
                let state = lock(&self.state);
                for (key, value) in keys.iter().zip(&mut values).filter(|(_, value)| value.is_none()) {
                    *value = state.cache.get(key).cloned().flatten();
                }
                return Ok(values);
            }
            Flaw::PlacesShareACache => {
                let mut values = self.store.get_many(keys).await?;
                let shared = lock(&SHARED);
                for (key, value) in keys.iter().zip(&mut values).filter(|(_, value)| value.is_none()) {
                    *value = shared.get(key).cloned();
                }
                return Ok(values);
            }
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
            Flaw::SortsManyKeys if keys.len() <= 100 => {}
            Flaw::SortsKeys | Flaw::SortsManyKeys => {
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
        let _slot = self.take_slot()?;
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
            Flaw::ScansPageByPage => return self.scan_pages(ScanLimit::entries(3), range, limit).await,
            Flaw::ScansLargePages => return self.scan_pages(ScanLimit::entries(1_000), range, limit).await,
            Flaw::ScansPagesOfAMib | Flaw::ScansPagesOf16Mib => {
                let bytes = if self.flaw == Flaw::ScansPagesOfAMib { 1 << 20 } else { 16 << 20 };
                return self.scan_pages(ScanLimit { bytes, ..ScanLimit::NONE }, range, limit).await;
            }
            Flaw::ScanStopsAtLaterError => return self.scan_to_error(range, limit).await,
            Flaw::CachesTheLastScan => {
                if let Some((of, at_most, page)) = &lock(&self.state).last_scan
                    && (of, at_most) == (&range, &limit)
                {
                    return Ok(page.clone());
                }
                let page = self.store.scan(range.clone(), limit).await?;
                lock(&self.state).last_scan = Some((range, limit, page.clone()));
                return Ok(page);
            }
            Flaw::IntegerOrder => {
                let order = |key: &[u8]| {
                    let mut key = key.to_vec();
                    if key.len() == 8 {
                        key.reverse();
                    }
                    key
                };
                return self.scan_sorted(range, limit, order).await;
            }
            Flaw::CountedScanSaysEnd => {
                let page = self.store.scan(range, limit).await?;
                let more = page.more && page.entries.len() < limit.entries;
                return Ok(ScanPage { more, ..page });
            }
            Flaw::ScanLimitIsCutTo32Bits => {
                let entries = usize::try_from(limit.entries as u64 & u64::from(u32::MAX)).unwrap_or(0);
                return self.store.scan(range, ScanLimit { entries, ..limit }).await;
            }
            Flaw::ScanRepeatsAtPage => {
                return Ok(repeat_at_page(self.store.scan(range, limit).await?, limit));
            }
            Flaw::ScanSkipsAtPage => {
                let mut page = self.store.scan(range, limit).await?;
                if page.entries.len() > 1_000 {
                    page.entries.remove(1_000);
                }
                return Ok(page);
            }
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
            Flaw::VisitsLargePages => self.scan_pages(ScanLimit::entries(1_000), range, limit).await?,
            Flaw::VisitStopsAtLaterError => self.scan_to_error(range, limit).await?,
            Flaw::VisitRepeatsAtPage => repeat_at_page(self.store.scan(range, limit).await?, limit),
            Flaw::CancelledVisitKeepsLock => {
                let cancelled = OnDrop::new(|| lock(&self.state).locked = true);
                let page = self.store.scan(range, limit).await;
                cancelled.disarm();
                page?
            }
            Flaw::VisitStopsAtError => self.store.scan(range, limit).await.unwrap_or_default(),
            Flaw::OpenVisitEndsAtLongRun | Flaw::VisitCutsBoundsAt255 => {
                self.store.scan(self.bend(range), limit).await?
            }
            Flaw::VisitComparesPrefixes => self.scan_prefixes(&range, limit).await?,
            _ => self.scan(range, limit).await?,
        };
        if self.flaw == Flaw::VisitOfLongEntryIsEmpty
            && page.entries.first().is_some_and(|entry| entry.key.len() + entry.value.len() > limit.bytes)
        {
            return Ok(true);
        }
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
        let found_nothing = page.entries.is_empty();
        Ok(page.more && self.flaw != Flaw::VisitSaysEnd
            || found_nothing && self.flaw == Flaw::VisitAlwaysSaysMore)
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
            Flaw::RangeDeleteStopsAtLaterError => {
                let mut ops = Vec::new();
                for op in batch {
                    match op {
                        WriteOp::DeleteRange { range } => {
                            let page = self.scan_to_error(range, ScanLimit::NONE).await;
                            let entries = page.map_err(|error| WriteError::Rejected(error.0))?.entries;
                            ops.extend(entries.into_iter().map(|entry| WriteOp::Delete { key: entry.key }));
                        }
                        op => ops.push(op),
                    }
                }
                self.store.write(ops.into()).await
            }
            Flaw::CachesTheLastScan => {
                if batch.ops().iter().any(|op| matches!(op, WriteOp::Put { .. })) {
                    lock(&self.state).last_scan = None;
                }
                self.store.write(batch).await
            }
            Flaw::GoesOnAfterUnknown => {
                let result = self.store.write(batch).await;
                if matches!(result, Err(WriteError::Unknown(_))) {
                    self.store.go_on();
                }
                result
            }
            Flaw::RejectedShowsInGets => {
                let puts = batch.clone().into_iter().filter_map(|op| match op {
                    WriteOp::Put { key, value } => Some((key, Some(value))),
                    WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => None,
                });
                let puts: BTreeMap<_, _> = puts.collect();
                let result = self.store.write(batch).await;
                let is_shown = matches!(result, Err(WriteError::Rejected(_) | WriteError::TooLarge(_)));
                lock(&self.state).cache = if is_shown { puts } else { BTreeMap::new() };
                result
            }
            Flaw::PlacesShareACache => {
                let written = batch.clone();
                self.store.write(batch).await?;
                written.apply_to(&mut lock(&SHARED));
                Ok(())
            }
            Flaw::HundredthCancelKeepsLock => {
                let cancelled = OnDrop::new(|| {
                    let mut state = lock(&self.state);
                    state.cancelled += 1;
                    state.locked |= state.cancelled == 100;
                });
                let result = self.store.write(batch).await;
                cancelled.disarm();
                result
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
            Flaw::UnknownIsUndoneLater => {
                let before = self.disk.edit(|entries| entries.clone());
                let result = self.store.write(batch).await;
                let mut notes = lock(&self.notes);
                let since = notes.openings;
                notes.undo = matches!(result, Err(WriteError::Unknown(_))).then_some((since, before));
                result
            }
            Flaw::RefusalReleasesLock | Flaw::RaceLetsBothIn => {
                let owner = self.disk.give_to(None);
                self.store.usurp();
                let result = self.store.write(batch).await;
                self.disk.give_to(owner);
                result
            }
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
        page: ScanLimit,
        range: KeyRange,
        limit: ScanLimit,
    ) -> Result<ScanPage, ReadError> {
        let (mut found, mut rest) = (ScanPage { entries: Vec::new(), more: true }, range);
        let mut meter = ScanMeter::new(limit);
        while found.more && !meter.is_full() {
            let page = self.store.scan(rest.clone(), page).await?;
            found.more = page.more;
            let Some(last) = page.entries.last() else { break };
            rest = rest.after(&last.key);
            for entry in page.entries {
                if !meter.takes(&entry.key, &entry.value) {
                    return Ok(ScanPage { more: true, ..found });
                }
                found.entries.push(entry);
            }
        }
        Ok(found)
    }

    /// A scan that takes an error for the end, once it has read a hundred entries.
    async fn scan_to_error(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let page = self.store.scan(range.clone(), limit).await;
        if page.is_ok() {
            return page;
        }
        let first = ScanLimit { entries: limit.entries.min(100), ..limit };
        let hundred = self.disk.edit(|entries| sorted_map::page(entries, &range, first));
        if hundred.entries.len() < 100 { page } else { Ok(ScanPage { more: false, ..hundred }) }
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

    /// The keys on the disk, by what a flaw compares of them.
    pub(super) fn spelled(&self) -> BTreeMap<Key, Key> {
        self.disk.edit(|entries| entries.keys().map(|key| (self.fold(key), key.clone())).collect())
    }

    /// What a flaw compares of a key.
    pub(super) fn fold(&self, key: &[u8]) -> Key {
        match self.flaw {
            Flaw::IgnoresCase => key.to_ascii_lowercase(),
            Flaw::IgnoresTrailingSpaces => key.trim_ascii_end().to_vec(),
            Flaw::ComparesNumbers => match str::from_utf8(key).ok().and_then(|text| text.parse::<u64>().ok())
            {
                Some(number) => number.to_string().into_bytes(),
                None => key.to_vec(),
            },
            _ => key.to_vec(),
        }
    }

    /// Takes a slot for a read, which may be refused.
    fn take_slot(&self) -> Result<impl Drop + use<'_>, ReadError> {
        let mut state = lock(&self.state);
        state.reading += 1;
        state.readers.insert(thread::current().id());
        let is_full = match self.flaw {
            Flaw::FewReadersAtATime => state.reading > 8,
            Flaw::ReaderSlotPerThread => state.readers.len() > 126,
            _ => false,
        };
        drop(state);
        let slot = OnDrop::new(|| lock(&self.state).reading -= 1);
        if is_full { Err(ReadError::new("there is no slot for another reader")) } else { Ok(slot) }
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

/// The cache of all stores with a flaw.
static SHARED: Mutex<SortedMap> = Mutex::new(SortedMap::new());

fn repeat_at_page(mut page: ScanPage, limit: ScanLimit) -> ScanPage {
    if let Some(last) = page.entries.get(999).cloned().filter(|_| page.entries.len() > 1_000) {
        page.entries.insert(1_000, last);
        page.more |= page.entries.len() > limit.entries;
        page.entries.truncate(limit.entries);
    }
    page
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
