//! Opening a store: what must be read, and what it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::stops::Stop;
use super::sync::Replication;
use super::{Action, Commit, Engine, NewValue, Pen, Rules, Staged, Step, Ticket};
use crate::clock::Now;
use crate::error::{Error, OpenError};
use crate::events::{Restored, StreamStop};
use crate::hlc::HlcGenerator;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::limits::Limits;
use crate::member::{Member, MemberState};
use crate::model::{self, Registry};
use crate::projection::Declared;
use crate::storage::{Entry, Key, KeyRange, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::{
    FormatError, Head, Identity, ModelSeen, ProjectionRow, clock_from_value, clock_value, fork_from_value,
    introducer_from_value, introducer_value, peer_from_value, record,
};
use crate::syncable::Syncable;

/// What the app asked for.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) device: Option<DeviceId>,
    pub(crate) group: Option<GroupId>,
    /// From whom a new store learns the group, if it does not found it.
    pub(crate) introducer: Option<ReplicaId>,
    /// Whether there is a transport.
    pub(crate) networked: bool,
    /// Where the engine's randomness comes from: its session and when it tries again.
    pub(crate) seed: u64,
    pub(crate) limits: Arc<Limits>,
    pub(crate) rules: Rules,
    /// The replica to be, should the store be new.
    pub(crate) replica: ReplicaId,
    /// The projections that the app registered.
    pub(crate) projections: Vec<Declared>,
    /// The records that they derive from.
    pub(crate) projected: Vec<KeyRange>,
    /// Where the store lies, for messages.
    pub(crate) location: String,
}

/// What was found in the store.
#[derive(Debug)]
pub(crate) struct Found {
    /// The values of [`Found::keys`].
    pub(crate) identity: Option<Value>,
    pub(crate) clock: Option<Value>,
    pub(crate) introducer: Option<Value>,
    /// Whether there is any entry at all.
    pub(crate) any: bool,
    pub(crate) models: Vec<Entry>,
    pub(crate) projections: BTreeMap<String, ProjectionRow>,
    pub(crate) heads: Vec<Entry>,
    pub(crate) members: Vec<Entry>,
    pub(crate) peers: Vec<Entry>,
    pub(crate) forks: Vec<Entry>,
}

impl Found {
    /// The keys to read first.
    pub(crate) fn keys() -> [Key; 3] {
        [keys::identity(), keys::clock(), keys::introducer()]
    }
}

/// Decides what an opened store is, and what must be written before the engine may run.
///
/// The first opening writes the identity and, as commit 1 of the stream, the founder's member record.
pub(crate) fn open(
    ask: Ask,
    found: &Found,
    registry: &Arc<Registry>,
    now: Now,
) -> Result<(Engine, WriteBatch), OpenError> {
    let location = ask.location.clone();
    let format = |source: FormatError| OpenError::Format { location: location.clone(), source };
    let mut batch = WriteBatch::new();
    let Some(identity) = &found.identity else {
        return create(ask, found, registry, now);
    };
    let identity = Identity::parse(identity).map_err(format)?;
    if let Some(asked) = ask.group.filter(|asked| *asked != identity.group) {
        return Err(OpenError::OtherGroup { location, stored: identity.group, asked });
    }
    if let Some(asked) = ask.device.filter(|asked| *asked != identity.device) {
        return Err(OpenError::OtherDevice { location, stored: identity.device, asked });
    }
    let heads = read_heads(&found.heads).map_err(format)?;
    let missing = |what| format(FormatError::Damaged { what });
    let own = heads.get(&identity.replica).ok_or_else(|| missing("the own head, which is missing,"))?;
    let clock = found.clock.as_deref().ok_or_else(|| missing("the clock, which is missing,"))?;
    let clock = clock_from_value(identity.replica, clock).map_err(format)?.max(own.stamp);
    let members = read_members(&found.members).map_err(format)?;
    let seen = read_models(&found.models).map_err(format)?;
    note_models(&mut batch, registry, &seen, &location)?;
    forget_projections(&mut batch, &ask.projections, &found.projections);
    let (kept_up_to, asked_introducer) = (own.seq, ask.introducer);
    let clock = HlcGenerator::new(clock, ask.limits.max_drift_ms);
    let mut engine = blank(ask, identity, clock, registry, now);
    // What other streams had when this one went on last is not stored, so its next commit comes after all of it.
    let moved: BTreeSet<_> = heads.keys().copied().filter(|replica| *replica != identity.replica).collect();
    engine.pen = Pen { heads, moved, kept_up_to, ..engine.pen };
    engine.members = members;
    let introducer = found.introducer.as_deref().map(introducer_from_value).transpose().map_err(format)?;
    if let Some(before) = introducer.filter(|_| !engine.is_member()) {
        // Another one, should the first have gone for good.
        let introducer = asked_introducer.unwrap_or(before);
        if introducer != before {
            batch.put(keys::introducer(), introducer_value(introducer));
        }
        engine.sync.introducer = Some(introducer);
    }
    for (replica, value) in named(&found.peers, "a peer's key", |key| match key {
        StoredKey::Peer(replica) => Some(replica),
        _ => None,
    })
    .map_err(format)?
    {
        engine.sync.peers.entry(replica).or_default().acked = peer_from_value(value).map_err(format)?;
    }
    for (stream, value) in named(&found.forks, "a fork's key", |key| match key {
        StoredKey::Fork(replica) => Some(replica),
        _ => None,
    })
    .map_err(format)?
    {
        let (proof, seq) = fork_from_value(value).map_err(format)?;
        if stream == identity.replica {
            engine.sync.restored = Some(Restored { stream: proof, seq });
        } else {
            engine.sync.stops.insert(stream, Stop::of(stream, StreamStop::Forked { seq }));
        }
    }
    Ok((engine, batch))
}

