//! The keys of the store, and the names of records.

use std::fmt;

use crate::ids::{DeviceId, ReplicaId};
use crate::storage::{Key, KeyRange};
use crate::stored::length;
use crate::syncable::{MODEL_BYTES_MAX, Ownership, RecordId, SyncId, Syncable};

const META: u8 = 0x01;
const HEAD: u8 = 0x02;
const PEER: u8 = 0x03;
const LOG: u8 = 0x06;
const KEPT: u8 = 0x07;
const BESIDE: u8 = 0x08;
const DEBT: u8 = 0x09;
const STAGE: u8 = 0x0a;

/// The first bytes of records: the buckets of shared models, and behind them the buckets of device-owned ones.
const SHARED: u8 = 0x10;
const OWNED: u8 = SHARED + BUCKETS;
const RECORDS_END: u8 = OWNED + BUCKETS;

/// The number of first bytes over which models are spread, so that a store which keeps a tree for each first byte
/// gives nearly every model a tree of its own. Time-ordered ids then append to their tree. In one common tree they
/// would push into the middle, and its pages would stay half empty.
const BUCKETS: u8 = 96;

/// The first byte of a model's records. Two models with the same first byte only share a tree.
fn first_byte(model: &str, owned: bool) -> u8 {
    let spread = model.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    (if owned { OWNED } else { SHARED }) + spread % BUCKETS
}

/// Names a record in the store: its model, its owner if it has one, and its id.
///
/// In key order the records of one model stand together, those of a device-owned model by owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(Key);

/// The parts of a [`RecordKey`].
struct Parts<'a> {
    model: &'a str,
    owner: Option<DeviceId>,
    id: &'a [u8],
}

impl RecordKey {
    /// The key of the record `id` of the model `M`.
    pub(crate) fn new<M: Syncable>(id: &RecordId<M>) -> Self {
        let (owner, id) = M::Ownership::split(id);
        let mut key = Self::model_prefix(M::SYNC_MODEL, M::Ownership::DEVICE_OWNED, 16 + 32);
        if let Some(owner) = owner {
            key.extend_from_slice(owner.as_bytes());
        }
        id.encode(&mut key);
        Self(key)
    }

