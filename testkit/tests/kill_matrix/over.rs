//! Flaws as a layer over any store: what the layer changes in a call or in its answer.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use syncline::{
    BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value, WriteBatch,
    WriteError, WriteOp,
};
use syncline_testkit::{Fixture, Flaw};

/// What a flaw changes.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// The keys of a read, which is then made of pieces of so many keys.
    KeysInPieces(usize),
    /// The keys that are read.
    Keys(fn(&mut Vec<Key>)),
    /// The values that a read has found, and how often there was a read.
    Values(fn(&mut Vec<Option<Value>>, u64)),
    /// The range of a scan.
    Range(fn(KeyRange) -> KeyRange),
    /// The limit of a scan.
    Limit(fn(ScanLimit) -> ScanLimit),
    /// The page that a scan has found.
    Page(fn(&mut ScanPage, ScanLimit)),
    /// A scan is made of pages of so many entries.
    Pages(usize),
    /// The operations of a batch, and how often there was a write.
    Ops(fn(&mut Vec<WriteOp>, u64)),
    /// A batch is split, by the operations and the bytes of a part.
    Split(usize, usize),
    /// The batches that are refused.
    Refuses(fn(&WriteBatch) -> bool),
    /// What a write returns, and how often there was one.
    Outcome(fn(Result<(), WriteError>, u64) -> Result<(), WriteError>),
}

