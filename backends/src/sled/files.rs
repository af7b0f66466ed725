//! The directory of a store: who owns it, whether it holds a store of ours, and what a crash left in it.
//!
//! sled has two faults here. It releases its own lock some time after its database is dropped, when its last thread
//! closes the file. And it takes files that it cannot read for an empty database, and writes over them. So the store
//! has a file of its own beside sled's files, the mark. The mark is created first, its lock is the store's lock, and
//! its text is written when the store is complete.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::OpenStoreError;
use crate::shared::directory::{parent, sync_directory};
use crate::shared::lock::LockFile;

/// A directory that this store owns.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    mark: LockFile,
    is_complete: bool,
    /// Whether sled has opened the directory, so that it may hold its own lock.
    in_use: bool,
}

/// The name of the mark, and its text once the store is complete.
const MARK: &str = "syncline";
const MARK_TEXT: &[u8] = b"syncline sled 1\n";
/// The beginning of the text in every version.
const MARK_TEXT_BEGIN: &[u8] = b"syncline sled ";

/// sled's names for its log, its settings, its directory of large values, and a snapshot that it is writing.
const LOG: &str = "db";
const SETTINGS: &str = "conf";
const BLOBS: &str = "blobs";
const SNAPSHOT_BEGIN: &str = "snap.";
const SNAPSHOT_UNFINISHED: &str = ".generating";

/// Each segment of the log begins with a checksum and the bytes that the checksum is of.
const CHECKSUM_BYTES: usize = 4;
const SEGMENT_HEADER_BYTES: usize = 20;

#[derive(Debug, thiserror::Error)]
enum NotAStore {
    #[error("the directory holds something else")]
    Foreign,
    #[error("its file `{0}` is missing or empty")]
    Missing(&'static str),
    #[error("its log has no beginning that sled could read")]
    Unreadable,
}

impl Directory {
    /// Takes the directory at `path`, or creates it. Leaves a directory that holds something else as it is.
    pub(super) fn claim(path: &Path, segment_bytes: usize) -> Result<Self, OpenStoreError> {
        let failed = |error| OpenStoreError::io(path, error);
        match fs::create_dir(path) {
            Ok(()) => sync_directory(parent(path)).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(failed(ErrorKind::NotADirectory.into()));
            }
            Err(error) => return Err(failed(error)),
        }
        let is_empty = fs::read_dir(path).map_err(failed)?.next().is_none();
        // The mark is looked for after the directory was read: another opener that is just creating the store creates
        // the mark first.
        if !is_empty && !path.join(MARK).exists() {
            return Err(OpenStoreError::corrupt(path, NotAStore::Foreign));
        }
        let mark = LockFile::claim(&path.join(MARK), path)?;
        let mut text = Vec::new();
        mark.file().read_to_end(&mut text).map_err(failed)?;
        let is_complete = text == MARK_TEXT;
        let directory = Self { path: path.to_owned(), mark, is_complete, in_use: false };
        if is_complete {
            directory.check(segment_bytes)?;
        } else if MARK_TEXT.starts_with(&text) {
            if !directory.holds_only_sled().map_err(failed)? {
                return Err(OpenStoreError::corrupt(path, NotAStore::Foreign));
            }
            directory.begin_again().map_err(failed)?;
        } else if text.starts_with(MARK_TEXT_BEGIN) {
            return Err(OpenStoreError::upgrade(path, String::from_utf8_lossy(&text).into_owned()));
        } else {
            return Err(OpenStoreError::corrupt(path, NotAStore::Foreign));
        }
        directory.remove_unfinished_snapshots().map_err(failed)?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the creation of the store has ended.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Opens sled's log a second time. sled's lock keeps out lockers, and no other handles.
    pub(super) fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(LOG))
    }

    /// Notes that sled has opened the directory. Dropping this then waits until sled has closed its files.
    pub(super) const fn note_use(&mut self) {
        self.in_use = true;
    }

    /// Makes sled's files durable, and then notes in the mark that the store is complete.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        File::open(self.path.join(SETTINGS))?.sync_all()?;
        self.open_log()?.sync_all()?;
        sync_directory(&self.path)?;
        if !self.is_complete {
            // Written from the start: an earlier attempt that was interrupted may have left a part of the text.
            let mut mark = self.mark.file();
            mark.seek(SeekFrom::Start(0))?;
            mark.write_all(MARK_TEXT)?;
            mark.sync_all()?;
            self.is_complete = true;
        }
        Ok(())
    }

    /// Refuses a store whose files sled would take for an empty database.
    fn check(&self, segment_bytes: usize) -> Result<(), OpenStoreError> {
        let failed = |error| OpenStoreError::io(&self.path, error);
        for name in [SETTINGS, LOG] {
            let len = self.path.join(name).metadata().map_or(0, |file| file.len());
            if len == 0 {
                return Err(OpenStoreError::corrupt(&self.path, NotAStore::Missing(name)));
            }
        }
        let mut log = self.open_log().map_err(failed)?;
        let len = log.metadata().map_err(failed)?.len();
        for at in (0..len).step_by(segment_bytes) {
            if begins_a_segment(&mut log, at).map_err(failed)? {
                return Ok(());
            }
        }
        Err(OpenStoreError::corrupt(&self.path, NotAStore::Unreadable))
    }

    /// Whether every other file is one that sled creates. An empty file of the mark's name may be another program's.
    fn holds_only_sled(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let is_ours = [MARK, LOG, SETTINGS, BLOBS].contains(&&*name) || name.starts_with(SNAPSHOT_BEGIN);
            if !is_ours {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes settings whose writing was interrupted: sled would refuse them for ever, although nothing was stored
    /// yet.
    fn begin_again(&self) -> io::Result<()> {
        let has_log = self.path.join(LOG).metadata().is_ok_and(|log| log.len() > 0);
        if has_log { Ok(()) } else { remove_if_there(&self.path.join(SETTINGS)) }
    }

    /// Removes a snapshot whose writing a crash interrupted: sled would take it for the newest one, and refuse the
    /// store for ever. The snapshot before it still exists, since sled removes it only once the new one has its final
    /// name.
    fn remove_unfinished_snapshots(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(SNAPSHOT_BEGIN) && name.ends_with(SNAPSHOT_UNFINISHED) {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A thread of sled may still have the file open, and with it sled's lock, although the database is dropped.
        // sled would refuse the next opener, so the lock is waited for here. The mark is still locked, so that no other
        // store can hold sled's lock.
        if self.in_use
            && let Ok(log) = self.open_log()
            && log.lock().is_ok()
        {
            drop(log.unlock());
        }
    }
}

/// Whether sled finds a segment at offset `at`.
fn begins_a_segment(log: &mut File, at: u64) -> io::Result<bool> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    log.seek(SeekFrom::Start(at))?;
    match log.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        outcome => outcome?,
    }
    let (checksum, rest) = header.split_at(CHECKSUM_BYTES);
    Ok(checksum == (!crc32(rest)).to_le_bytes())
}

/// The CRC-32 of zlib, computed bit by bit: it is used for a few bytes at each opening.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// sled's log, the file that holds every row, and how it is made durable.
pub(super) struct Log {
    file: File,
    /// Replaced in tests, so that they see each sync, or make it fail.
    sync: Box<SyncFile>,
}

type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

impl Log {
    pub(super) fn new(file: File, sync: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { file, sync: Box::new(sync) }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        (self.sync)(&self.file)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_sled() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926, "the check value of CRC-32");
    }
}
