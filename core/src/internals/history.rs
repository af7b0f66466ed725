//! What a store holds, read back independently of the engine: for tests that judge it.

use crate::error::Error;
use crate::events::RecordKey;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::pages::Pages;
use crate::storage::{Entry, Key, Storage, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::split_row;
use crate::stored::{FormatError, Head, LogEntry, record};

/// A commit of the log, with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Whose stream it is of.
    pub stream: ReplicaId,
    /// Its sequence number.
    pub seq: u64,
    /// Its author's device.
    pub device: DeviceId,
    /// Its stamp.
    pub stamp: Hlc,
    /// The heads of other streams that had moved at its author.
    pub after: Vec<(ReplicaId, u64)>,
    /// What it changed.
    pub changes: Vec<LoggedChange>,
}

/// A change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// The record.
    pub record: RecordKey,
    /// Whether it deletes.
    pub delete: bool,
    /// The value that it puts.
    pub value: Option<Value>,
    /// The epoch, if the model brings its own merge.
    pub epoch: Option<Hlc>,
}

/// A record of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Which one.
    pub record: RecordKey,
    /// The stamp of the commit that it is of.
    pub stamp: Hlc,
    /// Its value; `None` if it is deleted.
    pub value: Option<Value>,
    /// The epoch, if the model brings its own merge.
    pub epoch: Option<Hlc>,
}

/// The last commit known of each stream, with its digest.
///
/// # Errors
/// If the store cannot be read.
pub async fn heads(storage: &dyn Storage) -> Result<Vec<(ReplicaId, u64, [u8; 32])>, Error> {
    let mut heads = Vec::new();
    for Entry { key, value } in Pages::new(storage, keys::heads()).all().await? {
        let Some(StoredKey::Head(replica)) = StoredKey::parse(&key) else { continue };
        let head = Head::parse(replica, &value)?;
        heads.push((replica, head.seq, head.digest));
    }
    Ok(heads)
}

/// Every commit of the log, by stream and sequence number.
///
/// # Errors
/// If the store cannot be read.
pub async fn history(storage: &dyn Storage) -> Result<Vec<Logged>, Error> {
    let mut commits = Vec::new();
    for (stream, ..) in heads(storage).await? {
        for Entry { key, value } in Pages::new(storage, keys::logs(stream)).all().await? {
            let Some(StoredKey::Log(_, seq)) = StoredKey::parse(&key) else { continue };
            let LogEntry { device, stamp, after, changes } = LogEntry::parse(stream, split_row(&value)?.1)?;
            let mut logged = Vec::with_capacity(changes.len());
            for change in changes {
                let delete = change.value.is_none();
                let value = if delete { None } else { resolve(storage, stream, seq, &change.record).await? };
                logged.push(LoggedChange { record: change.record, delete, value, epoch: change.epoch });
            }
            commits.push(Logged { stream, seq, device, stamp, after, changes: logged });
        }
    }
    Ok(commits)
}

async fn resolve(
    storage: &dyn Storage,
    stream: ReplicaId,
    seq: u64,
    record: &RecordKey,
) -> Result<Option<Value>, Error> {
    let found = storage.get_many(&[record.as_bytes().to_vec(), keys::kept(stream, seq, record)]).await?;
    let [stored, kept]: [Option<Key>; 2] =
        found.try_into().map_err(|_| FormatError::Damaged { what: "an answer of the store" })?;
    match stored {
        Some(stored) if record::parse(&stored)?.0.holds(stream, seq) => {
            Ok(Some(record::value_of(&stored).to_vec()))
        }
        _ => Ok(kept),
    }
}

/// Every record, by its key.
///
/// # Errors
/// If the store cannot be read.
pub async fn records(storage: &dyn Storage) -> Result<Vec<StoredRecord>, Error> {
    let mut records = Vec::new();
    for Entry { key, value } in Pages::new(storage, keys::records()).all().await? {
        let Some(StoredKey::Record(record)) = StoredKey::parse(&key) else { continue };
        let (header, value) = record::parse(&value)?;
        let value = (!header.tombstone).then(|| value.to_vec());
        let epoch = header.merge.map(|merge| merge.epoch);
        records.push(StoredRecord { record, stamp: header.stamp, value, epoch });
    }
    Ok(records)
}
