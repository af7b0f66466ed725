//! Hand-written sled: one tree with a first byte for each kind of row, since only a batch of one tree is atomic.

use std::fmt;
use std::fs::File;
use std::ops::Bound;
use std::path::Path;

use sled::{Batch, Config, Db};
use syncline::Uuid;
use syncline_backends::SledStorage;

use super::{Bars, Decode, HandWritten, Row};
use crate::Result;
use crate::item::{self, Item};

const RECORD: u8 = b'r';
const LOG: u8 = b'l';
const HEAD: &[u8] = b"h";

/// As large as on the other side: faster in batches than the default of 512 KiB.
const SEGMENT_BYTES: usize = 8 << 20;

/// A hand-written store in one sled directory.
#[derive(Debug)]
pub struct Sled {
    db: Db,
    /// What sled writes to, to flush it: its own flush does not.
    file: File,
    seq: u64,
    clock: u64,
}

/// How sled commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushAndSync;

impl fmt::Display for FlushAndSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flush + fdatasync")
    }
}

impl HandWritten for Sled {
    const ENGINE: &'static str = "sled";

    type Commit = FlushAndSync;

    const COMMITS: &'static [FlushAndSync] = &[FlushAndSync];

    const BARS: Bars = Bars { one: 0.8, batch: 0.9, reads: None, more: None };

    type Storage = SledStorage;

    fn storage(path: &Path, _: FlushAndSync, cache_bytes: usize) -> Result<SledStorage> {
        Ok(SledStorage::builder().cache_bytes(cache_bytes).open(path)?)
    }

    fn open(path: &Path, _: FlushAndSync, cache_bytes: usize) -> Result<Self> {
        let config = Config::new()
            .path(path)
            .cache_capacity(cache_bytes as u64)
            .flush_every_ms(None)
            .segment_size(SEGMENT_BYTES);
        let db = config.open()?;
        let file = File::open(path.join("db"))?;
        let head = db.get(HEAD)?;
        let (seq, clock) = head.and_then(|head| two(&head)).unwrap_or_default();
        Ok(Self { db, file, seq, clock })
    }

    fn compact(_: &Path) -> Result<bool> {
        Ok(false)
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        let (mut seq, mut clock) = (self.seq, self.clock);
        let mut batch = Batch::default();
        for Row { id, value } in rows {
            seq += 1;
            clock += 1;
            batch.insert(key(RECORD, id.as_bytes()), value.as_slice());
            batch.insert(key(LOG, &seq.to_be_bytes()), [&clock.to_be_bytes()[..], value].concat());
        }
        batch.insert(HEAD, [seq.to_be_bytes(), clock.to_be_bytes()].concat());
        self.apply(batch)?;
        (self.seq, self.clock) = (seq, clock);
        Ok(())
    }

    /// sled frees the pages that batches replace only when others read: without this, memory grows with every row
    /// that is ever written, which no app could bear. As often as on the other side.
    fn tidy(&mut self, rows: usize) {
        for _ in 0..=rows / 256 {
            crossbeam_epoch::pin().flush();
        }
    }

    fn commit_rows_alone(&mut self, rows: &[Row]) -> Result<()> {
        let mut batch = Batch::default();
        for Row { id, value } in rows {
            batch.insert(key(RECORD, id.as_bytes()), value.as_slice());
        }
        self.apply(batch)
    }

    fn get(&self, id: Uuid, decode: Decode) -> Result<Option<Item>> {
        self.db.get(key(RECORD, id.as_bytes()))?.map(|value| decode(&value)).transpose()
    }

    fn get_many(&self, ids: &[Uuid], decode: Decode) -> Result<Vec<Option<Item>>> {
        ids.iter().map(|id| self.get(*id, decode)).collect()
    }

    fn page(&self, after: Uuid, records: usize) -> Result<Vec<Item>> {
        let behind = (Bound::Excluded(key(RECORD, after.as_bytes())), Bound::Excluded(vec![RECORD + 1]));
        let mut page = Vec::with_capacity(records);
        for row in self.db.range(behind).take(records) {
            page.push(item::decode_in_place(&row?.1)?);
        }
        Ok(page)
    }

    fn scan(&self, mut each: impl FnMut(Item)) -> Result<()> {
        for row in self.db.scan_prefix([RECORD]) {
            each(item::decode_in_place(&row?.1)?);
        }
        Ok(())
    }

    fn log(&self) -> Result<Vec<(u64, Item)>> {
        self.db
            .scan_prefix([LOG])
            .map(|row| {
                let (key, value) = row?;
                let seq = key.get(1..).and_then(|seq| seq.try_into().ok()).map_or(0, u64::from_be_bytes);
                Ok((seq, item::decode_in_place(value.get(size_of::<u64>()..).unwrap_or_default())?))
            })
            .collect()
    }

    fn head(&self) -> Result<u64> {
        Ok(self.db.get(HEAD)?.and_then(|head| two(&head)).unwrap_or_default().0)
    }
}

impl Sled {
    fn apply(&self, batch: Batch) -> Result<()> {
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        Ok(self.file.sync_data()?)
    }
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}

fn two(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(rest.try_into().ok()?)))
}
