//! Made-up authors and their frames: the commits that other replicas send to the engine of a test.

use super::*;

pub(super) const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb0));
pub(super) const C: ReplicaId = ReplicaId(Uuid::from_u128(0xc0));
pub(super) const STRANGER: ReplicaId = ReplicaId(Uuid::from_u128(0x57));
pub(super) const B_DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xdb));
pub(super) const C_DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xdc));

/// The author of a stream. It writes whatever a test wants.
#[derive(Clone)]
pub(super) struct Author {
    pub(super) stream: ReplicaId,
    pub(super) device: DeviceId,
    pub(super) seq: u64,
    pub(super) digest: Digest,
    pub(super) wall: u64,
}

/// A commit of an [`Author`].
#[derive(Clone)]
pub(super) struct Made {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    pub(super) row: Value,
    pub(super) values: Vec<u8>,
    pub(super) stamp: Hlc,
}

/// A record, its value unless it is deleted, and its epoch if the model brings its own merge.
pub(super) type Write = (RecordKey, Option<Value>, Option<Hlc>);

impl Author {
    pub(super) fn new(stream: ReplicaId, device: DeviceId) -> Self {
        Self { stream, device, seq: 0, digest: chain_start(GROUP, stream), wall: 1000 }
    }

    /// Makes a commit that rests on the commits at the places `after`.
    pub(super) fn commit(&mut self, after: &[WireHead], mut writes: Vec<Write>) -> Made {
        self.wall += 1;
        let stamp = Hlc::new(WallMs::new(self.wall).unwrap(), 0, self.stream);
        writes.sort_by(|one, other| one.0.cmp(&other.0));
        let after: Vec<_> = after.iter().map(cause).collect();
        let mut row = LogRowWriter::new(&self.digest, self.device, stamp, &after, writes.len());
        let mut values = Vec::new();
        for (record, value, epoch) in &writes {
            let reference = value.as_ref().map(|value| ValueRef {
                schema: 1,
                len: u32::try_from(value.len()).unwrap(),
                digest: digest(value),
            });
            row.push(record, reference, *epoch);
            values.extend(value.iter().flatten());
        }
        let row = row.finish();
        self.digest = chain(&self.digest, split_row(&row).unwrap().1);
        self.seq += 1;
        Made { stream: self.stream, seq: self.seq, row, values, stamp }
    }

    /// Gives a tag a name.
    pub(super) fn tag(&mut self, id: u32, name: &str) -> Made {
        self.commit(&[], vec![tagged(id, name)])
    }

    /// The writer of another history of the stream of the tested replica, which goes on behind a place of it.
    pub(super) fn of_copy(seq: u64, digest: Digest) -> Self {
        Self { seq, digest, wall: 1_000_000, ..Self::new(REPLICA, DEVICE) }
    }

    pub(super) fn head(&self) -> WireHead {
        WireHead { stream: self.stream, seq: self.seq, digest: self.digest }
    }
}

pub(super) fn cause(head: &WireHead) -> Cause {
    Cause { stream: head.stream, seq: head.seq, check: digest_check(&head.digest) }
}

pub(super) fn tagged(id: u32, name: &str) -> Write {
    (RecordKey::new::<Tag>(&id), Some(encoded(id, name)), None)
}

pub(super) fn bagged(id: u32, items: &[u32], epoch: Hlc) -> Write {
    let bag = Bag { id, items: items.iter().copied().collect() };
    (RecordKey::new::<Bag>(&id), Some(postcard::to_allocvec(&bag).unwrap()), Some(epoch))
}

/// Makes a replica a member.
pub(super) fn member(replica: ReplicaId, device: DeviceId) -> Write {
    let member = Member::new(replica, device);
    let value = postcard::to_allocvec(&member).unwrap();
    (RecordKey::new::<Member>(&replica), Some(value), Some(Hlc::NEVER))
}

fn push(writer: &mut CommitsWriter, made: &Made) {
    let (previous, entry) = split_row(&made.row).unwrap();
    let Made { stream, seq, values, .. } = made;
    writer.push(&CommitParts { stream: *stream, seq: *seq, previous: &previous, entry, values });
}

/// A peer that has no commits of its own in the frames that tests make up: so these name every stream and its device, and
/// are the same whoever sends them.
const NOBODY: ReplicaId = ReplicaId(Uuid::nil());

pub(super) fn live_of(group: GroupId, commits: &[&Made]) -> Bytes {
    let mut writer = CommitsWriter::live(group, NOBODY);
    commits.iter().for_each(|made| push(&mut writer, made));
    writer.finish()
}

pub(super) fn live(commits: &[&Made]) -> Bytes {
    live_of(GROUP, commits)
}

/// Shows a row of a log that has these commits of the stream.
pub(super) fn answer_to(show: &Show, commits: &[&Made]) -> Bytes {
    let Show { stream, seq, checked } = *show;
    let of_stream = commits.iter().filter(|made| made.stream == stream);
    let head = of_stream.clone().map(|made| made.seq).max().unwrap_or(0);
    let row = of_stream.clone().find(|made| made.seq == seq).map(|made| {
        let (previous, entry) = split_row(&made.row).unwrap();
        WireRow { previous, entry: entry.to_vec() }
    });
    let head = if checked && row.is_some() { head } else { 0 };
    wire::shown(GROUP, &Shown { stream, seq, head, row })
}

/// A page that nobody asked for. It shows where its commits stand by whole digests.
pub(super) fn page(commits: &[&Made]) -> Bytes {
    page_of(PageHead { id: u32::MAX, more: false, reach: Reach::Whole, too_long: None }, commits)
}

/// The head of a page that answers `pull`.
pub(super) const fn answer(pull: &Pull, more: bool) -> PageHead {
    PageHead { id: pull.id, more, reach: Reach::Whole, too_long: None }
}

pub(super) fn page_of(head: PageHead, commits: &[&Made]) -> Bytes {
    let mut page = CommitsWriter::page(GROUP, NOBODY, &head, 0);
    commits.iter().for_each(|made| push(&mut page, made));
    page.finish()
}

/// A hello that says nothing.
pub(super) fn silent_hello(session: u64) -> Hello {
    let (unheard, relayed, heads) = (Capped(Vec::new()), Capped(Vec::new()), Capped(Vec::new()));
    let features = wire::FEATURES;
    Hello {
        session,
        features,
        restored: false,
        clock: WireClock::default(),
        knocks: None,
        unheard,
        relayed,
        heads,
    }
}

/// The hello of a joiner on a device.
pub(super) fn knock(session: u64, device: DeviceId) -> Bytes {
    wire::hello(GROUP, &Hello { knocks: Some(device), ..silent_hello(session) })
}

pub(super) fn hello(session: u64, heads: &[WireHead]) -> Bytes {
    wire::hello(GROUP, &Hello { heads: Capped(heads.to_vec()), ..silent_hello(session) })
}
