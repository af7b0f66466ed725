//! The storage seam: an ordered byte keyspace with atomic, durable batches.
//!
//! The trait has three methods, so that any embedded store can keep its contract. A batch is data, so a test can log,
//! tear, count and simulate it. `syncline-testkit` has one test per bullet of [the contract](Storage), and a page that
//! goes from an empty crate to a store that passes them: `docs/writing-a-store.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;

/// An error of a store, of a clock or of the app.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A key: at least one byte, and any bytes.
pub type Key = Vec<u8>;

/// A value: any bytes, or none. An empty value is not an absent one.
pub type Value = Vec<u8>;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value under the key.
    pub value: Value,
}

/// How much one scan returns at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimit {
    /// The most entries.
    pub entries: usize,
    /// The most bytes of keys and values. A first entry that is longer is returned all the same, alone.
    pub bytes: usize,
}

impl ScanLimit {
    /// No limit.
    pub const NONE: Self = Self { entries: usize::MAX, bytes: usize::MAX };

    /// A limit of so many entries, whatever bytes they have.
    #[must_use]
    pub const fn entries(entries: usize) -> Self {
        Self { entries, ..Self::NONE }
    }
}

/// The answer of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// The entries, ascending by unsigned bytes.
    pub entries: Vec<Entry>,
    /// Whether the range may have entries behind these. If not, these are all.
    pub more: bool,
}

impl ScanPage {
    /// Fills a page with the first of `entries`, as far as the limit allows: for stores that hold their entries in a map.
    pub fn of<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        entries: impl IntoIterator<Item = (K, V)>,
        limit: ScanLimit,
    ) -> Self {
        let (mut meter, mut page) = (ScanMeter::new(limit), Self::default());
        for (key, value) in entries {
            let (key, value) = (key.as_ref(), value.as_ref());
            if !meter.takes(key, value) {
                page.more = true;
                break;
            }
            page.entries.push(Entry { key: key.to_vec(), value: value.to_vec() });
        }
        page
    }
}

/// Fills the answer of a scan up to its limit, for stores whose engine gives one entry after the other.
///
/// ```
/// use syncline::{ScanLimit, ScanMeter};
///
/// let mut meter = ScanMeter::new(ScanLimit { entries: 2, bytes: 10 });
/// assert!(meter.takes(b"the first", b"fits always"));
/// assert!(!meter.takes(b"a", b"b"), "there are more bytes than the limit says already");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ScanMeter {
    limit: ScanLimit,
    entries: usize,
    bytes: usize,
}

impl ScanMeter {
    /// A meter that has counted nothing.
    #[must_use]
    pub const fn new(limit: ScanLimit) -> Self {
        Self { limit, entries: 0, bytes: 0 }
    }

    /// Counts an entry; `false` if it goes beyond the limit, so that the scan ends before it, with more to come.
    pub const fn takes(&mut self, key: &[u8], value: &[u8]) -> bool {
        let entries = self.entries.saturating_add(1);
        let bytes = self.bytes.saturating_add(key.len()).saturating_add(value.len());
        let fits = entries <= self.limit.entries && (entries == 1 || bytes <= self.limit.bytes);
        if fits {
            (self.entries, self.bytes) = (entries, bytes);
        }
        fits
    }

    /// Whether no further entry fits, so that the next one need not be read. Whether there is one is not known then.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.entries >= self.limit.entries
    }
}

/// Sees the entries of a [visit](Storage::visit), a key and its value each, and says whether to go on.
///
/// A visitor may panic, and then `visit` panics with the same. A visitor must not call the store, which may be locked meanwhile.
pub type Visitor<'v> = &'v mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + Send);

/// The most keys of one [`get_many`](Storage::get_many).
pub const GET_KEYS_MAX: usize = 1024;