/// The first opening of an empty store.
fn create(
    ask: Ask,
    found: &Found,
    registry: &Arc<Registry>,
    now: Now,
) -> Result<(Engine, WriteBatch), OpenError> {
    let location = ask.location.clone();
    if found.any {
        return Err(OpenError::NotAStore { location });
    }
    let Some(group) = ask.group else { return Err(OpenError::NoGroup { location }) };
    let Some(device) = ask.device else { return Err(OpenError::NoDevice { location }) };
    let identity = Identity { group, device, replica: ask.replica };
    let clock = HlcGenerator::fresh(identity.replica, ask.limits.max_drift_ms);
    let introducer = ask.introducer;
    let mut engine = blank(ask, identity, clock, registry, now);
    if let Some(introducer) = introducer {
        return join(engine, introducer, registry, &location);
    }

    let founder = Member { replica: identity.replica, device, state: MemberState::Active };
    let record = RecordKey::new::<Member>(&founder.sync_id());
    let change = Staged { record, action: Action::Put(new_member(&founder)?), own_merge: true };
    let decision =
        engine.pen.decide(vec![(Ticket(0), Commit { changes: vec![change], bytes: 0 })], vec![None]);
    if let Some((_, Err(Error::Clock(error)))) = decision.settled.into_iter().next() {
        return Err(OpenError::Clock(error));
    }
    let mut batch = decision.batch;
    batch.put(keys::identity(), identity.to_value());
    note_models(&mut batch, registry, &BTreeMap::new(), &location)?;
    engine.pen.heads.extend(decision.heads);
    engine.durable_clock = decision.clock;
    engine.members.insert(identity.replica, founder);
    Ok((engine, batch))
}

/// The first opening of a store that joins a group: it has an identity, and nothing to say yet.
fn join(
    mut engine: Engine,
    introducer: ReplicaId,
    registry: &Registry,
    location: &str,
) -> Result<(Engine, WriteBatch), OpenError> {
    let identity = engine.pen.identity;
    let mut batch = WriteBatch::new();
    batch.put(keys::identity(), identity.to_value());
    batch.put(keys::clock(), clock_value(engine.pen.clock.high_water()));
    batch.put(keys::introducer(), introducer_value(introducer));
    let head = Head::start(identity.replica);
    batch.put(keys::head(identity.replica), head.to_value());
    note_models(&mut batch, registry, &BTreeMap::new(), location)?;
    engine.pen.heads.insert(identity.replica, head);
    engine.sync.introducer = Some(introducer);
    Ok((engine, batch))
}

fn new_member(member: &Member) -> Result<NewValue, OpenError> {
    // The type is ours and holds nothing that could fail to encode.
    model::encode(member, usize::MAX).map_err(|_| OpenError::Format {
        location: String::new(),
        source: FormatError::Damaged { what: Member::SYNC_MODEL },
    })
}

