//! The directory of a store, around sled: who owns it, whether it is one of ours, and what a crash left behind.
//!
//! sled's own lock is let go some time after its database is dropped, whenever its last thread lets go of the file,
//! and sled takes files that it cannot read for an empty database and writes over them. So the store has a file of
//! its own beside sled's. It is there first, its lock is the store's lock, and it is filled in when the store is whole.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::OpenError;
use crate::shared::directory::{parent, sync_directory};
use crate::shared::lock::LockFile;

/// A directory that belongs to this opener.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    mark: LockFile,
    is_complete: bool,
    /// Whether sled has been let at it, so that it may hold its lock.
    in_use: bool,
}

/// The store's own file, and what it says once there is a whole store.
const MARK: &str = "syncline";
const MARK_TEXT: &[u8] = b"syncline sled 1\n";
/// What it says in every version.
const MARK_TEXT_BEGIN: &[u8] = b"syncline sled ";

/// sled's log, its settings, and what it calls a snapshot that is being written.
const LOG: &str = "db";
const SETTINGS: &str = "conf";
const BLOBS: &str = "blobs";
const SNAPSHOT_BEGIN: &str = "snap.";
const SNAPSHOT_UNFINISHED: &str = ".generating";

/// How each segment of the log begins: a checksum, and what it is of.
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
    /// Takes the directory at `path`, or creates it, and leaves one that holds no store as it is.
    pub(super) fn claim(path: &Path, segment_bytes: usize) -> Result<Self, OpenError> {
        let failed = |error| OpenError::io(path, error);
        match fs::create_dir(path) {
            // Without this a loss of power could take the new directory away, and every write with it.
            Ok(()) => sync_directory(parent(path)).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(failed(ErrorKind::NotADirectory.into()));
            }
            Err(error) => return Err(failed(error)),
        }
        let is_empty = fs::read_dir(path).map_err(failed)?.next().is_none();
        // In this order: another opener may just be creating it, and the mark comes first.
        if !is_empty && !path.join(MARK).exists() {
            return Err(OpenError::corrupt(path, NotAStore::Foreign));
        }
        let mark = LockFile::claim(&path.join(MARK), path)?;
        let mut text = Vec::new();
        mark.file().read_to_end(&mut text).map_err(failed)?;
        let is_complete = text == MARK_TEXT;
        // From here on the lock is let go by `drop`.
        let directory = Self { path: path.to_owned(), mark, is_complete, in_use: false };
        if is_complete {
            directory.check(segment_bytes)?;
        } else if MARK_TEXT.starts_with(&text) {
            if !directory.holds_only_sled().map_err(failed)? {
                return Err(OpenError::corrupt(path, NotAStore::Foreign));
            }
            directory.begin_again().map_err(failed)?;
        } else if text.starts_with(MARK_TEXT_BEGIN) {
            return Err(OpenError::upgrade(path, String::from_utf8_lossy(&text).into_owned()));
        } else {
            return Err(OpenError::corrupt(path, NotAStore::Foreign));
        }
        directory.remove_unfinished_snapshots().map_err(failed)?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a whole store was created here.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Opens sled's log a second time: its lock is one that only other lockers see.
    pub(super) fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(LOG))
    }

    /// Notes that sled has been let at the directory, and must have let go of it before anyone else is.
    pub(super) const fn note_use(&mut self) {
        self.in_use = true;
    }

    /// Makes what sled created durable, and then notes that the store is whole.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        File::open(self.path.join(SETTINGS))?.sync_all()?;
        self.open_log()?.sync_all()?;
        sync_directory(&self.path)?;
        if !self.is_complete {
            // From the start, also if an earlier attempt was cut short.
            let mut mark = self.mark.file();
            mark.seek(SeekFrom::Start(0))?;
            mark.write_all(MARK_TEXT)?;
            mark.sync_all()?;
            self.is_complete = true;
        }
        Ok(())
    }

    /// Finds what would make sled begin an empty database over a store that was there.
    fn check(&self, segment_bytes: usize) -> Result<(), OpenError> {
        let failed = |error| OpenError::io(&self.path, error);
        for name in [SETTINGS, LOG] {
            let len = self.path.join(name).metadata().map_or(0, |file| file.len());
            if len == 0 {
                return Err(OpenError::corrupt(&self.path, NotAStore::Missing(name)));
            }
        }
        let mut log = self.open_log().map_err(failed)?;
        let len = log.metadata().map_err(failed)?.len();
        for at in (0..len).step_by(segment_bytes) {
            if begins_a_segment(&mut log, at).map_err(failed)? {
                return Ok(());
            }
        }
        Err(OpenError::corrupt(&self.path, NotAStore::Unreadable))
    }

    /// Whether there is nothing beside the mark but what sled makes: an empty file of the mark's name may be anybody's.
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

    /// Removes settings that were cut short: sled would refuse them for ever although nothing was stored yet.
    fn begin_again(&self) -> io::Result<()> {
        let has_log = self.path.join(LOG).metadata().is_ok_and(|log| log.len() > 0);
        if has_log { Ok(()) } else { remove_if_there(&self.path.join(SETTINGS)) }
    }

    /// Removes what a crash left of a snapshot: sled would take it for the newest one, and refuse the store for ever.
    /// The snapshot before it goes only when the new one has its name.
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
        // A task of sled may still hold the file, and with it sled's lock, although the database is gone. The next
        // opener would be refused by sled, so it is waited for here, where nobody else can be holding it.
        if self.in_use
            && let Ok(log) = self.open_log()
            && log.lock().is_ok()
        {
            drop(log.unlock());
        }
    }
}

/// Whether sled would read a segment at `at`.
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

/// The checksum of zlib, bit by bit: it is used on a few bytes per open.
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

/// The file that holds every row, and how it is made durable.
pub(super) struct Log {
    file: File,
    /// Replaced in tests, which see by it when, and that, the file is synced.
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
