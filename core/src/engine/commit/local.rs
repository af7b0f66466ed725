//! Deciding a round of commits of this replica: commits that arrived together and share one write.

use crate::error::Error;
use crate::events::{Change, ChangeKind, Event};
use crate::hlc::Hlc;
use crate::limits::Limit;
use crate::storage::Value;
use crate::stored::keys::RecordKey;
use crate::stored::log::{LogRowWriter, chain, split_row};
use crate::stored::record::{self, Header, Merged};
use crate::stored::{Cause, Head, ValueRef};

use super::super::Ticket;
use super::super::wire::{CommitParts, CommitsWriter};
use super::draft::Draft;
use super::touched::Stored;
use super::{Action, Commit, Current, Decision, NewValue, Pen, Places, Staged, Updated};

/// A change that takes effect.
struct Effective {
    record: RecordKey,
    new: Option<NewValue>,
    /// The change, as counted in the round: what it replaces is found by that.
    at: usize,
    kind: ChangeKind,
    /// The merge part of its record's header before the change, for a model with its own merge.
    merge: Option<Merged>,
}

/// Projects the records of one commit, each given as its key and its stored value, before they are part of the write.
/// An error refuses the commit.
pub(crate) type Project<'p> = dyn FnMut(&[(&[u8], &[u8])]) -> Result<(), Error> + 'p;

/// A record as a commit makes it.
struct Made {
    record: RecordKey,
    header: Header,
    bytes: Value,
    at: usize,
    kind: ChangeKind,
    /// Whether the values beside the record are of an epoch that has passed.
    drops_besides: bool,
}

/// A commit, evaluated against the records before it.
struct Evaluated {
    /// The changes that take effect, perhaps none; or the error with which the commit fails.
    changes: Result<Vec<Effective>, Error>,
    /// Whether this rests on durable records alone, and not on earlier commits of the round.
    durable: bool,
    /// The bytes of the ids and values of the changes.
    bytes: usize,
}

impl Pen {
    /// Decides a round, given the values of the records that it names, each at its place.
    ///
    /// An update may make a value of any length, so the round ends once it has as many bytes as one commit may have; the
    /// rest is in [`Decision::undecided`].
    pub(crate) fn decide(
        &mut self,
        round: Vec<(Ticket, Commit)>,
        values: Vec<Option<Value>>,
        places: &Places,
        mut project: Option<&mut Project<'_>>,
    ) -> Decision {
        let mut draft = self.begin_round();
        let mut frame = self.connected.then(|| CommitsWriter::live(self.context.group(), self.me()));
        let (mut stored, mut at, mut written) = (Stored::new(values, places), 0, 0_usize);
        let mut round = round.into_iter();
        while written < self.context.limits.commit_bytes_max
            && let Some((ticket, commit)) = round.next()
        {
            // Count every change, also those of a commit that fails at its first one: otherwise the next commit would
            // be decided on the values of this one.
            let first = at;
            at += commit.changes.len();
            let Evaluated { changes, durable, bytes } = self.evaluate(&draft, commit, &stored, first);
            written = written.saturating_add(bytes);
            let (result, waits) = match changes {
                Ok(changes) if changes.is_empty() => (Ok(()), !durable),
                Ok(changes) => match self.stamp() {
                    Ok(stamp) => {
                        let project = project.as_deref_mut();
                        (self.apply(&mut draft, &mut frame, stamp, (changes, &mut stored), project), true)
                    }
                    Err(error) => (Err(error), false),
                },
                Err(error) => (Err(error), !durable),
            };
            let answers = if waits { &mut draft.decision.waiting } else { &mut draft.decision.settled };
            answers.push((ticket, result));
        }
        draft.decision.undecided = round.collect();
        self.end_round(draft, frame)
    }

