//! The store under test, with methods that act on it and compare it with what is expected.

use std::fmt::{self, Display};
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use syncline::{
    Entry, GET_KEYS_MAX, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage as _, StoreLimits, Value,
    WriteBatch, WriteError,
};

use crate::quiet::{be_quiet, is_quiet};
use crate::sorted_map::{self, SortedMap, difference};
use crate::{Fixture, MediumFault, MediumFaultKind, watchdog};

/// More entries than any property stores. Not `usize::MAX`: a store may treat that limit apart, which `scan_is_ordered`
/// checks.
const STATE_ENTRIES_MAX: usize = 100_000;

/// A store under test. If it does not do what a method expects, the property fails with a message that names the step.
pub(crate) struct Subject<'f, F: Fixture> {
    property: &'static str,
    fixture: &'f F,
    // `None` only while the store is closed to be reopened.
    store: Option<F::Store>,
    // Whether the thread was quiet before.
    quiet: bool,
}

impl<'f, F: Fixture> Subject<'f, F> {
    pub(crate) async fn open(property: &'static str, fixture: &'f F) -> Self {
        let mut subject = Self::closed(property, fixture);
        subject.reopen("at the start").await;
        subject
    }

    /// A subject that must be reopened first.
    pub(crate) fn closed(property: &'static str, fixture: &'f F) -> Self {
        Self { property, fixture, store: None, quiet: is_quiet() }
    }

    /// Drops the store and opens it again.
    pub(crate) async fn reopen(&mut self, step: impl Display) {
        watchdog::step(format_args!("{step}, reopening"));
        self.close();
        match self.fixture.open().await {
            Ok(store) => {
                self.store = Some(store);
                be_quiet(self.quiet);
            }
            Err(error) => self.fail(step, format_args!("the store could not be opened: {error}")),
        }
    }

    pub(crate) fn close(&mut self) {
        self.store = None;
    }

    /// Drops the store and opens it again, which may fail or panic.
    pub(crate) async fn try_reopen(&mut self) -> Result<(), String> {
        self.close();
        match AssertUnwindSafe(self.fixture.open()).catch_unwind().await {
            Ok(Ok(store)) => {
                self.store = Some(store);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("panicked".into()),
        }
    }

    pub(crate) fn store(&self) -> &F::Store {
        self.store.as_ref().expect("a subject is open between its steps")
    }

    /// The sizes that the store must keep: what it declares, but no more than every store is asked for.
    pub(crate) fn must_keep(&self) -> StoreLimits {
        let (declared, contract) = (self.store().limits(), StoreLimits::CONTRACT);
        StoreLimits {
            key_bytes: declared.key_bytes.min(contract.key_bytes),
            value_bytes: declared.value_bytes.min(contract.value_bytes),
            batch_ops: declared.batch_ops.min(contract.batch_ops),
            batch_bytes: declared.batch_bytes.min(contract.batch_bytes),
        }
    }

    /// The most operations of a batch that the store must take, or `most` if that is less.
    pub(crate) fn ops_of_a_batch(&self, most: usize) -> usize {
        self.must_keep().batch_ops.min(most)
    }

    /// Puts entries in as many batches as the store wants.
    pub(crate) async fn fill(&self, step: impl Display, entries: impl IntoIterator<Item = (Key, Value)>) {
        let must = self.must_keep();
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            let bytes = batch.bytes() + key.len() + value.len();
            if batch.ops().len() == must.batch_ops || bytes > must.batch_bytes {
                self.write(&step, std::mem::take(&mut batch)).await;
            }
            batch.put(key, value);
        }
        self.write(&step, batch).await;
    }