/// The flaws that can be told as a layer, each with its change.
pub(crate) const LAYERS: &[(Flaw, Change)] = &[
    (Flaw::ReadsKeyByKey, Change::KeysInPieces(1)),
    (Flaw::ReadsInPieces, Change::KeysInPieces(100)),
    (Flaw::SortsKeys, Change::Keys(|keys| keys.sort())),
    (Flaw::DedupsKeys, Change::Keys(Vec::dedup)),
    (
        Flaw::CutsReads,
        Change::Values(|values, _| values.iter_mut().skip(1_000).for_each(|value| *value = None)),
    ),
    (
        Flaw::EmptyReadsAbsent,
        Change::Values(|values, _| {
            values.iter_mut().for_each(|value| drop(value.take_if(|value| value.is_empty())));
        }),
    ),
    (
        Flaw::ThousandthReadFindsNothing,
        Change::Values(|values, reads| {
            if reads.is_multiple_of(1_000) {
                values.fill(None);
            }
        }),
    ),
    (
        Flaw::ScanTakesEnd,
        Change::Range(|range| KeyRange {
            end: range.end.map(|end| KeyRange::all().after(&end).start),
            ..range
        }),
    ),
    (
        Flaw::ScanSkipsStart,
        Change::Range(|range| {
            let start = range.start.clone();
            range.after(&start)
        }),
    ),
    (
        Flaw::BackwardScanIsOpen,
        Change::Range(|range| {
            let end = range.end.filter(|end| *end >= range.start);
            KeyRange { end, ..range }
        }),
    ),
    (
        Flaw::OpenScanStopsEarly,
        Change::Range(|range| KeyRange { end: range.end.or(Some(vec![0xFF])), ..range }),
    ),
    (
        Flaw::OpenScanEndsAtLongRun,
        Change::Range(|range| KeyRange { end: range.end.or(Some(vec![0xFF; 128])), ..range }),
    ),
    (Flaw::ScanCutsBoundsAt64, Change::Range(|range| cut(range, 64))),
    (Flaw::ScanCutsBoundsAt255, Change::Range(|range| cut(range, 255))),
    (Flaw::ScanCutsBoundsAt1000, Change::Range(|range| cut(range, 1_000))),
    (Flaw::ScanIgnoresLimit, Change::Limit(|limit| ScanLimit { entries: usize::MAX, ..limit })),
    (Flaw::ScanIgnoresBytes, Change::Limit(|limit| ScanLimit { bytes: usize::MAX, ..limit })),
    (
        Flaw::ScanLimitIsOneMore,
        Change::Limit(|limit| ScanLimit { entries: limit.entries.saturating_add(1), ..limit }),
    ),
    (
        Flaw::ScanLimitZeroIsNone,
        Change::Limit(|limit| if limit.entries == 0 { ScanLimit::NONE } else { limit }),
    ),
    (Flaw::ShortScanSaysEnd, Change::Page(|page, _| page.more = false)),
    (
        Flaw::ScanOfLongEntryIsEmpty,
        Change::Page(|page, limit| {
            let bytes = page.entries.first().map_or(0, |entry| entry.key.len() + entry.value.len());
            if bytes > limit.bytes {
                page.entries.clear();
            }
        }),
    ),
    (
        Flaw::SignedOrder,
        Change::Page(|page, _| {
            page.entries
                .sort_by_key(|entry| entry.key.iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>());
        }),
    ),
    (Flaw::LengthOrder, Change::Page(|page, _| page.entries.sort_by_key(|entry| entry.key.len()))),
    (Flaw::ScansPageByPage, Change::Pages(3)),
    (Flaw::ScansLargePages, Change::Pages(1_000)),
    (Flaw::AppliesOpByOp, Change::Split(1, usize::MAX)),
    (Flaw::SplitsAt10, Change::Split(10, usize::MAX)),
    (Flaw::SplitsAt13, Change::Split(13, usize::MAX)),
    (Flaw::SplitsAt14, Change::Split(14, usize::MAX)),
    (Flaw::SplitsAt100, Change::Split(100, usize::MAX)),
    (Flaw::SplitsAt1000, Change::Split(1_000, usize::MAX)),
    (Flaw::SplitsAt10000, Change::Split(10_000, usize::MAX)),
    (Flaw::SplitsAtMib, Change::Split(usize::MAX, 1 << 20)),
    (Flaw::SplitsAt16Mib, Change::Split(usize::MAX, 16 << 20)),
    (
        Flaw::FirstPutWins,
        Change::Ops(|ops, _| {
            let mut seen = std::collections::BTreeSet::new();
            ops.retain(|op| match op {
                WriteOp::Put { key, .. } => seen.insert(key.clone()),
                _ => true,
            });
        }),
    ),
    (
        Flaw::RangeDeletesFirst,
        Change::Ops(|ops, _| {
            ops.sort_by_key(|op| !matches!(op, WriteOp::DeleteRange { .. }));
        }),
    ),
    (Flaw::DeletesLast, Change::Ops(|ops, _| ops.sort_by_key(|op| matches!(op, WriteOp::Delete { .. })))),
    (
        Flaw::RangeDeleteTakesEnd,
        Change::Ops(|ops, _| {
            each_range(ops, |range| KeyRange {
                end: range.end.map(|end| KeyRange::all().after(&end).start),
                ..range
            });
        }),
    ),
    (
        Flaw::RangeDeleteSkipsStart,
        Change::Ops(|ops, _| {
            each_range(ops, |range| {
                let start = range.start.clone();
                range.after(&start)
            });
        }),
    ),
    (
        Flaw::BackwardRangeDeleteTurns,
        Change::Ops(|ops, _| {
            each_range(ops, |range| match range.end {
                Some(end) if end < range.start => KeyRange::new(end, range.start),
                end => KeyRange { start: range.start, end },
            });
        }),
    ),
    (
        Flaw::OpenRangeDeleteIsEmpty,
        Change::Ops(|ops, _| {
            ops.retain(|op| !matches!(op, WriteOp::DeleteRange { range: KeyRange { end: None, .. } }));
        }),
    ),
    (
        Flaw::OpenRangeDeleteEndsAtLongRun,
        Change::Ops(|ops, _| {
            each_range(ops, |range| KeyRange { end: range.end.or(Some(vec![0xFF; 128])), ..range });
        }),
    ),
    (Flaw::RangeDeleteCutsBoundsAt64, Change::Ops(|ops, _| each_range(ops, |range| cut(range, 64)))),
    (Flaw::RangeDeleteCutsBoundsAt255, Change::Ops(|ops, _| each_range(ops, |range| cut(range, 255)))),
    (Flaw::RangeDeleteCutsBoundsAt1000, Change::Ops(|ops, _| each_range(ops, |range| cut(range, 1_000)))),
    (
        Flaw::EmptyPutDeletes,
        Change::Ops(|ops, _| {
            for op in ops {
                if let WriteOp::Put { key, value } = op
                    && value.is_empty()
                {
                    *op = WriteOp::Delete { key: std::mem::take(key) };
                }
            }
        }),
    ),
    (
        Flaw::DeleteLeavesEmpty,
        Change::Ops(|ops, _| {
            for op in ops {
                if let WriteOp::Delete { key } = op {
                    *op = WriteOp::Put { key: std::mem::take(key), value: Value::new() };
                }
            }
        }),
    ),
    (Flaw::CutsValues, Change::Ops(|ops, _| each_put(ops, |_, value| value.truncate(64 << 10)))),
    (Flaw::CutsKeys, Change::Ops(|ops, _| each_put(ops, |key, _| key.truncate(255)))),
    (Flaw::CutsBatches, Change::Ops(|ops, _| ops.truncate(1_000))),
    (Flaw::CutsHugeBatches, Change::Ops(|ops, _| ops.truncate(60_000))),
    (Flaw::RefusesManyOps, Change::Refuses(|batch| batch.ops().len() > 60_000)),
    (Flaw::RefusesManyBytes, Change::Refuses(|batch| batch.bytes() > 60 << 20)),
    (
        Flaw::RefusesTheLongestKey,
        Change::Refuses(|batch| puts(batch).any(|(key, _)| key.len() == StoreLimits::CONTRACT.key_bytes)),
    ),
    (
        Flaw::RefusesTheLargestValue,
        Change::Refuses(|batch| {
            puts(batch).any(|(_, value)| value.len() == StoreLimits::CONTRACT.value_bytes)
        }),
    ),
    (
        Flaw::ThousandthWriteSaysRejected,
        Change::Outcome(|outcome, writes| match outcome {
            Ok(()) if writes.is_multiple_of(1_000) => Err(WriteError::rejected("the store has no room")),
            outcome => outcome,
        }),
    ),
    (
        Flaw::ThousandthWriteSaysOk,
        Change::Ops(|ops, writes| {
            if writes.is_multiple_of(1_000) {
                ops.clear();
            }
        }),
    ),
];