/// The sizes that a store takes.
///
/// A replica lowers its [`Limits`](crate::Limits) to what its store takes when it is opened. So what a store cannot take is
/// an error of the call that would need it, before any work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// The longest key, in bytes.
    pub key_bytes: usize,
    /// The largest value, in bytes.
    pub value_bytes: usize,
    /// The most operations of one batch.
    pub batch_ops: usize,
    /// The most bytes of the keys and values of one batch, those of ranges included.
    pub batch_bytes: usize,
}

impl StoreLimits {
    /// The sizes that a replica with the default [`Limits`](crate::Limits) needs, and that every store takes which does not say
    /// otherwise: keys of 2 KiB, values of 1.25 MiB, batches of 65,536 operations and 64 MiB.
    pub const CONTRACT: Self =
        Self { key_bytes: 2 << 10, value_bytes: 5 << 18, batch_ops: 1 << 16, batch_bytes: 64 << 20 };

    /// No limits: the store takes what the machine can hold.
    pub const NONE: Self = Self {
        key_bytes: usize::MAX,
        value_bytes: usize::MAX,
        batch_ops: usize::MAX,
        batch_bytes: usize::MAX,
    };
}

/// An ordered byte keyspace with atomic, durable batches.
///
/// Authors of stores find a whole one, its tests and the answers to their questions in `docs/writing-a-store.md`, which is
/// `syncline_testkit::docs::writing_a_store` too.
///
/// The caller never has two writes in flight; reads run beside a write. If the caller drops the future of a `write`,
/// the next write must start only after the dropped one has ended, applied or not: that order is the duty of the store,
/// since a caller that dropped the future cannot know when the write ends.
///
/// # What may block
/// Methods are called on the threads of the app's executor. A read of a few hundred entries may run inline, where the
/// engine is embedded; a longer one and a write should run on a thread of the store's own, since a flush takes
/// milliseconds, unless the caller's thread [may block](crate::may_block): it is the driver's own then, and the write
/// should run on it. A read must not wait for a write that is under way, unless the engine has no other way to keep
/// `reads_see_last_write`; and never for one whose future the caller has and does not poll. An opening does not wait for
/// the owner to go.
///
/// # Drop
/// Dropping the store waits until the writes that were sent have ended and the engine is closed, so that the same place
/// can be opened again at once. Reads whose futures were dropped must not keep it longer than a moment.
///
/// # Contract
/// One property each in `syncline-testkit`, under the same name:
///
/// - `reads_see_last_write`: once `write` has returned `Ok`, every read that starts sees its batch. A batch that one
///   read has seen, every later read sees. A read that could not read everything is a [`ReadError`].
/// - `reads_are_never_torn`: a read sees whole batches only, also while a write runs.
/// - `reads_keep_request_order`: `get_many` answers in the order of its keys, repeated keys included.
/// - `scan_is_ordered`: ascending by unsigned bytes, from the start (included) to the end (excluded), at most as much as
///   the limit says, none missing in between. A scan may end early, which a remote store will want; it then says that
///   there is more, and has one entry at least. If it says that there is no more, there is none. A range whose end is not
///   above its start is empty.
/// - `visit_is_a_scan`: [`visit`](Storage::visit) shows what a scan returns, until it is told to stop; a visitor that
///   panics harms nothing but its visit.
/// - `later_ops_win`: the operations of a batch take effect in their order.
/// - `delete_range_stays_inside`: a `DeleteRange` deletes every key of its range and no other.
/// - `write_is_atomic`: after any error, panic or crash, and after the store was dropped at any point, all of a
///   batch is there or nothing of it, and the store can be opened again. An empty batch is `Ok`.
/// - `write_survives_reopening`: once `write` has returned `Ok`, its batch survives every fault that the store claims to
///   survive. A property sees whether it survives reopening; `crash_tests!` and `power_tests!` see a process that is
///   killed, and whether a loss of power could take it back.
/// - `writes_are_ordered`: a batch is never there without every earlier one that returned `Ok`.
/// - `rejected_leaves_no_trace`: after [`WriteError::Rejected`], reads and later writes find the state before.
/// - `second_owner_is_fenced`: a second opener is refused, or the first one's writes return
///   [`WriteError::Fenced`]; two owners never write both. A store with one owner is never fenced, and a second opener
///   does not wait for the first.
/// - `cancel_is_all_or_nothing`: a future dropped at any point leaves all of its batch or nothing of it, and the
///   store usable.
/// - `empty_is_not_absent`: an empty value is a value like any other. The empty key is never used.
/// - `sizes_are_kept`: keys, values and batches of every size up to the [`limits`](Storage::limits), and reads of up to
///   [`GET_KEYS_MAX`] keys, are accepted, and come back as they went in. What is larger may be accepted too; otherwise
///   it is [`WriteError::TooLarge`].
/// - `reopening_changes_nothing`: the store has the same entries, however often it is reopened.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Returns the values of `keys`, in their order, all from one consistent state. There are at most [`GET_KEYS_MAX`] of
    /// them.
    ///
    /// # Errors
    /// [`ReadError`] if the store could not read. Nothing has changed.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError>;

    /// Returns the first entries of `range`, as far as `limit` allows, ascending by unsigned bytes, from one consistent
    /// state.
    ///
    /// # Errors
    /// [`ReadError`] if the store could not read.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError>;

    /// Shows `each` the entries that a [`scan`](Storage::scan) of the same range and limit would return; returns whether
    /// there may be more.
    ///
    /// A visit is for stores that can lend the bytes of their entries: then nothing is copied. The default scans. A visit
    /// runs on the caller's thread, so callers keep its limit small.
    ///
    /// # Errors
    /// [`ReadError`] if the store could not read. Some entries may have been shown before.
    ///
    /// # Panics
    /// If `each` panics. The store goes on.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect but that the visit ends.
    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        let page = self.scan(range, limit).await?;
        let stopped = page.entries.iter().any(|entry| each(&entry.key, &entry.value).is_break());
        Ok(stopped || page.more)
    }

    /// Applies `batch` whole and returns once it is durable.
    ///
    /// # Errors
    /// [`WriteError`], whose variants say whether the batch was applied.
    ///
    /// # Cancel safety
    /// Dropping the future applies all of the batch or nothing of it.
    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError>;

    /// Returns the sizes that the store takes, which never change while it is open. A store that takes less than
    /// [`StoreLimits::CONTRACT`], or more, overrides this.
    fn limits(&self) -> StoreLimits {
        StoreLimits::CONTRACT
    }

    /// Says where the store lies, for error messages: its path, if it has one.
    fn location(&self) -> String {
        "the store".into()
    }
}

