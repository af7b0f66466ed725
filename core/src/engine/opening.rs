//! Opening a store: the rows to read, and the engine that they make.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::clock::{Now, WallMs};
use crate::error::{Error, OpenError};
use crate::events::{Damage, DamagedPart, Restored};
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::limits::Limits;
use crate::member::Member;
use crate::model::{self, Registry};
use crate::projection::Declared;
use crate::storage::{Entry, Key, KeyRange, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::{
    ForkRow, FormatError, Head, Identity, InstallRow, ModelSeen, Phase, ProjectionRow, clock_from_value,
    clock_value, forgotten_from_value, introducer_from_value, introducer_value, peer_from_value, record,
};
use crate::syncable::Syncable;

use super::acks::{Acks, Hellos};
use super::adding::Adding;
use super::checks::Checks;
use super::context::Context;
use super::damages::Damages;
use super::doubts::Doubts;
use super::ends::LogEnd;
use super::install::{Install, Stage};
use super::ledger::Ledger;
use super::live::Live;
use super::looks::Looks;
use super::members::Members;
use super::peer::Peers;
use super::pins::Pins;
use super::portion::Portion;
use super::pruner::Pruner;
use super::pull::Puller;
use super::quorum::Quorum;
use super::reads::Reads;
use super::relays::Relays;
use super::retention::Retention;
use super::rows::Rows;
use super::serve::Serving;
use super::stream::Streams;
use super::stream::inbox::Inbox;
use super::tombstones::Tombstones;
use super::upkeep::Upkeep;
use super::waits::Waits;
use super::writes::Writes;
use super::{Action, Commit, Engine, Marks, NewValue, Pen, Rules, Staged};

/// The settings with which the app opens a store.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) device: Option<DeviceId>,
    pub(crate) group: Option<GroupId>,
    /// The replica from which a new store learns the group, unless it founds the group.
    pub(crate) introducer: Option<ReplicaId>,
    /// Whether there is a transport.
    pub(crate) networked: bool,
    /// The seed of the engine's randomness: of its session and of its pauses.
    pub(crate) seed: u64,
    pub(crate) limits: Arc<Limits>,
    pub(crate) rules: Rules,
    /// The id of the replica, if the store is new.
    pub(crate) replica: ReplicaId,
    /// The device of the replica, if the store is new and the app names none.
    pub(crate) new_device: DeviceId,
    /// The projections that the app registered.
    pub(crate) projections: Vec<Declared>,
    /// The ranges of records that projections derive from.
    pub(crate) projected: Vec<KeyRange>,
    /// Where the store lies, for messages.
    pub(crate) location: String,
    /// Whether the engine asserts its invariants after every input.
    pub(crate) checked: bool,
}

/// The rows of a store that an opening needs.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The values of [`Contents::keys`].
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
    /// The highest stamps of tombstones that were dropped.
    pub(crate) forgotten: Vec<Entry>,
    /// The row of a snapshot that is being installed, with its heads and its member records.
    pub(crate) install: Option<Value>,
    pub(crate) staged_heads: Vec<Entry>,
    pub(crate) staged_members: Vec<Entry>,
    /// The end of the log of each stream that has a head.
    pub(crate) ends: BTreeMap<ReplicaId, LogEnd>,
    /// Whether a value lies beside any record.
    pub(crate) besides: bool,
}

impl Contents {
    /// The keys to read first.
    pub(crate) fn keys() -> [Key; 3] {
        [keys::identity(), keys::clock(), keys::introducer()]
    }
}

