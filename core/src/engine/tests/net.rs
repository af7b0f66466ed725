//! A network of engines that a test controls, and the stories with which tests of snapshots begin.

use std::collections::{BTreeSet, VecDeque};

use super::wire::{Rows, RowsWriter, SnapshotHead, SnapshotRefusal};
use super::*;
use crate::engine::join;
use crate::engine::rules::Mark;

/// Replicas whose frames a test delivers.
pub(super) struct Net {
    pub(super) worlds: BTreeMap<ReplicaId, World>,
    pub(super) asks: BTreeMap<ReplicaId, Opening>,
    pub(super) frames: VecDeque<(ReplicaId, ReplicaId, Bytes)>,
}

/// With what a replica is opened.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    pub(super) replica: ReplicaId,
    pub(super) device: DeviceId,
    pub(super) introducer: Option<ReplicaId>,
    pub(super) rules: Rules,
    pub(super) page_bytes: usize,
    /// The most changes of a commit, and so the most rows of one write.
    pub(super) changes: usize,
    /// The most entries of its log that are kept for others.
    pub(super) retain: usize,
    pub(super) networked: bool,
}

impl Opening {
    pub(super) fn ask(self) -> Ask {
        let limits = Limits {
            page_bytes_max: self.page_bytes,
            commit_changes_max: self.changes,
            retain_entries_max: self.retain,
            ..Limits::default()
        };
        Ask {
            replica: self.replica,
            device: Some(self.device),
            introducer: self.introducer,
            networked: self.networked,
            limits: Arc::new(limits),
            seed: u64::from(self.replica.as_bytes()[15]),
            ..ask(self.rules)
        }
    }
}

impl Net {
    pub(super) fn new() -> Self {
        Self { worlds: BTreeMap::new(), asks: BTreeMap::new(), frames: VecDeque::new() }
    }

    /// Adds a replica.
    pub(super) fn open(&mut self, ask: Opening) {
        self.worlds.insert(ask.replica, World::asking(ask.ask()));
        self.asks.insert(ask.replica, ask);
    }

    /// Adds a replica, which A adds to the group.
    pub(super) fn join(&mut self, ask: Opening) {
        self.open(ask);
        self.up(A, ask.replica);
        add(self, A, ask.replica, ask.device);
    }

    /// Adds B, or has it come back, if it is a member: then it has records of its own.
    pub(super) fn meet(&mut self, ask: Opening) {
        if self.worlds.contains_key(&B) {
            self.asks.insert(B, ask);
            self.reopen(B);
            return self.up(A, B);
        }
        self.join(ask);
    }

    /// Opens a replica again, as after the end of its process.
    pub(super) fn reopen(&mut self, replica: ReplicaId) {
        let at = self.at(replica).now.mono.0;
        let ask = self.asks[&replica].ask();
        self.collect();
        self.at(replica).reopen_at(ask, now(at));
        self.frames.retain(|(from, to, _)| *from != replica && *to != replica);
    }

    pub(super) fn at(&mut self, replica: ReplicaId) -> &mut World {
        self.worlds.get_mut(&replica).expect("a replica")
    }

    pub(super) fn up(&mut self, one: ReplicaId, other: ReplicaId) {
        for (here, there) in [(one, other), (other, one)] {
            self.at(here).handle(Input::Up(there));
            self.at(here).settle();
        }
    }

    pub(super) fn down(&mut self, one: ReplicaId, other: ReplicaId) {
        for (here, there) in [(one, other), (other, one)] {
            self.at(here).handle(Input::Down(there));
            self.at(here).settle();
        }
        self.collect();
        self.frames.retain(|(from, to, _)| ![(one, other), (other, one)].contains(&(*from, *to)));
    }

    /// Takes the frames that were sent.
    pub(super) fn collect(&mut self) {
        let ids: Vec<_> = self.worlds.keys().copied().collect();
        for from in ids {
            let world = self.at(from);
            let reached = world.reached.clone();
            for (to, frame) in std::mem::take(&mut world.sent) {
                let to = to.map_or_else(|| reached.clone(), |to| vec![to]);
                self.frames.extend(to.into_iter().map(|to| (from, to, frame.clone())));
            }
        }
    }

    /// Takes the next frame, if time brings one.
    pub(super) fn next_frame(&mut self) -> (ReplicaId, ReplicaId, Bytes) {
        for _ in 0..1_000 {
            self.collect();
            match self.frames.pop_front() {
                Some(frame) => return frame,
                None => self.pass(500),
            }
        }
        panic!("nobody says anything any more");
    }