/// The error of a read. Nothing has changed; the caller may retry, and reopen if that fails too.
#[derive(Debug, thiserror::Error)]
#[error("the store could not read: {0}")]
pub struct ReadError(#[source] pub BoxError);

impl ReadError {
    /// Wraps the error that the store reported.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

/// The error of a write, by what the caller may do next.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The batch was certainly not applied, and the store goes on. It may succeed later: retry or report.
    #[error("the store rejected the write, nothing of it was applied: {0}")]
    Rejected(#[source] BoxError),
    /// The batch was certainly not applied, and never will be, since it has something larger than the store takes. The
    /// store goes on.
    #[error("the write is too large for the store, nothing of it was applied: {0}")]
    TooLarge(#[source] BoxError),
    /// The batch was perhaps applied: reopen the store and look. Until then it must refuse every write, and may refuse
    /// every call. After a failed write or sync of a file this is the only honest answer: the system may have dropped
    /// what it could not write, and say nothing the next time.
    #[error("the store cannot tell whether the write was applied, reopen it: {0}")]
    Unknown(#[source] BoxError),
    /// The batch was certainly not applied, since another owner took over: stop.
    #[error("another owner has opened the store, this one must stop")]
    Fenced,
}

impl WriteError {
    /// Makes a [`WriteError::Rejected`] of `error`.
    pub fn rejected(error: impl Into<BoxError>) -> Self {
        Self::Rejected(error.into())
    }

    /// Makes a [`WriteError::TooLarge`] of `error`.
    pub fn too_large(error: impl Into<BoxError>) -> Self {
        Self::TooLarge(error.into())
    }

    /// Makes a [`WriteError::Unknown`] of `error`.
    pub fn unknown(error: impl Into<BoxError>) -> Self {
        Self::Unknown(error.into())
    }
}

/// The keys from `start` (included) up to `end` (excluded), by unsigned bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the range.
    pub start: Key,
    /// The first key beyond the range; `None` for a range without an end.
    pub end: Option<Key>,
}

impl KeyRange {
    /// Returns the range of all keys.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    /// Returns the range from `start` (included) up to `end` (excluded).
    pub fn new(start: impl Into<Key>, end: impl Into<Key>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Returns the range of the keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        // The first key beyond the prefix: raise its last byte below 0xFF by one and cut off the bytes behind it. A
        // prefix of 0xFF bytes alone has no key beyond it.
        let end = start.iter().rposition(|&byte| byte < u8::MAX).map(|at| {
            let mut end: Key = start.iter().take(at + 1).copied().collect();
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
            end
        });
        Self { start, end }
    }

    /// Returns the part of this range beyond `key`, in which a scan goes on that ended with `key`.
    #[must_use]
    pub fn after(self, key: &[u8]) -> Self {
        let mut next = Vec::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.push(0);
        Self { start: self.start.max(next), end: self.end }
    }

    /// Returns whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Returns whether no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// One operation of a [`WriteBatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// Sets `key` to `value`.
    Put {
        /// The key.
        key: Key,
        /// The new value of the key.
        value: Value,
    },
    /// Removes `key`, if it is there.
    Delete {
        /// The key.
        key: Key,
    },
    /// Removes every key of `range`.
    DeleteRange {
        /// The keys to remove.
        range: KeyRange,
    },
}

impl WriteOp {
    /// Returns the bytes of its keys and its value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
            Self::DeleteRange { range } => range.start.len() + range.end.as_ref().map_or(0, Vec::len),
        }
    }
}

/// Operations that a store applies together, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    ops: Vec<WriteOp>,
}

