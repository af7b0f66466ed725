//! Opening a store: what must be read, and what it says.

use std::collections::{BTreeMap, VecDeque};

use super::{Action, Commit, Engine, NewValue, Pen, Rules, Staged, Step, Ticket};
use crate::clock::Now;
use crate::error::{Error, OpenError};
use crate::hlc::HlcGenerator;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::limits::Limits;
use crate::member::{Member, MemberState};
use crate::model::{self, Registry};
use crate::projection::Declared;
use crate::storage::{Entry, Key, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::{FormatError, Head, Identity, ModelSeen, ProjectionRow, clock_from_value, record};
use crate::syncable::Syncable;

/// What the app asked for.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) device: Option<DeviceId>,
    pub(crate) group: Option<GroupId>,
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    /// The replica to be, should the store be new.
    pub(crate) replica: ReplicaId,
    /// The projections that the app registered.
    pub(crate) projections: Vec<Declared>,
    /// Where the store lies, for messages.
    pub(crate) location: String,
}

/// What was found in the store.
#[derive(Debug)]
pub(crate) struct Found {
    /// The values of [`Found::keys`].
    pub(crate) identity: Option<Value>,
    pub(crate) clock: Option<Value>,
    /// Whether there is any entry at all.
    pub(crate) any: bool,
    pub(crate) models: Vec<Entry>,
    pub(crate) projections: BTreeMap<String, ProjectionRow>,
    pub(crate) heads: Vec<Entry>,
    pub(crate) members: Vec<Entry>,
}

impl Found {
    /// The keys to read first.
    pub(crate) fn keys() -> [Key; 2] {
        [keys::identity(), keys::clock()]
    }
}

/// Decides what an opened store is, and what must be written before the engine may run.
///
/// The first opening writes the identity and, as commit 1 of the stream, the founder's member record.
pub(crate) fn open(
    ask: Ask,
    found: &Found,
    registry: &Registry,
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
    let kept_up_to = own.seq;
    let clock = HlcGenerator::new(clock, ask.limits.max_drift_ms);
    let mut engine = blank(ask, identity, clock, now);
    engine.pen = Pen { heads, kept_up_to, ..engine.pen };
    engine.members = members;
    Ok((engine, batch))
}

/// The first opening of an empty store.
fn create(ask: Ask, found: &Found, registry: &Registry, now: Now) -> Result<(Engine, WriteBatch), OpenError> {
    let location = ask.location.clone();
    if found.any {
        return Err(OpenError::NotAStore { location });
    }
    let Some(group) = ask.group else { return Err(OpenError::NoGroup { location }) };
    let Some(device) = ask.device else { return Err(OpenError::NoDevice { location }) };
    let identity = Identity { group, device, replica: ask.replica };
    let clock = HlcGenerator::fresh(identity.replica, ask.limits.max_drift_ms);
    let mut engine = blank(ask, identity, clock, now);

    let founder = Member { replica: identity.replica, device, state: MemberState::Active };
    let record = RecordKey::new::<Member>(&founder.sync_id());
    let change = Staged { record, action: Action::Put(new_member(&founder)?) };
    let decision =
        engine.pen.decide(vec![(Ticket(0), Commit { changes: vec![change], bytes: 0 })], vec![None]);
    if let Some((_, Err(Error::Clock(error)))) = decision.settled.into_iter().next() {
        return Err(OpenError::Clock(error));
    }
    let mut batch = decision.batch;
    batch.put(keys::identity(), identity.to_value());
    note_models(&mut batch, registry, &BTreeMap::new(), &location)?;
    engine.pen.heads.insert(identity.replica, decision.head);
    engine.durable_clock = decision.clock;
    engine.members.insert(identity.replica, founder.state);
    Ok((engine, batch))
}

fn new_member(member: &Member) -> Result<NewValue, OpenError> {
    // The type is ours and holds nothing that could fail to encode.
    model::encode(member, usize::MAX).map_err(|_| OpenError::Format {
        location: String::new(),
        source: FormatError::Damaged { what: Member::SYNC_MODEL },
    })
}

fn blank(ask: Ask, identity: Identity, clock: HlcGenerator, now: Now) -> Engine {
    let last_reading = now.wall.as_ref().ok().map(|wall| (*wall, now.mono));
    let durable_clock = clock.high_water();
    let pen = Pen { identity, clock, heads: BTreeMap::new(), kept_up_to: 0, wall: now.wall, stable: 0 };
    Engine {
        pen,
        limits: ask.limits,
        rules: ask.rules,
        durable_clock,
        members: BTreeMap::new(),
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
        let now = ModelSeen { device_owned: entry.device_owned, schema: entry.schema };
        match seen.get(model) {
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

fn read_heads(entries: &[Entry]) -> Result<BTreeMap<ReplicaId, Head>, FormatError> {
    let mut heads = BTreeMap::new();
    for Entry { key, value } in entries {
        let Some(StoredKey::Head(replica)) = StoredKey::parse(key) else {
            return Err(FormatError::Damaged { what: "a head's key" });
        };
        heads.insert(replica, Head::parse(replica, value)?);
    }
    Ok(heads)
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

fn read_members(entries: &[Entry]) -> Result<BTreeMap<ReplicaId, MemberState>, FormatError> {
    let mut members = BTreeMap::new();
    for Entry { value, .. } in entries {
        let (header, value) = record::parse(value)?;
        if !header.tombstone {
            let member: Member =
                model::decode_bytes(value).map_err(|_| FormatError::Damaged { what: "a member record" })?;
            members.insert(member.replica, member.state);
        }
    }
    Ok(members)
}
