//! The directory that holds the stores, and who they belong to.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use syncline::uuid::Builder;
use syncline::{DeviceId, GroupId, ParseIdError};
use tempfile::NamedTempFile;

use crate::Result;

/// The stores of one walked directory, and the device they belong to.
///
/// ```text
/// syncline-demo/
/// ├── device                      the device's id, drawn once
/// └── photos-1f0c9a57d2b3e846/    the stores of one walked directory, named from its path
///     └── redb/                   one store
/// ```
#[derive(Clone, Debug)]
pub struct DataDir {
    /// All of it, which no walk goes into.
    pub path: PathBuf,
    /// The part of the walked directory.
    pub stores: PathBuf,
    /// This device.
    pub device: DeviceId,
}

impl DataDir {
    /// Opens the data directory at `path`, or creates it, for the walked directory `root`, a canonical path.
    ///
    /// # Errors
    /// If it cannot be written, if its device id cannot be read, or if `root` lies in it.
    pub fn open(path: &Path, root: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            format!("{}: {error}; name a directory that you may write to with --data", path.display())
        };
        create_private(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        if root.starts_with(&path) {
            let (root, path) = (root.display(), path.display());
            return Err(
                format!("{root} lies in {path}, which holds the stores; name another with --data").into()
            );
        }
        let device = device(&path)?;
        let hash = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        // For a person who looks for it; the hash alone tells two directories apart.
        let name: String = root.file_name().unwrap_or_default().to_string_lossy().chars().take(32).collect();
        let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
        let stores = path.join(format!("{name}-{hash:.16}"));
        Ok(Self { path, stores, device })
    }

    /// The directory of one store, which is created if it is not there.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn store(&self, name: &str) -> Result<PathBuf> {
        let path = self.stores.join(name);
        create_private(&path).map_err(|error| format!("{}: {error}; allow writing it", path.display()))?;
        Ok(path)
    }

    /// The group that a store founds, and belongs to ever after.
    ///
    /// Made from what stays the same and not drawn, so that it need not be kept: a run that is killed before its
    /// store was founded is followed by one that founds the same group. Each store is a group of its own, because
    /// the stores do not replicate to each other.
    #[must_use]
    pub fn group(&self, store: &str) -> GroupId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.device.as_bytes());
        hasher.update(self.stores.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(store.as_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        GroupId(Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// The names of a person's files are nobody else's business.
fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// The id in the file `device`, which is drawn and written if it is not there.
fn device(data: &Path) -> Result<DeviceId> {
    let path = data.join("device");
    let failed = |error: io::Error| format!("{}: {error}; allow reading and writing it", path.display());
    if !path.try_exists().map_err(failed)? {
        // Whole or not at all, and never over the id of a run that began at the same moment.
        let mut file = NamedTempFile::new_in(data).map_err(failed)?;
        writeln!(file, "{}", DeviceId::new()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error.error).into());
            }
            _ => {}
        }
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let id = text.trim().parse().map_err(|error: ParseIdError| {
        let data = data.display();
        format!(
            "{}: {error}; delete {data} to begin anew, which loses only the demo's stores",
            path.display()
        )
    })?;
    Ok(id)
}

/// The lengths of all files in `directory`, together.
///
/// # Errors
/// If it cannot be read.
pub fn bytes_in(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_stays_and_every_store_has_a_group_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let [photos, music] =
            ["/photos", "/music"].map(|root| DataDir::open(&data, Path::new(root)).unwrap());
        assert_eq!(photos.device, music.device);
        let groups = [photos.group("redb"), photos.group("sled"), music.group("redb")];
        assert!(groups[0] != groups[1] && groups[0] != groups[2] && groups[1] != groups[2]);
        assert_eq!(DataDir::open(&data, Path::new("/photos")).unwrap().group("redb"), groups[0]);
    }

    #[test]
    fn a_damaged_device_id_is_reported_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("device"), "nobody").unwrap();
        let error = DataDir::open(dir.path(), Path::new("/photos")).unwrap_err().to_string();
        assert!(error.contains("begin anew"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("device")).unwrap(), "nobody");
    }
}