impl WriteBatch {
    /// Makes a batch without operations.
    #[must_use]
    pub const fn new() -> Self {
        Self { ops: Vec::new() }
    }

    /// Makes room for so many more operations.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.ops.reserve(more);
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        self.ops.push(WriteOp::Put { key: key.into(), value: value.into() });
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: impl Into<Key>) {
        self.ops.push(WriteOp::Delete { key: key.into() });
    }

    /// Removes every key of `range`.
    pub fn delete_range(&mut self, range: KeyRange) {
        self.ops.push(WriteOp::DeleteRange { range });
    }

    /// Returns the operations, in their order.
    #[must_use]
    pub fn ops(&self) -> &[WriteOp] {
        &self.ops
    }

    /// The entries that the batch puts.
    pub(crate) fn puts(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.ops.iter().filter_map(|op| match op {
            WriteOp::Put { key, value } => Some((key.as_slice(), value.as_slice())),
            WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => None,
        })
    }

    /// The keys that the batch deletes one by one.
    pub(crate) fn deletes(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.ops.iter().filter_map(|op| match op {
            WriteOp::Delete { key } => Some(key.as_slice()),
            WriteOp::Put { .. } | WriteOp::DeleteRange { .. } => None,
        })
    }

    /// Applies the operations to a map, in their order: what the batch does to a store, for stores and tests that hold their
    /// entries in a map.
    pub fn apply_to(self, entries: &mut BTreeMap<Key, Value>) {
        for op in self.ops {
            match op {
                WriteOp::Put { key, value } => drop(entries.insert(key, value)),
                WriteOp::Delete { key } => drop(entries.remove(&key)),
                WriteOp::DeleteRange { range } => {
                    // `BTreeMap::range` panics over a range whose end is below its start.
                    let found = entries.range(range.start.clone()..).map(|(key, _)| key);
                    let inside: Vec<Key> = found.take_while(|key| range.contains(key)).cloned().collect();
                    inside.iter().for_each(|key| drop(entries.remove(key)));
                }
            }
        }
    }

    /// Returns whether the batch has no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns the bytes of all keys and values, those of ranges included, as [`StoreLimits::batch_bytes`] counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(WriteOp::bytes).sum()
    }
}