fn blank(ask: Ask, identity: Identity, clock: HlcGenerator, models: &Arc<Registry>, now: Now) -> Engine {
    let last_reading = now.wall.as_ref().ok().map(|wall| (*wall, now.mono));
    let durable_clock = clock.high_water();
    let pen = Pen {
        identity,
        clock,
        heads: BTreeMap::new(),
        kept_up_to: 0,
        wall: now.wall,
        stable: 0,
        moved: BTreeSet::new(),
        connected: false,
        models: Arc::clone(models),
        limits: Arc::clone(&ask.limits),
        rules: ask.rules,
        marks: 0,
    };
    Engine {
        pen,
        limits: ask.limits,
        rules: ask.rules,
        durable_clock,
        members: BTreeMap::new(),
        projected: ask.projected,
        sync: Replication::new(ask.networked, ask.seed),
        mono: now.mono,
        was_local: false,
        closing: false,
        last_reading,
        pending: VecDeque::new(),
        step: Step::Idle,
        effects: VecDeque::new(),
    }
}

/// Notes new models and newer schemas, and refuses a model whose ownership changed.
fn note_models(
    batch: &mut WriteBatch,
    registry: &Registry,
    seen: &BTreeMap<String, ModelSeen>,
    location: &str,
) -> Result<(), OpenError> {
    for (model, entry) in registry.models() {
        let own_merge = entry.merge.is_some();
        let now = ModelSeen { device_owned: entry.device_owned, own_merge, schema: entry.schema };
        match seen.get(model) {
            Some(before) if before.own_merge != own_merge => {
                return Err(OpenError::MergeChanged {
                    location: location.into(),
                    model,
                    ty: entry.ty,
                    stored_own_merge: before.own_merge,
                });
            }
            Some(before) if before.device_owned != now.device_owned => {
                return Err(OpenError::OwnershipChanged {
                    location: location.into(),
                    model,
                    ty: entry.ty,
                    stored_device_owned: before.device_owned,
                });
            }
            Some(before) if before.schema >= now.schema => {}
            _ => batch.put(keys::model(model), now.to_value()),
        }
    }
    Ok(())
}

/// Forgets how far a projection was which this app does not have, or has in another version: it will not follow the
/// commits from here on, so it must be rebuilt before it is used again.
fn forget_projections(
    batch: &mut WriteBatch,
    declared: &[Declared],
    found: &BTreeMap<String, ProjectionRow>,
) {
    for (name, row) in found {
        if !declared.iter().any(|projection| projection.name == name && projection.fits(row)) {
            batch.delete(keys::projection(name));
        }
    }
}

/// Reads the rows of projections.
pub(crate) fn read_projections(entries: &[Entry]) -> Result<BTreeMap<String, ProjectionRow>, FormatError> {
    let mut projections = BTreeMap::new();
    for Entry { key, value } in entries {
        let Some(StoredKey::Projection(name)) = StoredKey::parse(key) else {
            return Err(FormatError::Damaged { what: "a projection's key" });
        };
        projections.insert(name, ProjectionRow::parse(value)?);
    }
    Ok(projections)
}

/// The replicas that the keys of `entries` name, and their values.
fn named<'a>(
    entries: &'a [Entry],
    what: &'static str,
    replica: impl Fn(StoredKey) -> Option<ReplicaId>,
) -> Result<Vec<(ReplicaId, &'a [u8])>, FormatError> {
    let named = entries.iter().map(|Entry { key, value }| {
        let replica = StoredKey::parse(key).and_then(&replica).ok_or(FormatError::Damaged { what })?;
        Ok((replica, value.as_slice()))
    });
    named.collect()
}

fn read_heads(entries: &[Entry]) -> Result<BTreeMap<ReplicaId, Head>, FormatError> {
    let heads = named(entries, "a head's key", |key| match key {
        StoredKey::Head(replica) => Some(replica),
        _ => None,
    })?;
    heads.into_iter().map(|(replica, value)| Ok((replica, Head::parse(replica, value)?))).collect()
}

fn read_models(entries: &[Entry]) -> Result<BTreeMap<String, ModelSeen>, FormatError> {
    let mut models = BTreeMap::new();
    for Entry { key, value } in entries {
        let Some(StoredKey::Model(name)) = StoredKey::parse(key) else {
            return Err(FormatError::Damaged { what: "a model's key" });
        };
        models.insert(name, ModelSeen::parse(value)?);
    }
    Ok(models)
}

fn read_members(entries: &[Entry]) -> Result<BTreeMap<ReplicaId, Member>, FormatError> {
    let mut members = BTreeMap::new();
    for Entry { value, .. } in entries {
        let (header, value) = record::parse(value)?;
        if !header.tombstone {
            let member: Member =
                model::decode_bytes(value).map_err(|_| FormatError::Damaged { what: "a member record" })?;
            members.insert(member.replica, member);
        }
    }
    Ok(members)
}