/// Makes the engine of a store, and the batch to write before the engine may run.
///
/// The first opening writes the identity and, as commit 1 of the stream, the founder's member record.
pub(crate) fn open(
    ask: Ask,
    found: &Contents,
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
    let mut heads = read_heads(&found.heads).map_err(format)?;
    let unproven = prove_heads(&mut batch, identity.group, &mut heads, &found.ends);
    let missing = |what| format(FormatError::Damaged { what });
    heads.get(&identity.replica).ok_or_else(|| missing("the own head, which is missing,"))?;
    let clock = found.clock.as_deref().ok_or_else(|| missing("the clock, which is missing,"))?;
    let clock = clock_from_value(identity.replica, clock).map_err(format)?;
    let forgotten = read_forgotten(&found.forgotten).map_err(format)?;
    let follows = ask.rules.clock_follows;
    let seen = heads.values().map(|head| head.stamp).chain(forgotten.values().copied());
    let seen = seen.filter(|stamp| follows || stamp.replica() == identity.replica);
    let clock = prove_clock(&mut batch, clock, seen, unproven.is_empty(), ask.limits.max_drift_ms);
    let members = read_members(&found.members).map_err(format)?;
    // Records that a snapshot has put in their places do not count before its switch.
    let members = if puts_in_place(found) { BTreeMap::new() } else { members };
    let seen = read_models(&found.models).map_err(format)?;
    note_models(&mut batch, registry, &seen, &location)?;
    forget_projections(&mut batch, &ask.projections, &found.projections);
    let introducer = found.introducer.as_deref().map(introducer_from_value).transpose().map_err(format)?;
    // The app may name another introducer: the first one may be gone for good.
    let introducer = introducer.map(|before| ask.introducer.unwrap_or(before));
    let clock = HlcGenerator::new(clock, ask.limits.max_drift_ms);
    let mut ledger = Ledger::opened(identity.group, heads, clock);
    unproven.iter().for_each(|damage| ledger.leave_out(damage.stream));
    forgotten.iter().for_each(|(model, stamp)| ledger.forget(model, *stamp));
    let asked_introducer = ask.introducer;
    let mut engine = assemble(ask, identity, ledger, members, introducer, found.besides, registry, now);
    if engine.members.awaits_membership()
        && let Some(asked) = asked_introducer
    {
        batch.put(keys::introducer(), introducer_value(asked));
    }
    for (replica, value) in named(&found.peers, "a peer's key", |key| match key {
        StoredKey::Peer(replica) => Some(replica),
        _ => None,
    })
    .map_err(format)?
    {
        let (mut acked, covered) = peer_from_value(value).map_err(format)?;
        // An acknowledgement of commits that do not exist is damaged. It would stand for ever, since none ever falls.
        let own = engine.ledger.own().seq;
        acked.retain(|stream, point| *stream != identity.replica || point.seq <= own);
        engine.quorum.remember(replica, &acked, &covered);
        engine.peers.remember(replica, acked);
    }
    for (stream, value) in named(&found.forks, "a fork's key", |key| match key {
        StoredKey::Fork(replica) => Some(replica),
        _ => None,
    })
    .map_err(format)?
    {
        let proof = ForkRow::parse(value).map_err(format)?;
        if stream == identity.replica {
            engine.streams.take_proof(Restored { stream: proof.stream, seq: proof.seq }, stream);
            engine.streams.prove(stream, proof);
        } else {
            engine.streams.remember_fork(stream, proof);
        }
    }
    unproven.into_iter().for_each(|damage| engine.note_damage(damage));
    if let Some(row) = &found.install {
        open_install(&mut engine, &mut batch, row, found).map_err(format)?;
    }
    let streams: Vec<_> = engine.ledger.heads().keys().copied().collect();
    engine.floors_may_rise(streams);
    Ok((engine, batch))
}

/// Whether a snapshot is being put in its place, and is not whole.
fn puts_in_place(found: &Contents) -> bool {
    let row = found.install.as_ref().and_then(|row| InstallRow::parse(row).ok());
    row.is_some_and(|row| row.in_place && row.phase.is_before_switch())
}

