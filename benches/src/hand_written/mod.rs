//! The hand-written way, for one engine a file.

pub mod redb;
pub mod sled;
pub mod sqlite;
mod writer;

use std::fmt;
use std::path::Path;

use syncline::{JoinStorage, Native, Storage, Uuid};

use crate::Result;
use crate::item::{self, Item};

pub use writer::Writer;

/// How many bytes an engine may cache, on both sides.
pub const CACHE_BYTES: usize = 128 << 20;

/// What a good engineer would code over one engine, for one app, and the same engine behind syncline.
pub trait HandWritten: Sized + Send + 'static {
    /// The engine.
    const ENGINE: &'static str;

    /// How durable a commit is, where the engine offers a choice that matters.
    type Commit: Copy + Default + fmt::Display + Send + 'static;

    /// The choices to compare, the default first.
    const COMMITS: &'static [Self::Commit];

    /// What syncline over this engine must reach.
    const BARS: Bars;

    /// The engine behind syncline.
    type Storage: Storage;

    /// Opens the engine behind syncline.
    ///
    /// # Errors
    /// Those of the store.
    fn storage(path: &Path, commit: Self::Commit, cache_bytes: usize) -> Result<Self::Storage>;

    /// Opens a hand-written store with the same settings.
    ///
    /// # Errors
    /// Errors of the engine.
    fn open(path: &Path, commit: Self::Commit, cache_bytes: usize) -> Result<Self>;

    /// Shortens a closed store, of either side, to what its content needs; says whether the engine can.
    ///
    /// # Errors
    /// Errors of the engine.
    fn compact(path: &Path) -> Result<bool>;

    /// Puts the rows, a log row with the value for each, and the head, in one durable transaction.
    ///
    /// # Errors
    /// Errors of the engine.
    fn commit(&mut self, rows: &[Row]) -> Result<()>;

    /// Frees what a transaction of so many rows has left behind in memory, where the engine does not do it by itself.
    ///
    /// Runs when the callers have their answers.
    fn tidy(&mut self, _rows: usize) {}

    /// Puts the rows alone, in one durable transaction: the least that keeps them.
    ///
    /// # Errors
    /// Errors of the engine.
    fn commit_rows_alone(&mut self, rows: &[Row]) -> Result<()>;

    /// Reads one record.
    ///
    /// # Errors
    /// Errors of the engine and of `decode`.
    fn get(&self, id: Uuid, decode: Decode) -> Result<Option<Item>>;

    /// Reads many records in one read transaction.
    ///
    /// # Errors
    /// Errors of the engine and of `decode`.
    fn get_many(&self, ids: &[Uuid], decode: Decode) -> Result<Vec<Option<Item>>>;

    /// Reads the first records behind `after`, by id, in a read transaction of their own: what a list is made of that holds
    /// no transaction while its caller looks at a page. They are decoded where they lie.
    ///
    /// # Errors
    /// Errors of the engine and of the decoder.
    fn page(&self, after: Uuid, records: usize) -> Result<Vec<Item>>;

    /// Reads all records in one read transaction, by id, and decodes them where they lie.
    ///
    /// # Errors
    /// Errors of the engine and of the decoder.
    fn scan(&self, each: impl FnMut(Item)) -> Result<()>;

    /// Reads the log: sequence numbers and items.
    ///
    /// # Errors
    /// Errors of the engine.
    fn log(&self) -> Result<Vec<(u64, Item)>>;

    /// Reads the head: the last sequence number.
    ///
    /// # Errors
    /// Errors of the engine.
    fn head(&self) -> Result<u64>;
}

/// The ratios of rates that an engine's cases must reach.
#[derive(Clone, Copy, Debug)]
pub struct Bars {
    /// One caller.
    pub one: f64,
    /// Batches of 1,000.
    pub batch: f64,
    /// The bar of reads, where it was asked for.
    pub reads: Option<ReadBars>,
    /// What else must be reached, where it was asked for.
    pub more: Option<MoreBars>,
}

/// The bar of reads.
#[derive(Clone, Copy, Debug)]
pub struct ReadBars {
    /// One record.
    pub get: f64,
    /// Many records.
    pub get_many: f64,
    /// All records, page by page.
    pub list: f64,
}

/// The bar of group commit and sizes.
#[derive(Clone, Copy, Debug)]
pub struct MoreBars {
    /// 64 callers, beside one.
    pub beside_one: f64,
    /// Bytes on disk, beside the rows alone.
    pub size: f64,
}

/// The same for engines whose transaction the app's own statements can join.
pub trait HandWrittenJoin: HandWritten<Storage: JoinStorage> {
    /// Creates the app's own table, on either side.
    ///
    /// # Errors
    /// Errors of the engine.
    fn create_notes(tx: &Native<'_, Self::Storage>) -> Result<()>;

    /// The app's own statement, on either side: adds a row to its table.
    ///
    /// # Errors
    /// Errors of the engine.
    fn add_note(tx: &Native<'_, Self::Storage>, note: u64) -> Result<()>;

    /// Runs `job` and then commits `rows` as [`commit`](HandWritten::commit) does, all in one transaction.
    ///
    /// # Errors
    /// Errors of the engine and of `job`.
    fn join(
        &mut self,
        rows: &[Row],
        job: impl FnOnce(&Native<'_, Self::Storage>) -> Result<()>,
    ) -> Result<()>;
}

/// How a stored value becomes an item.
pub type Decode = fn(&[u8]) -> Result<Item>;

/// A record, encoded by whoever commits it.
#[derive(Debug)]
pub struct Row {
    /// What names it.
    pub id: Uuid,
    /// The item.
    pub value: Vec<u8>,
}

impl Row {
    /// Encodes `item`.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn new(item: &Item) -> Result<Self> {
        Ok(Self { id: item.id, value: item::encode(item)? })
    }

    /// Encodes `items`.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn all(items: &[Item]) -> Result<Vec<Self>> {
        items.iter().map(Self::new).collect()
    }
}