    /// Decides a commit that shares its write with no other, given the values of the records it names.
    ///
    /// # Errors
    /// The commit fails, and nothing is to be written.
    pub(crate) fn decide_alone(
        &mut self,
        commit: Commit,
        values: Vec<Option<Value>>,
    ) -> Result<Decision, Error> {
        if let Some(refusal) = self.refusal.filter(|_| !commit.changes.is_empty()) {
            return Err(refusal.error(self.me()));
        }
        let mut draft = self.begin_round();
        let mut frame = self.connected.then(|| CommitsWriter::live(self.context.group(), self.me()));
        let places = Places::default();
        let mut stored = Stored::new(values, &places);
        let changes = self.evaluate(&draft, commit, &stored, 0).changes?;
        if !changes.is_empty() {
            let stamp = self.stamp()?;
            self.apply(&mut draft, &mut frame, stamp, (changes, &mut stored), None)?;
        }
        Ok(self.end_round(draft, frame))
    }

    /// Begins the draft of a round. The draft has the floor that the write leaves from the start: a value that the
    /// write displaces below that floor is not kept.
    fn begin_round(&self) -> Draft {
        let durable = self.ledger.own();
        let mut draft = Draft::new(self.clock.high_water());
        draft.heads.insert(self.context.me(), Head { floor: self.floor(), ..durable });
        draft
    }

    fn end_round(&self, mut draft: Draft, frame: Option<CommitsWriter>) -> Decision {
        let durable = self.ledger.own();
        if draft.rest.is_empty() {
            draft.heads.clear();
        } else {
            let fits = |frame: &CommitsWriter| frame.rebuilt() <= self.context.limits.frame_bytes_max;
            draft.decision.frame = frame.filter(fits).map(CommitsWriter::finish);
            if let Some(head) = draft.heads.get_mut(&self.context.me()) {
                (head.floor, head.floor_digest) = (durable.floor, durable.floor_digest);
            }
        }
        self.finish(draft, self.floor())
    }

    /// The sequence number up to which the write prunes the own log.
    fn floor(&self) -> u64 {
        let durable = self.ledger.own();
        self.stable.clamp(durable.floor, durable.seq)
    }

    fn stamp(&mut self) -> Result<Hlc, Error> {
        let wall = self.wall.clone()?;
        Ok(self.clock.stamp(wall)?)
    }