impl From<Vec<WriteOp>> for WriteBatch {
    fn from(ops: Vec<WriteOp>) -> Self {
        Self { ops }
    }
}

impl IntoIterator for WriteBatch {
    type Item = WriteOp;
    type IntoIter = std::vec::IntoIter<WriteOp>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}

macro_rules! storage_behind_a_pointer {
    ($pointer:ident) => {
        #[async_trait]
        impl<S: Storage + ?Sized> Storage for $pointer<S> {
            async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
                (**self).get_many(keys).await
            }

            async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
                (**self).scan(range, limit).await
            }

            async fn visit(
                &self,
                range: KeyRange,
                limit: ScanLimit,
                each: Visitor<'_>,
            ) -> Result<bool, ReadError> {
                (**self).visit(range, limit, each).await
            }

            async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
                (**self).write(batch).await
            }

            fn limits(&self) -> StoreLimits {
                (**self).limits()
            }

            fn location(&self) -> String {
                (**self).location()
            }
        }
    };
}

storage_behind_a_pointer!(Box);
storage_behind_a_pointer!(Arc);

impl fmt::Debug for dyn Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.location())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_exactly_its_keys() {
        for prefix in [&b""[..], b"a", b"a\xff", b"\xff", b"\xff\xff", b"\x00", b"ab\xff\xff"] {
            let range = KeyRange::prefix(prefix);
            for key in [
                &b""[..],
                b"\x00",
                b"a",
                b"a\xff",
                b"a\xff\x00",
                b"ab",
                b"ab\xff\xff\x01",
                b"ac",
                b"b",
                b"\xff",
                b"\xff\xff\xff",
            ] {
                assert_eq!(range.contains(key), key.starts_with(prefix), "{prefix:?} {key:?}");
            }
        }
    }

    #[test]
    fn a_scan_goes_on_right_after_its_last_key() {
        let rest = KeyRange::prefix(*b"a").after(b"ab");
        assert!(
            !rest.contains(b"ab") && rest.contains(b"ab\x00") && rest.contains(b"ac") && !rest.contains(b"b")
        );
        assert_eq!(KeyRange::prefix(*b"b").after(b"a"), KeyRange::prefix(*b"b"));
    }

    #[test]
    fn a_batch_applies_its_operations_in_their_order() {
        let mut entries = BTreeMap::new();
        let mut batch = WriteBatch::new();
        for key in [*b"a", *b"b", *b"c"] {
            batch.put(key, key);
        }
        batch.delete_range(KeyRange::new(*b"b", *b"d"));
        batch.put(*b"c", *b"later");
        batch.delete(*b"a");
        batch.delete_range(KeyRange::new(*b"d", *b"a"));
        batch.delete_range(KeyRange::new(*b"x", *b"y"));
        batch.apply_to(&mut entries);
        assert_eq!(entries, BTreeMap::from([(b"c".to_vec(), b"later".to_vec())]));
        let mut all = WriteBatch::new();
        all.delete_range(KeyRange::all());
        all.apply_to(&mut entries);
        assert!(entries.is_empty());
    }

    #[test]
    fn an_end_at_or_before_the_start_is_empty() {
        assert!(KeyRange::new(*b"b", *b"a").is_empty() && KeyRange::new(*b"a", *b"a").is_empty());
        assert!(!KeyRange::all().is_empty() && !KeyRange::new(*b"", *b"\x00").is_empty());
    }

    #[test]
    fn storage_is_usable_behind_pointers() {
        fn is_storage<S: Storage>() {}
        is_storage::<Box<dyn Storage>>();
        is_storage::<Arc<dyn Storage>>();
    }
}