    /// Delivers the next frame, and performs what follows from it up to a write of B that is looked `for`.
    pub(super) fn up_to_write_of_b(
        &mut self,
        mut looks_for: impl FnMut(&World, &WriteBatch) -> bool,
    ) -> Option<WriteBatch> {
        let (from, to, frame) = self.next_frame();
        let world = self.at(to);
        world.handle(Input::Frame(from, frame));
        while let Some(batch) = world.up_to_write() {
            if to == B && looks_for(world, &batch) {
                return Some(batch);
            }
            world.written(batch);
        }
        None
    }

    /// Delivers the next frame; `false` if there is none.
    pub(super) fn deliver(&mut self) -> bool {
        self.collect();
        let Some((from, to, frame)) = self.frames.pop_front() else { return false };
        if let Some(world) = self.worlds.get_mut(&to) {
            world.feed(from, frame);
        }
        true
    }

    /// Delivers frames, and lets time pass, until nothing more happens for a while.
    pub(super) fn run(&mut self) {
        for _ in 0..40 {
            let mut delivered = 0;
            while self.deliver() {
                delivered += 1;
                assert!(delivered < 5_000, "frames without an end: {:?}", self.frames);
            }
            self.pass(2_500);
        }
    }

    /// Delivers frames until a replica has installed a snapshot.
    pub(super) fn until_installed(&mut self, replica: ReplicaId) {
        for _ in 0..3_000 {
            if !self.deliver() {
                self.pass(100);
            }
            let world = self.at(replica);
            if world.engine.marks.has(Mark::Installed) && world.engine.report().installing.is_none() {
                return;
            }
        }
        panic!("it installs");
    }

    pub(super) fn pass(&mut self, ms: u64) {
        let ids: Vec<_> = self.worlds.keys().copied().collect();
        for id in ids {
            self.at(id).pass(ms);
        }
    }

    /// The tags that a read at a replica would show.
    pub(super) fn shown(&self, replica: ReplicaId) -> BTreeMap<u32, String> {
        shown(&self.worlds[&replica])
    }

    /// Gives A a bag with the items of these commits: the first ones in the record, the others beside it.
    pub(super) fn has_bag(&mut self, rows: &[(u64, &[u32])]) {
        let record = RecordKey::new::<Bag>(&1);
        let row = |(seq, items): &(u64, &[u32]), beside: bool| {
            let value =
                model::encode(&Bag { id: 1, items: items.iter().copied().collect() }, usize::MAX).unwrap();
            let merge = Some(record::Merged { epoch: Hlc::NEVER, mixed: items.len() > 1, beside });
            let stamp = Hlc::new(WallMs::new(900).unwrap(), u16::try_from(*seq).unwrap(), A);
            let header = record::Header { tombstone: false, schema: value.schema, stamp, seq: *seq, merge };
            record::of(&header, record::value_of(&value.record))
        };
        let (first, besides) = rows.split_first().expect("a record");
        let mut map = self.at(A).store.0.lock().unwrap();
        map.retain(|key, _| !keys::besides_of(&record).contains(key));
        map.insert(record.as_bytes().to_vec(), row(first, !besides.is_empty()));
        map.extend(besides.iter().map(|beside| (keys::beside(&record, A, beside.0), row(beside, false))));
    }

    /// Drops the logs of a replica, up to its heads, and all tombstones, as if all members had acknowledged all of it.
    pub(super) fn prune(&mut self, replica: ReplicaId) {
        self.drop_logs(replica, true);
    }

    /// Drops the logs of a replica, up to its heads, as a limit of its log may; and perhaps all tombstones.
    pub(super) fn drop_logs(&mut self, replica: ReplicaId, tombstones: bool) {
        let world = self.at(replica);
        let mut map = world.store.0.lock().unwrap();
        map.retain(|key, value| match StoredKey::parse(key) {
            Some(StoredKey::Log(..) | StoredKey::Kept(..)) => false,
            Some(StoredKey::Record(_)) => !(tombstones && record::parse(value).unwrap().0.tombstone),
            Some(StoredKey::Head(stream)) => {
                let head = Head::parse(stream, value).unwrap();
                *value = Head { floor: head.seq, floor_digest: head.digest, ..head }.to_value();
                true
            }
            _ => true,
        });
        drop(map);
        self.reopen(replica);
    }

    /// How many entries of logs a replica has.
    pub(super) fn logged(&mut self, at: ReplicaId) -> u64 {
        let heads = self.at(at).engine.ledger.heads().values();
        heads.map(|head| head.seq - head.floor).sum()
    }

    pub(super) fn tombstones(&mut self, at: ReplicaId) -> usize {
        let records = self.at(at).store.entries(keys::records());
        records.iter().filter(|entry| record::parse(&entry.value).unwrap().0.tombstone).count()
    }