    pub(crate) fn fixture(&self) -> &'f F {
        self.fixture
    }

    /// Makes the medium fail from now on. A panic of the medium is meant to be, and so are those of an engine that it leaves
    /// without its locks: they are not printed until the store is opened again.
    pub(crate) fn break_medium(&self, fault: MediumFault) {
        if fault.kind == MediumFaultKind::Panic {
            be_quiet(true);
        }
        self.fixture.break_medium(Some(fault));
    }

    pub(crate) fn mend_medium(&self) {
        self.fixture.break_medium(None);
    }

    /// Writes `batch`, which must work.
    pub(crate) async fn write(&self, step: impl Display, batch: WriteBatch) {
        watchdog::step(format_args!("{step}, a write"));
        let shown = sorted_map::show_batch(&batch);
        if let Err(error) = self.store().write(batch).await {
            self.fail(step, format_args!("the write failed: {error}; its batch: {shown}"));
        }
    }

    /// Writes `batch` and returns how the write ended, also if it panicked.
    pub(crate) async fn try_write(&self, batch: WriteBatch) -> Outcome {
        match AssertUnwindSafe(self.store().write(batch)).catch_unwind().await {
            Ok(result) => Outcome::of(&result),
            Err(_) => Outcome::Panicked,
        }
    }

    pub(crate) async fn get_many(&self, step: impl Display, keys: &[Key]) -> Vec<Option<Value>> {
        watchdog::step(format_args!("{step}, a read of keys"));
        match self.store().get_many(keys).await {
            Ok(values) if values.len() == keys.len() => values,
            Ok(values) => self.fail(
                step,
                format_args!("`get_many` answered {} keys with {} values", keys.len(), values.len()),
            ),
            Err(error) => self.fail(step, format_args!("`get_many` failed: {error}")),
        }
    }

    pub(crate) async fn get(&self, step: impl Display, key: &[u8]) -> Option<Value> {
        self.get_many(step, &[key.to_vec()]).await.pop().flatten()
    }

    /// Returns the answer to one scan, which must keep to its limit.
    pub(crate) async fn scan_page(&self, step: impl Display, range: KeyRange, limit: ScanLimit) -> ScanPage {
        watchdog::step(format_args!("{step}, a scan"));
        let page = match self.store().scan(range, limit).await {
            Ok(page) => page,
            Err(error) => self.fail(step, format_args!("`scan` failed: {error}")),
        };
        let bytes: usize = page.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        if page.entries.len() > limit.entries {
            self.fail(step, format_args!("a scan of {} entries found {}", limit.entries, page.entries.len()));
        }
        if page.entries.len() > 1 && bytes > limit.bytes {
            self.fail(step, format_args!("a scan of {} bytes found {bytes}", limit.bytes));
        }
        if page.more && page.entries.is_empty() && limit.entries > 0 {
            self.fail(step, "a scan found nothing and said that there is more");
        }
        if let Some(pair) = page.entries.windows(2).find(|pair| pair[0].key >= pair[1].key) {
            let [before, after] = [&pair[0], &pair[1]].map(|entry| sorted_map::bytes(&entry.key));
            self.fail(step, format_args!("a scan found {after} behind {before}"));
        }
        page
    }

    /// Returns the first `limit` entries of a range.
    pub(crate) async fn scan(&self, step: impl Display, range: KeyRange, limit: usize) -> Vec<Entry> {
        self.scan_on(step, range, limit).await.entries
    }

    /// Returns the first `limit` entries of a range, and whether the store says that there is more. A store may answer a
    /// scan in part: then it is asked for the rest.
    pub(crate) async fn scan_on(&self, step: impl Display, range: KeyRange, limit: usize) -> ScanPage {
        let mut page = self.scan_page(&step, range.clone(), ScanLimit::entries(limit)).await;
        while page.more && page.entries.len() < limit {
            let Some(last) = page.entries.last() else { break };
            let rest = range.clone().after(&last.key);
            let left = ScanLimit::entries(limit - page.entries.len());
            let next = self.scan_page(&step, rest, left).await;
            page.more = next.more;
            page.entries.extend(next.entries);
        }
        page
    }

    /// Returns everything in the store.
    pub(crate) async fn state(&self, step: impl Display) -> SortedMap {
        sorted_map::from_entries(self.scan(step, KeyRange::all(), STATE_ENTRIES_MAX).await)
    }

    /// Returns everything in the store, or `None` if it refuses, as it may after an unknown outcome.
    pub(crate) async fn try_state(&self) -> Option<SortedMap> {
        let all = ScanLimit::entries(STATE_ENTRIES_MAX);
        let scan = AssertUnwindSafe(self.store().scan(KeyRange::all(), all)).catch_unwind();
        Some(sorted_map::from_entries(scan.await.ok()?.ok()?.entries))
    }

    /// Compares everything in the store with `expected`, by scan and by key.
    pub(crate) async fn expect(&self, step: impl Display, expected: &SortedMap) {
        let found = self.state(&step).await;
        if found != *expected {
            let difference = difference(&found, expected);
            if self.is_by_keys(&found, expected).await {
                self.fail(
                    step,
                    format_args!("`get_many` finds what is expected, but `scan` does not: {difference}"),
                );
            }
            self.fail(step, format_args!("the state differs: {difference}"));
        }
        let keys: Vec<_> = expected.keys().cloned().collect();
        let mut values = Vec::with_capacity(keys.len());
        for piece in keys.chunks(GET_KEYS_MAX) {
            values.extend(self.get_many(&step, piece).await);
        }
        for ((key, value), found) in expected.iter().zip(values) {
            if found.as_ref() != Some(value) {
                self.fail(
                    step,
                    format_args!(
                        "`get_many` found {} for {}, but `scan` {}",
                        found.as_deref().map_or("nothing".into(), sorted_map::bytes),
                        sorted_map::bytes(key),
                        sorted_map::bytes(value)
                    ),
                );
            }
        }
    }

    /// Compares what reads of `keys` find with `expected`, where some of the keys are absent.
    pub(crate) async fn expect_keys(&self, step: impl Display, keys: &[Key], expected: &SortedMap) {
        for keys in keys.chunks(GET_KEYS_MAX) {
            for (key, found) in keys.iter().zip(self.get_many(&step, keys).await) {
                if found.as_ref() != expected.get(key) {
                    let [found, expected] = [found.as_ref(), expected.get(key)].map(|value| {
                        value.map_or_else(|| "nothing".into(), |value| sorted_map::bytes(value))
                    });
                    let key = sorted_map::bytes(key);
                    self.fail(step, format_args!("`get_many` found {found} for {key}, expected {expected}"));
                }
            }
        }
    }

    /// Whether reads of all keys find what is expected, where a scan has found something else: then the scan is wrong,
    /// not what was written.
    async fn is_by_keys(&self, found: &SortedMap, expected: &SortedMap) -> bool {
        let keys: Vec<_> = expected.keys().chain(found.keys()).cloned().collect();
        for keys in keys.chunks(GET_KEYS_MAX) {
            match try_read(self.store().get_many(keys)).await {
                Some(values)
                    if values.iter().map(Option::as_ref).eq(keys.iter().map(|key| expected.get(key))) => {}
                _ => return false,
            }
        }
        true
    }

    /// Compares everything in the store with both states that a batch may leave, and returns whether the batch is
    /// there.
    pub(crate) async fn expect_either(
        &self,
        step: impl Display,
        before: &SortedMap,
        after: &SortedMap,
    ) -> bool {
        let found = self.state(&step).await;
        self.whole(step, &found, before, after)
    }

    /// Whether `found` is the state after the batch. If it is neither that nor the state before, the property fails.
    pub(crate) fn whole(
        &self,
        step: impl Display,
        found: &SortedMap,
        before: &SortedMap,
        after: &SortedMap,
    ) -> bool {
        if found != before && found != after {
            let (part, whole) = (difference(found, before), difference(after, before));
            self.fail(
                step,
                format_args!(
                    "part of a batch is there: against the state before it: {part}; all of it: {whole}"
                ),
            );
        }
        found == after
    }

    /// Fails the property.
    pub(crate) fn fail(&self, step: impl Display, what: impl Display) -> ! {
        // Mend the medium before the panic: other properties of the same process may use it.
        self.mend_medium();
        be_quiet(self.quiet);
        panic!("{}: {step}: {what}", self.property)
    }
}

impl<F: Fixture> Drop for Subject<'_, F> {
    fn drop(&mut self) {
        self.store = None;
        be_quiet(self.quiet);
    }
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Rejected,
    TooLarge,
    Unknown,
    Fenced,
    Panicked,
}

impl Outcome {
    pub(crate) fn of(result: &Result<(), WriteError>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(WriteError::Rejected(_)) => Self::Rejected,
            Err(WriteError::TooLarge(_)) => Self::TooLarge,
            Err(WriteError::Unknown(_)) => Self::Unknown,
            Err(WriteError::Fenced) => Self::Fenced,
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "Ok",
            Self::Rejected => "Rejected",
            Self::TooLarge => "TooLarge",
            Self::Unknown => "Unknown",
            Self::Fenced => "Fenced",
            Self::Panicked => "a panic",
        })
    }
}

/// The answer of a read, or `None` if it failed or panicked.
pub(crate) async fn try_read<T>(read: impl Future<Output = Result<T, ReadError>>) -> Option<T> {
    AssertUnwindSafe(read).catch_unwind().await.ok()?.ok()
}
