//! Reads the rows of a store without the engine, for tests that judge them.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Joined, Rules, join};
use crate::error::Error;
use crate::events::RecordKey;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::model::Registry;
use crate::pages::Pages;
use crate::storage::{Entry, Key, KeyRange, Storage, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::split_row;
use crate::stored::{
    FormatError, Head, InstallRow, LogEntry, Phase, Progress, ProjectionRow, debt_from_value, digest, record,
};

/// A commit of the log, with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The replica that made the commit.
    pub stream: ReplicaId,
    /// The sequence number of the commit.
    pub seq: u64,
    /// The author's device.
    pub device: DeviceId,
    /// The stamp of the commit.
    pub stamp: Hlc,
    /// The digest of the stream before the commit.
    pub previous: [u8; 32],
    /// The digest of the stream with the commit.
    pub digest: [u8; 32],
    /// The causes: other streams that had moved at the author, up to where, and the beginning of the digest there.
    pub after: Vec<(ReplicaId, u64, [u8; 8])>,
    /// The changes of the commit.
    pub changes: Vec<LoggedChange>,
}

/// A change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// The record.
    pub record: RecordKey,
    /// Whether the change deletes the record.
    pub delete: bool,
    /// The value that the change puts; `None` for a delete, or if the value is missing in the store.
    pub value: Option<Value>,
    /// The schema of the value; 0 for a delete.
    pub schema: u16,
    /// The epoch, if the model brings its own merge.
    pub epoch: Option<Hlc>,
}

/// A record of a store, or a value that lies beside one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record's name.
    pub record: RecordKey,
    /// The stamp of the commit that wrote the record.
    pub stamp: Hlc,
    /// The value; `None` for a tombstone.
    pub value: Option<Value>,
    /// The schema of the value; 0 for a tombstone.
    pub schema: u16,
    /// The epoch, if the model brings its own merge.
    pub epoch: Option<Hlc>,
}

/// How far a projection of a store is, and what it owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProjection {
    /// The name of the projection.
    pub name: String,
    /// The version of the projection that made its tables.
    pub version: u32,
    /// The schema of its model at that time.
    pub schema: u16,
    /// The records that it could not take, and why.
    pub debts: BTreeMap<RecordKey, String>,
    progress: Progress,
}

impl StoredProjection {
    /// Whether the projection has all records, less its debts.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// Whether the projection has got as far as this record.
    #[must_use]
    pub fn covers(&self, record: &RecordKey) -> bool {
        self.progress.covers(record.as_bytes())
    }
}

/// Whether the row with this key is of a log, or has a value: a record, or what is kept for a log or lies beside one.
#[must_use]
pub fn is_content(key: &[u8]) -> bool {
    matches!(
        StoredKey::parse(key),
        Some(StoredKey::Log(..) | StoredKey::Kept(..) | StoredKey::Record(..) | StoredKey::Beside(..))
    )
}

/// Reads the sequence number and the digest of each stream's head.
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

/// Reads every commit of the log, by stream and sequence number.
///
/// # Errors
/// If the store cannot be read.
pub async fn history(storage: &dyn Storage) -> Result<Vec<Logged>, Error> {
    let mut commits = Vec::new();
    for (stream, ..) in heads(storage).await? {
        commits.extend(commits_from(storage, stream, 1).await?);
    }
    Ok(commits)
}

