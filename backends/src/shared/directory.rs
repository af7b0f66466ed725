//! The directory that a store lies in.

use std::fs::File;
use std::io;
use std::path::Path;

/// The directory above `path`. Above a bare name it is the current directory.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in `directory` durable. Without this a loss of power could take away the name of a new file, and
/// with it every write to that file, however often the file itself was flushed.
#[cfg(unix)]
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(directory.to_owned()));
    File::open(directory)?.sync_all()
}

#[cfg(all(unix, test))]
thread_local! {
    /// The directories that this thread has synced: no test can take the power away from a real disk.
    pub(crate) static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Does nothing: on other systems a directory cannot be flushed, and the file system makes names durable by itself.
#[cfg(not(unix))]
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