    pub(super) fn converged(&mut self) {
        let ids: Vec<_> = self.worlds.keys().copied().collect();
        let heads = |net: &mut Self, id| {
            let heads = net.at(id).engine.ledger.heads().iter().filter(|(_, head)| head.seq > 0);
            heads.map(|(stream, head)| (*stream, head.point())).collect::<Vec<_>>()
        };
        let first = ids[0];
        for id in &ids {
            assert_eq!(heads(self, *id), heads(self, first), "{id} beside {first}");
            assert_eq!(self.shown(*id), self.shown(first), "{id} beside {first}");
            assert_eq!(self.at(*id).audit(), [], "{id}");
            assert!(self.at(*id).engine.report().installing.is_none(), "{id}");
            assert_eq!(self.at(*id).overlay, Overlay::None, "{id}");
            assert!(self.at(*id).store.entries(keys::stage()).is_empty(), "{id}");
        }
    }
}

/// The tags that a read would show.
pub(super) fn shown(world: &World) -> BTreeMap<u32, String> {
    let range = RecordKey::range_of_model::<Tag>();
    let live: BTreeMap<_, _> =
        world.store.entries(range.clone()).into_iter().map(|entry| (entry.key, entry.value)).collect();
    let staged: BTreeMap<_, _> = world
        .store
        .entries(keys::staged_range(&range))
        .into_iter()
        .map(|entry| (keys::unstaged(&entry.key).unwrap().to_vec(), entry.value))
        .collect();
    let mut tags = BTreeMap::new();
    let all: BTreeSet<_> = live.keys().chain(staged.keys()).collect();
    for key in all {
        let record = RecordKey::from_bytes(key).unwrap();
        let value = match &world.overlay {
            Overlay::None => live.get(key).cloned(),
            Overlay::Hidden => None,
            Overlay::Joined(as_of) => {
                let (live, staged) = (live.get(key), staged.get(key));
                let context = (&Rules::ALL, &*world.engine.context.models);
                match join(context, as_of, &record, live.map(Vec::as_slice), staged.map(Vec::as_slice))
                    .unwrap()
                {
                    crate::engine::Joined::New(_, bytes) => Some(bytes),
                    crate::engine::Joined::Gone => None,
                    _ => live.cloned(),
                }
            }
        };
        let Some(value) = value else { continue };
        let (header, value) = record::parse(&value).unwrap();
        if !header.tombstone {
            let tag: Tag = model::decode_bytes(value).unwrap();
            tags.insert(tag.id, tag.name);
        }
    }
    tags
}

pub(super) const A: ReplicaId = REPLICA;

pub(super) fn founder(rules: Rules) -> Opening {
    Opening {
        replica: A,
        device: DEVICE,
        introducer: None,
        rules,
        page_bytes: 600,
        changes: 1_000,
        retain: usize::MAX,
        networked: true,
    }
}

pub(super) fn joiner(replica: ReplicaId, device: DeviceId, rules: Rules) -> Opening {
    Opening { replica, device, introducer: Some(A), ..founder(rules) }
}

pub(super) fn add(net: &mut Net, at: ReplicaId, replica: ReplicaId, device: DeviceId) {
    let change = Staged { own_merge: true, ..put(&Member::new(replica, device)) };
    net.at(at).commit(vec![change]).unwrap();
}

/// A has 40 tags in pairs, and has deleted five pairs; its log is pruned.
pub(super) fn pruned_founder(net: &mut Net, rules: Rules) {
    net.open(founder(rules));
    for n in 0..20 {
        net.at(A).commit(vec![tag(n, "one"), tag(100 + n, "one")]).unwrap();
    }
    for n in 0..5 {
        net.at(A).commit(vec![untag(n), untag(100 + n)]).unwrap();
    }
    net.prune(A);
}

/// A has records, and no log of them: B is no member yet, or was away.
pub(super) fn ahead_of_b(joins: bool) -> Net {
    if !joins {
        return away(Rules::ALL);
    }
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    net
}

/// Puts a pair, which a reader must never see half of.
pub(super) fn pair(net: &mut Net, at: ReplicaId, n: u32, name: &str) {
    net.at(at).commit(vec![tag(n, name), tag(100 + n, name)]).unwrap();
}

pub(super) fn halves(tags: &BTreeMap<u32, String>) -> Vec<u32> {
    (0..100).filter(|n| tags.get(n) != tags.get(&(100 + n))).collect()
}

/// Two members; B was away for long, and both have written meanwhile. A has forgotten what was deleted.
pub(super) fn away(rules: Rules) -> Net {
    let mut net = away_with_tombstones(rules);
    net.prune(A);
    net
}