    /// Adds a commit to the write: its records, what they displace, its log entry, its event.
    fn apply(
        &mut self,
        draft: &mut Draft,
        frame: &mut Option<CommitsWriter>,
        stamp: Hlc,
        (changes, stored): (Vec<Effective>, &mut Stored<'_>),
        project: Option<&mut Project<'_>>,
    ) -> Result<(), Error> {
        let (device, replica) = (self.identity().device, self.identity().replica);
        let head = self.head_in(draft, replica);
        let seq = head.seq + 1;
        let after = self.causes(&head);
        let mut row = LogRowWriter::new(&head.digest, device, stamp, &after, changes.len());
        let mut made = Vec::with_capacity(changes.len());
        let mut values = Vec::new();
        for change in changes {
            let Effective { record: key, new, at, kind, merge } = change;
            let value = new.as_ref().map(|NewValue { schema, record, digest }| {
                let value = record::value_of(record);
                if frame.is_some() {
                    values.extend_from_slice(value);
                }
                ValueRef::new(*schema, value.len(), *digest)
            });
            row.push(&key, value, merge.map(|merge| if new.is_some() { merge.epoch } else { stamp }));
            let drops_besides = new.is_none() && merge.is_some_and(|before| before.beside);
            let merge = merge.map(|before| match new {
                Some(_) => Merged { mixed: false, ..before },
                None => Merged::plain(stamp),
            });
            let (schema, mut bytes) = new
                .map_or_else(|| (0, record::with_room(merge.is_some(), 0)), |new| (new.schema, new.record));
            let header = Header { tombstone: kind == ChangeKind::Delete, schema, stamp, seq, merge };
            header.write(&mut bytes);
            made.push(Made { record: key, header, bytes, at, kind, drops_besides });
        }
        // A projection may refuse the commit: nothing of it is in the draft before that.
        if let Some(project) = project {
            let records: Vec<_> =
                made.iter().map(|made| (made.record.as_bytes(), made.bytes.as_slice())).collect();
            project(&records)?;
        }
        let mut events = Vec::with_capacity(made.len());
        for Made { record, header, bytes, at, kind, drops_besides } in made {
            if drops_besides {
                draft.drop_besides(&record);
            }
            self.replace(draft, &record, header, bytes, stored.take(at)?)?;
            events.push(Event::Changed(Change { record, kind, origin: device, stamp, seq }));
        }
        let row = row.finish();
        let (previous, entry) = split_row(&row)?;
        let digest = chain(&head.digest, entry);
        if let Some(frame) = frame {
            let parts = CommitParts { stream: replica, seq, previous: &previous, entry, values: &values };
            frame.push(&parts);
        }
        draft.log(&head, stamp, digest, row);
        draft.tell(&mut events);
        Ok(())
    }

    /// The causes of a commit. Only the first commit of a write names them: the others of its round rest on it, and so
    /// on the same causes.
    fn causes(&self, head: &Head) -> Vec<Cause> {
        if head.seq == self.ledger.own().seq { self.ledger.causes() } else { Vec::new() }
    }

    /// Evaluates a commit against the store and the earlier commits of its round. Both stay as they are. `first` is its
    /// first change, as counted in the round.
    fn evaluate(&self, draft: &Draft, commit: Commit, stored: &Stored<'_>, first: usize) -> Evaluated {
        let mut effective = Vec::with_capacity(commit.changes.len());
        let mut durable = true;
        let mut bytes = 0_usize;
        for (staged, at) in commit.changes.into_iter().zip(first..) {
            durable &= draft.records.get(&staged.record).is_none();
            match self.effect_of(draft, staged, stored, at) {
                Ok(Some(change)) => {
                    let value = change.new.as_ref().map_or(0, |new| record::value_of(&new.record).len());
                    bytes = bytes.saturating_add(change.record.id_bytes().len() + value);
                    effective.push(change);
                }
                Ok(None) => {}
                Err(error) => return Evaluated { changes: Err(error), durable, bytes: 0 },
            }
        }
        // A value may have grown in an update or a merge since the commit was staged. Check its size again: every
        // commit must fit a frame.
        if bytes > self.context.limits.commit_bytes_most() {
            let limit = Limit { name: "commit_bytes_max", max: self.context.limits.commit_bytes_max };
            return Evaluated { changes: Err(Error::TooLarge { size: bytes, limit }), durable, bytes: 0 };
        }
        Evaluated { changes: Ok(effective), durable, bytes }
    }

    /// The effect of one change; `None` if it changes nothing.
    fn effect_of(
        &self,
        draft: &Draft,
        staged: Staged,
        stored: &Stored<'_>,
        at: usize,
    ) -> Result<Option<Effective>, Error> {
        let Staged { record: key, action, own_merge } = staged;
        let before = draft.before(&key, stored.before(at)?);
        if let Some(before) = before
            && before.header.merge.is_some() != own_merge
        {
            return Err(Error::OtherMerge { record: key });
        }
        let merge = own_merge.then(|| {
            let known = before.and_then(|before| before.header.merge);
            // A record that is not here may have been deleted, and its tombstone dropped.
            known.unwrap_or_else(|| Merged::plain(self.ledger.forgotten(key.model())))
        });
        let old = before.filter(|before| !before.header.tombstone);
        let current = old.as_ref().map(|old| Current { schema: old.header.schema, value: old.value() });
        let updated = match action {
            Action::Put(new) => Updated::Put(new),
            Action::Delete => Updated::Delete,
            Action::Update(update) => update(current)?,
            // The commit is stamped right after this, if it changes anything.
            Action::Stamped(make) => make(self.clock.clone().stamp(self.wall.clone()?)?)(current)?,
        };
        let new = match updated {
            Updated::Put(new) => Some(new),
            Updated::Delete => None,
            Updated::Keep => return Ok(None),
        };
        let kind = match (current, &new) {
            (None, None) => return Ok(None),
            (None, Some(_)) => ChangeKind::Insert,
            (Some(_), None) => ChangeKind::Delete,
            (Some(old), Some(new)) if old.schema > new.schema => {
                return Err(Error::NewerSchema { record: key, stored: old.schema, known: new.schema });
            }
            (Some(old), Some(new))
                if old.schema == new.schema && old.value == record::value_of(&new.record) =>
            {
                return Ok(None);
            }
            (Some(_), Some(_)) => ChangeKind::Update,
        };
        Ok(Some(Effective { record: key, new, at, kind, merge }))
    }
}
