//! The medium that redb writes to, which starts a creation over if a crash interrupted it.
//!
//! redb creates a database in two steps, the second of which writes the magic number. A crash between the steps leaves
//! a file that redb refuses for ever, although nothing was stored in it. [`Medium`] shows such a file to redb as an
//! empty one, under redb's own lock, so that redb creates the database again.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::{BackendError, StorageBackend};

/// A medium that reports a length of zero, the first time, if a creation on it was interrupted.
#[derive(Debug)]
pub(super) struct Medium<B> {
    inner: B,
    examined: AtomicBool,
}

/// A new database is 64 KiB of pages (1 MiB before redb 4.6) and redb's own pages about them, or the header alone if a
/// crash lost the length. A file of another size was not left by an interrupted creation.
const NEW_BYTES_MIN: u64 = 64 << 10;
const NEW_BYTES_MAX: u64 = 2 << 20;
/// The length of the header, which the first step writes without its magic number.
const HEADER_BYTES: usize = 320;
/// The magic number is the beginning of the header and is written last.
const MAGIC_BYTES: usize = 9;
/// After the magic number, a byte of flags and two of padding, the header has the size of redb's pages, little-endian.
const PAGE_SIZE_AT: usize = 12;
const PAGE_SIZE: [u8; 4] = 4096_u32.to_le_bytes();

impl<B: StorageBackend> Medium<B> {
    pub(super) const fn new(inner: B) -> Self {
        Self { inner, examined: AtomicBool::new(false) }
    }

    fn is_interrupted_creation(&self, len: u64) -> io::Result<bool> {
        if len != HEADER_BYTES as u64 && !(NEW_BYTES_MIN..=NEW_BYTES_MAX).contains(&len) {
            return Ok(false);
        }
        let mut start = [0; PAGE_SIZE_AT + 4];
        self.inner.read(0, &mut start)?;
        let (before, page_size) = start.split_at(PAGE_SIZE_AT);
        let magic_is_missing = before.iter().take(MAGIC_BYTES).all(|&byte| byte == 0);
        if !magic_is_missing || (page_size != PAGE_SIZE && page_size != [0; 4]) {
            return Ok(false);
        }
        let mut all = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.inner.read(0, &mut all)?;
        // A header that did not reach the disk is all zero. Then the whole file must be.
        let zero_from = if page_size == PAGE_SIZE { HEADER_BYTES } else { 0 };
        Ok(all.iter().skip(zero_from).all(|&byte| byte == 0))
    }
}

impl<B: StorageBackend> StorageBackend for Medium<B> {
    fn len(&self) -> io::Result<u64> {
        let len = self.inner.len()?;
        // redb asks for the length before anything else, while it holds its lock. It takes zero for a new file.
        if !self.examined.swap(true, Ordering::Relaxed) && self.is_interrupted_creation(len)? {
            return Ok(0);
        }
        Ok(len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