/// The same, where A remembers what was deleted; its log is whole.
pub(super) fn away_with_tombstones(rules: Rules) -> Net {
    let mut net = Net::new();
    net.open(founder(rules));
    net.open(joiner(B, B_DEVICE, rules));
    net.up(A, B);
    for n in 0..20 {
        pair(&mut net, A, n, "old");
    }
    add(&mut net, A, B, B_DEVICE);
    net.run();
    net.converged();
    net.down(A, B);
    // A newer commit of A beats this one, whose value the log of B still needs.
    pair(&mut net, B, 8, "beaten");
    net.pass(10);
    for n in 0..5 {
        net.at(A).commit(vec![untag(n), untag(100 + n)]).unwrap();
    }
    for n in 5..10 {
        pair(&mut net, A, n, "newer");
    }
    for n in 30..60 {
        pair(&mut net, A, n, "new");
    }
    pair(&mut net, B, 15, "unsent");
    pair(&mut net, B, 70, "unsent");
    net
}

/// The messages of a frame.
pub(super) fn messages(frame: &Bytes) -> impl Iterator<Item = Message> {
    let messages = Messages::new(frame.clone(), Some(GROUP), usize::MAX).unwrap();
    messages.into_iter().map(Result::unwrap)
}

pub(super) fn has(frame: &Bytes, is: impl Fn(&Message) -> bool) -> bool {
    messages(frame).any(|message| is(&message))
}

/// The number of the pull of records in a frame.
pub(super) fn snapshot_pull(frame: &Bytes) -> Option<u32> {
    messages(frame).find_map(|message| match message {
        Message::SnapshotPull(pull) => Some(pull.id),
        _ => None,
    })
}

/// The page of a snapshot in a frame, if it has rows.
pub(super) fn page_in(frame: &Bytes) -> Option<(SnapshotHead, Rows)> {
    let page = messages(frame).find_map(|message| match message {
        Message::SnapshotPage(head, rows) => Some((head, rows)),
        _ => None,
    });
    page.filter(|(_, rows)| rows.bytes() > 0)
}

pub(super) fn rows_of(frame: &Bytes) -> usize {
    page_in(frame).map_or(0, |(_, rows)| rows.entries().unwrap().len())
}

/// A page that brings no records.
pub(super) fn refusal(id: u32) -> Bytes {
    let head = SnapshotHead {
        id,
        refusal: Some(SnapshotRefusal::NotNow),
        before: Capped(Vec::new()),
        heads: Capped(Vec::new()),
        forgotten: Capped(Vec::new()),
        of: None,
        more: false,
    };
    RowsWriter::default().finish(GROUP, &head)
}

/// A, B and C are members. B is away, A and C write and prune, each what it has; B begins with A.
pub(super) fn of_three(rules: Rules, c_has_all: bool, c_is_pruned: bool) -> Net {
    let mut net = Net::new();
    net.open(founder(rules));
    net.open(joiner(B, B_DEVICE, rules));
    net.open(joiner(C, C_DEVICE, rules));
    for (one, other) in [(A, B), (A, C)] {
        net.up(one, other);
    }
    for n in 0..20 {
        pair(&mut net, A, n, "old");
    }
    add(&mut net, A, B, B_DEVICE);
    add(&mut net, A, C, C_DEVICE);
    net.run();
    net.converged();
    net.down(A, B);
    if !c_has_all {
        net.down(A, C);
    }
    for n in 0..5 {
        net.at(C).commit(vec![untag(n), untag(100 + n)]).unwrap();
    }
    for n in 30..60 {
        pair(&mut net, A, n, "new");
    }
    net.run();
    net.drop_logs(A, false);
    if c_is_pruned {
        net.drop_logs(C, false);
    }
    net
}

/// A few tags that are written again and again, which a member that was never heard of lacks: no log can be pruned.
pub(super) fn busy_founder(net: &mut Net, rules: Rules) {
    net.open(founder(rules));
    add(net, A, C, C_DEVICE);
    for round in 0..80 {
        for n in 0..4 {
            pair(net, A, n, &format!("in round {round}, of many that a joiner need not know"));
        }
    }
}

/// Delivers frames until B has taken so many records.
pub(super) fn until_records(net: &mut Net, records: u64) {
    for _ in 0..1_000 {
        if net.at(B).engine.report().installing.is_some_and(|status| status.records >= records) {
            return;
        }
        if !net.deliver() {
            net.pass(100);
        }
    }
    panic!("it begins");
}

/// Delivers frames for a while, where some pulls of records at a peer are refused; returns how many.
pub(super) fn refusing(net: &mut Net, at: ReplicaId, steps: u32, refuses: impl Fn(&Message) -> bool) -> u32 {
    let mut refused = 0;
    for _ in 0..steps {
        net.collect();
        for (from, to, frame) in &mut net.frames {
            if *to == at
                && has(frame, &refuses)
                && let Some(id) = snapshot_pull(frame)
            {
                (*from, *to, *frame) = (at, *from, refusal(id));
                refused += 1;
            }
        }
        if !net.deliver() {
            net.pass(500);
        }
    }
    refused
}