/// Goes on with the snapshot that is being installed. What another version of the library has staged, and does not count yet,
/// is given up.
fn open_install(
    engine: &mut Engine,
    batch: &mut WriteBatch,
    row: &[u8],
    found: &Contents,
) -> Result<(), FormatError> {
    let bare = |entries: &[Entry]| -> Vec<Entry> {
        let unstaged = |entry: &Entry| {
            Some(Entry { key: keys::unstaged(&entry.key)?.to_vec(), value: entry.value.clone() })
        };
        entries.iter().filter_map(unstaged).collect()
    };
    let row = match InstallRow::parse(row) {
        Ok(row) => row,
        Err(FormatError::Version { .. })
            if InstallRow::phase_of(row).is_some_and(Phase::is_before_switch) =>
        {
            if engine.members.awaits_membership() {
                // It may have put its records in their places.
                batch.delete_range(keys::records());
                batch.delete_range(keys::besides());
            }
            batch.delete_range(keys::stage());
            batch.delete(keys::install());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let staged = if row.in_place { found.members.clone() } else { bare(&found.staged_members) };
    let (heads, members) = (read_heads(&bare(&found.staged_heads))?, read_members(&staged)?);
    let here = (&*engine.ledger, &engine.members);
    let stage = Stage::new(row, heads, members.into_values(), &engine.context, here);
    if !stage.row.phase.is_before_switch() {
        // Members count from the switch on, also those whose records are still to be folded: the introducer may be gone.
        engine.members.apply(stage.members.ids().filter_map(|id| stage.members.get(id).cloned()).collect());
    }
    // Records that a snapshot has put in their places are not projected: the app projects now, so it needs a stage and a fold.
    let gives_up = puts_in_place(found) && !engine.context.projected.is_empty();
    engine.install = Install::opened(Some(stage));
    if gives_up {
        engine.install.give_up();
    }
    Ok(())
}

/// Compares each head with the end of its log, and puts right what that proves. Returns the heads that are not proven:
/// their streams must not go on from there.
fn prove_heads(
    batch: &mut WriteBatch,
    group: GroupId,
    heads: &mut BTreeMap<ReplicaId, Head>,
    ends: &BTreeMap<ReplicaId, LogEnd>,
) -> Vec<Damage> {
    let mut unproven = Vec::new();
    for (stream, head) in heads {
        match ends.get(stream).and_then(|end| end.proves(group, *stream, head)) {
            Some(proven) if proven == *head => {}
            Some(proven) => {
                *head = proven;
                batch.put(keys::head(*stream), head.to_value());
            }
            None => {
                // A stamp that is damaged too must not move the clock: it never goes back.
                head.stamp = Hlc::new(WallMs::MIN, 0, *stream);
                unproven.push(Damage { stream: *stream, seq: head.seq, part: DamagedPart::Head });
            }
        }
    }
    unproven
}

/// Compares the clock with the stamps of the heads and of what was forgotten, and puts it right. Whatever was issued or seen
/// is in a head: so a clock below them is damaged, and so is one that is far above, if all heads are whole.
fn prove_clock(
    batch: &mut WriteBatch,
    stored: Hlc,
    heads: impl Iterator<Item = Hlc>,
    all_are_whole: bool,
    max_drift_ms: u64,
) -> Hlc {
    let time = |stamp: Hlc| Hlc::new(stamp.wall(), stamp.counter(), stored.replica());
    let seen = heads.map(time).max().unwrap_or(stored);
    let is_far_above = stored.wall() > seen.wall().saturating_add(max_drift_ms);
    let clock = if is_far_above && all_are_whole { seen } else { stored.max(seen) };
    if clock != stored {
        batch.put(keys::clock(), clock_value(clock));
    }
    clock
}

/// The first opening of an empty store.
fn create(
    ask: Ask,
    found: &Contents,
    registry: &Arc<Registry>,
    now: Now,
) -> Result<(Engine, WriteBatch), OpenError> {
    let location = ask.location.clone();
    if found.any {
        return Err(OpenError::NotAStore { location });
    }
    let Some(group) = ask.group else { return Err(OpenError::NoGroup { location }) };
    let device = ask.device.unwrap_or(ask.new_device);
    let identity = Identity { group, device, replica: ask.replica };
    let mut ledger = Ledger::new(group, HlcGenerator::fresh(identity.replica, ask.limits.max_drift_ms));
    let mut batch = WriteBatch::new();
    let mut members = BTreeMap::new();
    let introducer = ask.introducer;
    if let Some(introducer) = introducer {
        // A joiner may not commit yet, so it writes no record: its own stream begins empty.
        batch.put(keys::clock(), clock_value(ledger.durable_clock()));
        batch.put(keys::introducer(), introducer_value(introducer));
        batch.put(keys::head(identity.replica), ledger.begin_own_stream().to_value());
    } else {
        let founder = Member::new(identity.replica, device);
        members.insert(identity.replica, founder);
    }
    let founder = members.get(&identity.replica).cloned();
    let mut engine = assemble(ask, identity, ledger, members, introducer, false, registry, now);
    if let Some(founder) = founder {
        let record = RecordKey::new::<Member>(&founder.sync_id());
        let change = Staged { record, action: Action::Put(new_member(&founder)?), own_merge: true };
        let mut pen = Pen::new(&engine.context, &engine.ledger, engine.now.wall.clone(), 0, false);
        let decision = pen.decide_alone(Commit { changes: vec![change], bytes: 0 }, vec![None]);
        let decision = decision.map_err(|error| match error {
            Error::Clock(error) => OpenError::Clock(error),
            _ => OpenError::Format { location: location.clone(), source: DAMAGED_MEMBER },
        })?;
        engine.used(pen);
        batch = decision.batch;
        let ledger = Arc::make_mut(&mut engine.ledger);
        ledger.apply(decision.heads, decision.clock);
    }
    batch.put(keys::identity(), identity.to_value());
    note_models(&mut batch, registry, &BTreeMap::new(), &location)?;
    Ok((engine, batch))
}

const DAMAGED_MEMBER: FormatError = FormatError::Damaged { what: "a member record" };

fn new_member(member: &Member) -> Result<NewValue, OpenError> {
    // A `Member` has no field that could fail to encode.
    let damaged = |_| OpenError::Format { location: String::new(), source: DAMAGED_MEMBER };
    model::encode(member, usize::MAX).map_err(damaged)
}

/// Puts the machines of an engine together.
#[allow(clippy::too_many_arguments, reason = "each is a part of the store, and none of them more than that")]
fn assemble(
    ask: Ask,
    identity: Identity,
    ledger: Ledger,
    members: BTreeMap<ReplicaId, Member>,
    introducer: Option<ReplicaId>,
    besides: bool,
    models: &Arc<Registry>,
    now: Now,
) -> Engine {
    let mut rng = fastrand::Rng::with_seed(ask.seed);
    let context = Context {
        identity,
        limits: ask.limits,
        rules: ask.rules,
        models: Arc::clone(models),
        projected: ask.projected,
        networked: ask.networked,
        session: rng.u64(..),
        checked: ask.checked,
    };
    Engine {
        members: Members::new(&context, members, introducer),
        streams: Streams::opened(identity.replica, &ledger),
        peers: Peers::default(),
        inbox: Inbox::default(),
        portion: Portion::default(),
        puller: Puller::new(&mut rng),
        live: Live::default(),
        acks: Acks::default(),
        hellos: Hellos::default(),
        relays: Relays::default(),
        adding: Adding::default(),
        waits: Waits::default(),
        writes: Writes::default(),
        upkeep: Upkeep::new(besides, !context.projected.is_empty()),
        reads: Reads::default(),
        serving: Serving::default(),
        damages: Damages::default(),
        doubts: Doubts::default(),
        looks: Looks::default(),
        checks: Checks::default(),
        install: Install::default(),
        pins: Pins::default(),
        quorum: Quorum::opened(now.mono),
        pruner: Pruner::opened(now.mono),
        retention: Retention::default(),
        tombstones: Tombstones::opened(now.mono, context.rules.prunes_by_acks),
        rows: Rows::default(),
        last_reading: now.wall.as_ref().ok().map(|wall| (*wall, now.mono)),
        now,
        rng,
        closing: false,
        marks: Marks::default(),
        effects: VecDeque::new(),
        ledger: Arc::new(ledger),
        context: Arc::new(context),
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

/// Deletes the row and the debts of each projection that this app does not have, or has in another version. Its table
/// misses the commits from here on, so the projection must be rebuilt before it is used again.
fn forget_projections(
    batch: &mut WriteBatch,
    declared: &[Declared],
    found: &BTreeMap<String, ProjectionRow>,
) {
    for (name, row) in found {
        if !declared.iter().any(|projection| projection.name == name && projection.fits(row)) {
            batch.delete(keys::projection(name));
            batch.delete_range(keys::debts_of(name));
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

/// The replicas that are named by the keys of `entries`, and their values.
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

fn read_forgotten(entries: &[Entry]) -> Result<BTreeMap<String, Hlc>, FormatError> {
    let mut forgotten = BTreeMap::new();
    for Entry { key, value } in entries {
        let Some(StoredKey::Forgotten(model)) = StoredKey::parse(key) else {
            return Err(FormatError::Damaged { what: "the key of a forgotten stamp" });
        };
        forgotten.insert(model, forgotten_from_value(value)?);
    }
    Ok(forgotten)
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
