//! What redb stands on: the caller's medium, with a creation that was cut short begun again.
//!
//! redb creates a database in two steps, the second of which writes the magic number. A crash between them leaves
//! a file that redb refuses for ever although nothing was ever stored in it. Such a file is shown to redb as an
//! empty one, under redb's own lock, so that it starts over.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::{BackendError, StorageBackend};

/// A medium whose first reported length is zero if its creation was cut short.
#[derive(Debug)]
pub(super) struct Medium<B> {
    inner: B,
    examined: AtomicBool,
}

/// A new database is 1 MiB of pages and redb's own pages about them, or the header alone if the length was lost.
/// Anything of another size was not left behind by a creation.
const NEW_BYTES_MIN: u64 = 1 << 20;
const NEW_BYTES_MAX: u64 = 2 << 20;
/// The header, which is there before its magic number is.
const HEADER_BYTES: usize = 320;
/// The magic number comes first in the header and is written last.
const MAGIC_BYTES: usize = 9;
/// Behind it, a byte of flags and two of padding, the header has the size of redb's pages, little-endian.
const PAGE_SIZE_AT: usize = 12;
const PAGE_SIZE: [u8; 4] = 4096_u32.to_le_bytes();

impl<B: StorageBackend> Medium<B> {
    pub(super) const fn new(inner: B) -> Self {
        Self { inner, examined: AtomicBool::new(false) }
    }

    fn was_cut_short(&self, len: u64) -> io::Result<bool> {
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
        // A header that never reached the disk is all zero, and then so is everything.
        let zero_from = if page_size == PAGE_SIZE { HEADER_BYTES } else { 0 };
        Ok(all.iter().skip(zero_from).all(|&byte| byte == 0))
    }
}

impl<B: StorageBackend> StorageBackend for Medium<B> {
    fn len(&self) -> io::Result<u64> {
        let len = self.inner.len()?;
        // redb asks for the length first of all, holding its lock, and takes zero for a new file.
        if !self.examined.swap(true, Ordering::Relaxed) && self.was_cut_short(len)? {
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