/// Reads the commits of one stream from `first` on.
///
/// # Errors
/// If the store cannot be read.
pub async fn commits_from(
    storage: &dyn Storage,
    stream: ReplicaId,
    first: u64,
) -> Result<Vec<Logged>, Error> {
    let mut commits = Vec::new();
    for Entry { key, value } in Pages::new(storage, keys::logs_from(stream, first)).all().await? {
        let Some(StoredKey::Log(_, seq)) = StoredKey::parse(&key) else { continue };
        let (previous, entry) = split_row(&value)?;
        let LogEntry { device, stamp, after, changes } = LogEntry::parse(stream, entry)?;
        let after = after.iter().map(|cause| (cause.stream, cause.seq, cause.check)).collect();
        let mut logged = Vec::with_capacity(changes.len());
        for change in changes {
            let delete = change.value.is_none();
            let value = if delete { None } else { resolve(storage, stream, seq, &change.record).await? };
            let schema = change.value.map_or(0, |value| value.schema);
            logged.push(LoggedChange { record: change.record, delete, value, schema, epoch: change.epoch });
        }
        commits.push(Logged {
            stream,
            seq,
            device,
            stamp,
            previous,
            digest: digest(&value),
            after,
            changes: logged,
        });
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

/// Reads every record, in the order of keys.
///
/// # Errors
/// If the store cannot be read.
pub async fn records(storage: &dyn Storage) -> Result<Vec<StoredRecord>, Error> {
    stored(storage, keys::records()).await
}

/// Reads every value that lies beside a record, in the order of the records.
///
/// # Errors
/// If the store cannot be read.
pub async fn besides(storage: &dyn Storage) -> Result<Vec<StoredRecord>, Error> {
    stored(storage, keys::besides()).await
}

async fn stored(storage: &dyn Storage, range: KeyRange) -> Result<Vec<StoredRecord>, Error> {
    let mut found = Vec::new();
    for Entry { key, value } in Pages::new(storage, range).all().await? {
        let Some(StoredKey::Record(record) | StoredKey::Beside(record, ..)) = StoredKey::parse(&key) else {
            continue;
        };
        let (header, value) = record::parse(&value)?;
        let value = (!header.tombstone).then(|| value.to_vec());
        let epoch = header.merge.map(|merge| merge.epoch);
        found.push(StoredRecord { record, stamp: header.stamp, value, schema: header.schema, epoch });
    }
    Ok(found)
}

/// Reads how far each projection is.
///
/// # Errors
/// If the store cannot be read.
pub async fn projections(storage: &dyn Storage) -> Result<Vec<StoredProjection>, Error> {
    let mut projections = Vec::new();
    for Entry { key, value } in Pages::new(storage, keys::projections()).all().await? {
        let Some(StoredKey::Projection(name)) = StoredKey::parse(&key) else { continue };
        let ProjectionRow { version, schema, progress } = ProjectionRow::parse(&value)?;
        let debts = Pages::new(storage, keys::debts_of(&name)).all().await?;
        let debts = debts.iter().filter_map(|debt| match StoredKey::parse(&debt.key) {
            Some(StoredKey::Debt(_, record)) => Some(debt_from_value(&debt.value).map(|why| (record, why))),
            _ => None,
        });
        let debts = debts.collect::<Result<_, _>>()?;
        projections.push(StoredProjection { name, version, schema, debts, progress });
    }
    Ok(projections)
}

/// Reads the sequence number and the digest of each stream's floor.
///
/// # Errors
/// If the store cannot be read.
pub async fn floors(storage: &dyn Storage) -> Result<Vec<(ReplicaId, u64, [u8; 32])>, Error> {
    let mut floors = Vec::new();
    for Entry { key, value } in Pages::new(storage, keys::heads()).all().await? {
        let Some(StoredKey::Head(replica)) = StoredKey::parse(&key) else { continue };
        let head = Head::parse(replica, &value)?;
        floors.push((replica, head.floor, head.floor_digest));
    }
    Ok(floors)
}

/// The rows of a store as its app reads them: what is staged of a snapshot is left out before the switch, and joined with
/// what is live from then on.
///
/// # Errors
/// If a row cannot be read.
pub fn settled(rows: &BTreeMap<Key, Value>) -> Result<Option<BTreeMap<Key, Value>>, Error> {
    let Some(install) = rows.get(&keys::install()) else { return Ok(None) };
    let install = InstallRow::parse(install)?;
    let (staged, mut live): (BTreeMap<_, _>, BTreeMap<_, _>) =
        rows.clone().into_iter().partition(|(key, _)| keys::unstaged(key).is_some());
    live.remove(&keys::install());
    let mut heads = BTreeMap::new();
    for (key, value) in live.iter().filter(|(key, _)| keys::heads().contains(key)) {
        if let Some(StoredKey::Head(replica)) = StoredKey::parse(key) {
            heads.insert(replica, Head::parse(replica, value)?);
        }
    }
    let head = |stream: &ReplicaId| heads.get(stream).map_or((0, 0), |head| (head.seq, head.floor));
    if install.phase.is_before_switch() {
        live.retain(|key, _| match StoredKey::parse(key) {
            Some(StoredKey::Log(stream, seq) | StoredKey::Kept(stream, seq, _)) => seq <= head(&stream).0,
            Some(StoredKey::Record(_) | StoredKey::Beside(..)) => !install.in_place,
            _ => true,
        });
    }
    if install.phase != Phase::Fold {
        return Ok(Some(live));
    }
    let staged: BTreeMap<Key, Value> =
        staged.into_iter().filter_map(|(key, value)| Some((keys::unstaged(&key)?.to_vec(), value))).collect();
    let names = live.keys().chain(staged.keys()).filter_map(|key| RecordKey::from_bytes(key));
    let names: BTreeSet<RecordKey> = names.collect();
    let registry = Registry::new();
    for record in names {
        let key = record.as_bytes().to_vec();
        let (old, new) = (live.get(&key).cloned(), staged.get(&key));
        let joined =
            join((&Rules::ALL, &registry), &install.as_of, &record, old.as_deref(), new.map(Vec::as_slice))?;
        let header = |bytes: &[u8]| record::parse(bytes).map(|(header, _)| header);
        let after = match joined {
            Joined::Live => continue,
            Joined::Gone => {
                live.remove(&key);
                None
            }
            Joined::New(header, bytes) => {
                live.insert(key.clone(), bytes);
                Some(header)
            }
            Joined::Beside(theirs, value) => {
                let Some(mut bytes) = old else { continue };
                let mine = header(&bytes)?;
                let merge = mine.merge.map(|merge| record::Merged { beside: true, ..merge });
                record::Header { merge, ..mine }.write(&mut bytes);
                live.insert(key.clone(), bytes);
                live.insert(keys::beside(&record, theirs.stamp.replica(), theirs.seq), value);
                continue;
            }
        };
        let Some(old) = old else { continue };
        let mine = header(&old)?;
        let epoch = |header: &record::Header| header.merge.map(|merge| merge.epoch);
        if after.as_ref().is_none_or(|after| epoch(after) != epoch(&mine)) {
            live.retain(|key, _| !keys::besides_of(&record).contains(key));
        }
        let (author, seq) = (mine.stamp.replica(), mine.seq);
        let is_logged = !mine.tombstone && !mine.merge.is_some_and(|merge| merge.mixed);
        if is_logged && seq > head(&author).1 && !after.is_some_and(|after| after.holds(author, seq)) {
            live.insert(keys::kept(author, seq, &record), record::value_of(&old).to_vec());
        }
    }
    for (key, value) in &staged {
        let Some(StoredKey::Beside(record, ..)) = StoredKey::parse(key) else { continue };
        let ours = live.get(record.as_bytes()).map(|ours| record::parse(ours)).transpose()?;
        let (ours, theirs) = (ours.and_then(|(header, _)| header.merge), record::parse(value)?.0.merge);
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours.beside
            && ours.epoch == theirs.epoch
        {
            live.insert(key.clone(), value.clone());
        }
    }
    Ok(Some(live))
}