    /// The key with these bytes; `None` if they name no record.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Parts { model, owner, .. } = parts(bytes)?;
        // Refuse a key under the first byte of another model: no read would ever find it.
        (bytes.first() == Some(&first_byte(model, owner.is_some()))).then(|| Self(bytes.to_vec()))
    }

    /// The key of a record of the model named `model`; `owner` is `None` for a shared record.
    pub(crate) fn from_parts(model: &str, owner: Option<DeviceId>, id: &[u8]) -> Self {
        let mut key = Self::model_prefix(model, owner.is_some(), 16 + id.len());
        if let Some(owner) = owner {
            key.extend_from_slice(owner.as_bytes());
        }
        key.extend_from_slice(id);
        Self(key)
    }

    /// As [`from_parts`](RecordKey::from_parts), for parts that a peer sent; `None` if they name no record.
    pub(crate) fn checked(model: &str, owner: Option<DeviceId>, id: &[u8]) -> Option<Self> {
        let named = !model.is_empty() && model.len() <= MODEL_BYTES_MAX;
        named.then(|| Self::from_parts(model, owner, id))
    }

    /// The range of all records of the model `M`.
    pub(crate) fn range_of_model<M: Syncable>() -> KeyRange {
        KeyRange::prefix(Self::model_prefix(M::SYNC_MODEL, M::Ownership::DEVICE_OWNED, 0))
    }

    /// The range of all records of the model `M` that belong to `owner`.
    pub(crate) fn range_of_owner<M: Syncable>(owner: DeviceId) -> KeyRange {
        let mut prefix = Self::model_prefix(M::SYNC_MODEL, true, 16);
        prefix.extend_from_slice(owner.as_bytes());
        KeyRange::prefix(prefix)
    }

    fn model_prefix(model: &str, owned: bool, room: usize) -> Key {
        let mut key = Key::with_capacity(2 + model.len() + room);
        key.push(first_byte(model, owned));
        // A name has at most `MODEL_BYTES_MAX` bytes, which fit a `u8`: `Registry::add` refuses longer ones.
        key.push(length(model.len()));
        key.extend_from_slice(model.as_bytes());
        key
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lends the bytes of the key. [Give them back](RecordKey::take_back) before the key is used again: it is empty
    /// until then.
    pub(crate) fn lend(&mut self) -> Key {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn take_back(&mut self, key: Key) {
        self.0 = key;
    }

    pub(crate) fn into_bytes(self) -> Key {
        self.0
    }

    /// Returns the name of the record's model.
    #[must_use]
    pub fn model(&self) -> &str {
        parts(&self.0).map_or("", |parts| parts.model)
    }

    /// Returns the device that the record belongs to; `None` for a shared record.
    #[must_use]
    pub fn owner(&self) -> Option<DeviceId> {
        parts(&self.0).and_then(|parts| parts.owner)
    }

    /// Returns the record's encoded id.
    #[must_use]
    pub fn id_bytes(&self) -> &[u8] {
        parts(&self.0).map_or(&[], |parts| parts.id)
    }

    /// Returns the record's id as the model `M` names it; `None` if the record is of another model.
    ///
    /// ```
    /// # use syncline::{Change, RecordId, Syncable};
    /// # fn react<Tag: Syncable>(change: &Change) -> Option<RecordId<Tag>> {
    /// let id = change.record.id::<Tag>()?;
    /// # Some(id) }
    /// ```
    #[must_use]
    pub fn id<M: Syncable>(&self) -> Option<RecordId<M>> {
        Self::id_in::<M>(&self.0)
    }

    /// The id in the bytes of a record's key.
    pub(crate) fn id_in<M: Syncable>(key: &[u8]) -> Option<RecordId<M>> {
        let (&kind, rest) = key.split_first()?;
        let (&model_len, rest) = rest.split_first()?;
        let rest = rest.strip_prefix(M::SYNC_MODEL.as_bytes())?;
        if usize::from(model_len) != M::SYNC_MODEL.len() {
            return None;
        }
        let (owner, id) = match kind {
            SHARED..OWNED => (None, rest),
            OWNED..RECORDS_END => {
                let (owner, id) = rest.split_first_chunk::<16>()?;
                (Some(DeviceId::from_bytes(*owner)), id)
            }
            _ => return None,
        };
        M::Ownership::join(owner, M::Id::decode(id)?)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model())?;
        if let Some(owner) = self.owner() {
            write!(f, "/{owner}")?;
        }
        f.write_str("/")?;
        self.id_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn parts(key: &[u8]) -> Option<Parts<'_>> {
    let (&kind, rest) = key.split_first()?;
    let (&model_len, rest) = rest.split_first()?;
    let (model, rest) = rest.split_at_checked(usize::from(model_len))?;
    if model.is_empty() || model.len() > MODEL_BYTES_MAX {
        return None;
    }
    let model = std::str::from_utf8(model).ok()?;
    match kind {
        SHARED..OWNED => Some(Parts { model, owner: None, id: rest }),
        OWNED..RECORDS_END => {
            let (owner, id) = rest.split_first_chunk::<16>()?;
            Some(Parts { model, owner: Some(DeviceId::from_bytes(*owner)), id })
        }
        _ => None,
    }
}

/// A parsed key, by the kind of its row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StoredKey {
    Identity,
    Clock,
    Model(String),
    Projection(String),
    Head(ReplicaId),
    Record(RecordKey),
    Introducer,
    Forgotten(String),
    Fork(ReplicaId),
    Peer(ReplicaId),
    Log(ReplicaId, u64),
    Kept(ReplicaId, u64, RecordKey),
    Beside(RecordKey, ReplicaId, u64),
    Debt(String, RecordKey),
    Install,
    /// A row of a snapshot that is being installed: the key that it is to have.
    Staged(Key),
}

