//! The directory that a store lies in.

use std::fs::File;
use std::io;
use std::path::Path;

/// The directory above `path`, which a bare name has too.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable: otherwise a loss of power could take a new file away, and with it every
/// write to that file, however often the file itself was flushed.
#[cfg(unix)]
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be flushed, and the file system keeps names by itself.
#[cfg(not(unix))]
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