fn cut(mut range: KeyRange, bytes: usize) -> KeyRange {
    range.start.truncate(bytes);
    if let Some(end) = &mut range.end {
        end.truncate(bytes);
    }
    range
}

fn each_range(ops: &mut [WriteOp], change: fn(KeyRange) -> KeyRange) {
    for op in ops {
        if let WriteOp::DeleteRange { range } = op {
            *range = change(range.clone());
        }
    }
}

fn each_put(ops: &mut [WriteOp], change: fn(&mut Key, &mut Value)) {
    for op in ops {
        if let WriteOp::Put { key, value } = op {
            change(key, value);
        }
    }
}

fn puts(batch: &WriteBatch) -> impl Iterator<Item = (&Key, &Value)> {
    batch.ops().iter().filter_map(|op| match op {
        WriteOp::Put { key, value } => Some((key, value)),
        WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => None,
    })
}

/// A place for a store with a layer over it.
pub(crate) struct Over<F> {
    pub(crate) place: F,
    pub(crate) change: Change,
}

pub(crate) struct Layer<S> {
    store: S,
    change: Change,
    reads: AtomicU64,
    writes: AtomicU64,
}

#[async_trait]
impl<F: Fixture> Fixture for Over<F> {
    type Store = Layer<F::Store>;

    async fn open(&self) -> Result<Layer<F::Store>, BoxError> {
        let store = self.place.open().await?;
        Ok(Layer { store, change: self.change, reads: AtomicU64::new(0), writes: AtomicU64::new(0) })
    }
}

#[async_trait]
impl<S: Storage> Storage for Layer<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let reads = self.reads.fetch_add(1, SeqCst) + 1;
        match self.change {
            Change::KeysInPieces(piece) => {
                let mut values = Vec::new();
                for keys in keys.chunks(piece) {
                    values.extend(self.store.get_many(keys).await?);
                }
                Ok(values)
            }
            Change::Keys(change) => {
                let mut others = keys.to_vec();
                change(&mut others);
                let mut values = self.store.get_many(&others).await?;
                values.resize(keys.len(), None);
                Ok(values)
            }
            Change::Values(change) => {
                let mut values = self.store.get_many(keys).await?;
                change(&mut values, reads);
                Ok(values)
            }
            _ => self.store.get_many(keys).await,
        }
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        match self.change {
            Change::Range(change) => self.store.scan(change(range), limit).await,
            Change::Limit(change) => self.store.scan(range, change(limit)).await,
            Change::Page(change) => {
                let mut page = self.store.scan(range, limit).await?;
                change(&mut page, limit);
                Ok(page)
            }
            Change::Pages(entries) => {
                let (mut found, mut rest) = (ScanPage { entries: Vec::new(), more: true }, range);
                while found.more && found.entries.len() < limit.entries {
                    let most =
                        ScanLimit { entries: entries.min(limit.entries - found.entries.len()), ..limit };
                    let page = self.store.scan(rest.clone(), most).await?;
                    found.more = page.more;
                    let Some(last) = page.entries.last() else { break };
                    rest = rest.after(&last.key);
                    found.entries.extend(page.entries);
                }
                Ok(found)
            }
            _ => self.store.scan(range, limit).await,
        }
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let writes = self.writes.fetch_add(1, SeqCst) + 1;
        match self.change {
            Change::Ops(change) => {
                let mut ops: Vec<_> = batch.into_iter().collect();
                change(&mut ops, writes);
                self.store.write(ops.into()).await
            }
            Change::Split(ops_max, bytes_max) => {
                let (mut part, mut bytes) = (Vec::new(), 0);
                for op in batch {
                    if part.len() == ops_max || (!part.is_empty() && bytes + op.bytes() > bytes_max) {
                        self.store.write(std::mem::take(&mut part).into()).await?;
                        bytes = 0;
                    }
                    bytes += op.bytes();
                    part.push(op);
                }
                self.store.write(part.into()).await
            }
            Change::Refuses(refuses) if refuses(&batch) => Err(WriteError::too_large("the store takes less")),
            Change::Outcome(change) => change(self.store.write(batch).await, writes),
            _ => self.store.write(batch).await,
        }
    }

    fn limits(&self) -> StoreLimits {
        self.store.limits()
    }
}