impl StoredKey {
    /// Parses `key`; `None` if this version writes no such key.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (&kind, rest) = key.split_first()?;
        match kind {
            META if rest == IDENTITY => Some(Self::Identity),
            META if rest == CLOCK => Some(Self::Clock),
            META if rest == INTRODUCER => Some(Self::Introducer),
            META if rest == INSTALL => Some(Self::Install),
            META if rest.starts_with(FORK) => {
                let replica = rest.strip_prefix(FORK)?.try_into().ok()?;
                Some(Self::Fork(ReplicaId::from_bytes(replica)))
            }
            META => {
                type Named<'a> = (&'a [u8], fn(String) -> StoredKey);
                let kinds: [Named<'_>; 3] =
                    [(MODEL, Self::Model), (PROJECTION, Self::Projection), (FORGOTTEN, Self::Forgotten)];
                let named = |(prefix, kind)| Some((rest.strip_prefix(prefix)?, kind));
                let (name, kind) = kinds.into_iter().find_map(named)?;
                Some(kind(std::str::from_utf8(name).ok()?.into()))
            }
            HEAD => Some(Self::Head(ReplicaId::from_bytes(rest.try_into().ok()?))),
            PEER => Some(Self::Peer(ReplicaId::from_bytes(rest.try_into().ok()?))),
            BESIDE => {
                let (len, rest) = rest.split_first_chunk::<4>()?;
                let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
                let (record, rest) = rest.split_at_checked(len)?;
                let (replica, seq) = rest.split_first_chunk::<16>()?;
                let (replica, seq) =
                    (ReplicaId::from_bytes(*replica), u64::from_be_bytes(seq.try_into().ok()?));
                RecordKey::from_bytes(record).map(|record| Self::Beside(record, replica, seq))
            }
            DEBT => {
                let (len, rest) = rest.split_first()?;
                let (name, record) = rest.split_at_checked(usize::from(*len))?;
                let name = std::str::from_utf8(name).ok()?;
                RecordKey::from_bytes(record).map(|record| Self::Debt(name.into(), record))
            }
            STAGE => match Self::parse(rest)? {
                Self::Head(_) | Self::Record(_) | Self::Beside(..) => Some(Self::Staged(rest.to_vec())),
                _ => None,
            },
            SHARED..RECORDS_END => RecordKey::from_bytes(key).map(Self::Record),
            LOG | KEPT => {
                let (replica, rest) = rest.split_first_chunk::<16>()?;
                let (seq, rest) = rest.split_first_chunk::<8>()?;
                let (replica, seq) = (ReplicaId::from_bytes(*replica), u64::from_be_bytes(*seq));
                match kind {
                    KEPT => RecordKey::from_bytes(rest).map(|record| Self::Kept(replica, seq, record)),
                    _ => rest.is_empty().then_some(Self::Log(replica, seq)),
                }
            }
            _ => None,
        }
    }
}

const IDENTITY: &[u8] = b"store";
const CLOCK: &[u8] = b"clock";
const MODEL: &[u8] = b"model";
const PROJECTION: &[u8] = b"projection";
const INTRODUCER: &[u8] = b"introducer";
const FORGOTTEN: &[u8] = b"forgotten";
const FORK: &[u8] = b"fork";
const INSTALL: &[u8] = b"install";

pub(crate) fn identity() -> Key {
    [&[META], IDENTITY].concat()
}

pub(crate) fn clock() -> Key {
    [&[META], CLOCK].concat()
}

pub(crate) fn model(name: &str) -> Key {
    [&[META], MODEL, name.as_bytes()].concat()
}

pub(crate) fn models() -> KeyRange {
    KeyRange::prefix([&[META], MODEL].concat())
}

pub(crate) fn projection(name: &str) -> Key {
    [&[META], PROJECTION, name.as_bytes()].concat()
}

pub(crate) fn projections() -> KeyRange {
    KeyRange::prefix([&[META], PROJECTION].concat())
}

pub(crate) fn introducer() -> Key {
    [&[META], INTRODUCER].concat()
}

/// The key of the highest stamp of a tombstone of `model` that was dropped here.
pub(crate) fn forgotten(model: &str) -> Key {
    [&[META], FORGOTTEN, model.as_bytes()].concat()
}

pub(crate) fn all_forgotten() -> KeyRange {
    KeyRange::prefix([&[META], FORGOTTEN].concat())
}

pub(crate) fn install() -> Key {
    [&[META], INSTALL].concat()
}

/// The key under which a row of a snapshot stands until it is installed.
pub(crate) fn staged(key: &[u8]) -> Key {
    [&[STAGE], key].concat()
}

/// The key that a staged row is to have.
pub(crate) fn unstaged(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(&[STAGE])
}

/// The range in which the rows of `range` are staged.
pub(crate) fn staged_range(range: &KeyRange) -> KeyRange {
    let end = range.end.as_deref().map_or_else(|| vec![STAGE + 1], staged);
    KeyRange { start: staged(&range.start), end: Some(end) }
}

/// The range of all staged rows.
pub(crate) fn stage() -> KeyRange {
    KeyRange::prefix([STAGE])
}

pub(crate) fn fork(replica: ReplicaId) -> Key {
    [&[META], FORK, replica.as_bytes()].concat()
}

pub(crate) fn forks() -> KeyRange {
    KeyRange::prefix([&[META], FORK].concat())
}

pub(crate) fn peer(replica: ReplicaId) -> Key {
    [&[PEER], &replica.as_bytes()[..]].concat()
}

pub(crate) fn peers() -> KeyRange {
    KeyRange::prefix([PEER])
}

/// The key of the value beside `record` that the commit `seq` of `replica` put.
pub(crate) fn beside(record: &RecordKey, replica: ReplicaId, seq: u64) -> Key {
    [&beside_prefix(record)[..], replica.as_bytes(), &seq.to_be_bytes()].concat()
}

/// The range of all values beside `record`.
pub(crate) fn besides_of(record: &RecordKey) -> KeyRange {
    KeyRange::prefix(beside_prefix(record))
}

/// The range of all values beside records of the model of `record` whose keys are as long as its key.
pub(crate) fn besides_like(record: &RecordKey) -> KeyRange {
    let mut prefix = beside_prefix(record);
    prefix.truncate(prefix.len() - record.id_bytes().len());
    KeyRange::prefix(prefix)
}

pub(crate) fn besides() -> KeyRange {
    KeyRange::prefix([BESIDE])
}

/// The prefix of the values beside `record`. It has the key's length, so that the range of one record does not reach
/// into that of another.
fn beside_prefix(record: &RecordKey) -> Key {
    let len: u32 = length(record.as_bytes().len());
    [&[BESIDE], &len.to_be_bytes()[..], record.as_bytes()].concat()
}

/// The key of the debt of the projection named `name` for the record whose key has these bytes.
pub(crate) fn debt(name: &str, record: &[u8]) -> Key {
    [&debt_prefix(name)[..], record].concat()
}

/// The range of all debts of the projection named `name`.
pub(crate) fn debts_of(name: &str) -> KeyRange {
    KeyRange::prefix(debt_prefix(name))
}

/// The prefix of the debts of a projection. It has the length of the name, so that the range of one projection does not
/// reach into that of another.
fn debt_prefix(name: &str) -> Key {
    [&[DEBT, length(name.len())], name.as_bytes()].concat()
}

pub(crate) fn head(replica: ReplicaId) -> Key {
    [&[HEAD], &replica.as_bytes()[..]].concat()
}

pub(crate) fn heads() -> KeyRange {
    KeyRange::prefix([HEAD])
}

/// Whether a snapshot has rows under this key: a record, or a value beside one.
pub(crate) fn is_in_snapshot(key: &[u8]) -> bool {
    matches!(key.first(), Some(&BESIDE | SHARED..RECORDS_END))
}

pub(crate) fn records() -> KeyRange {
    KeyRange::new([SHARED], [RECORDS_END])
}

pub(crate) fn log(replica: ReplicaId, seq: u64) -> Key {
    [&[LOG], &replica.as_bytes()[..], &seq.to_be_bytes()].concat()
}

pub(crate) fn logs(replica: ReplicaId) -> KeyRange {
    KeyRange::prefix([&[LOG], &replica.as_bytes()[..]].concat())
}

pub(crate) fn kept(replica: ReplicaId, seq: u64, record: &RecordKey) -> Key {
    [&[KEPT], &replica.as_bytes()[..], &seq.to_be_bytes(), record.as_bytes()].concat()
}

pub(crate) fn is_log(key: &[u8]) -> bool {
    key.first() == Some(&LOG)
}

pub(crate) fn is_record(key: &[u8]) -> bool {
    key.first().is_some_and(|kind| (SHARED..RECORDS_END).contains(kind))
}

pub(crate) fn is_kept(key: &[u8]) -> bool {
    key.first() == Some(&KEPT)
}

pub(crate) fn is_head(key: &[u8]) -> bool {
    key.first() == Some(&HEAD)
}

pub(crate) fn all_kept() -> KeyRange {
    KeyRange::prefix([KEPT])
}

/// The range of the log rows of a stream from `first` on.
pub(crate) fn logs_from(replica: ReplicaId, first: u64) -> KeyRange {
    KeyRange { start: log(replica, first), ..logs(replica) }
}

/// The ranges of the log rows and the kept values of a stream from `first` up to `last`, both included.
pub(crate) fn log_and_kept(replica: ReplicaId, first: u64, last: u64) -> [KeyRange; 2] {
    let at = |kind: u8, seq: u64| [&[kind], &replica.as_bytes()[..], &seq.to_be_bytes()].concat();
    let range = |kind| KeyRange::new(at(kind, first), at(kind, last.saturating_add(1)));
    [range(LOG), range(KEPT)]
}

#[cfg(test)]
mod tests;
