//! Snapshots: replicas that are further behind than the logs of others reach, over a network that a test controls.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::engine::join;

/// Replicas whose frames a test delivers.
struct Net {
    worlds: BTreeMap<ReplicaId, World>,
    asks: BTreeMap<ReplicaId, Ask2>,
    frames: VecDeque<(ReplicaId, ReplicaId, Bytes)>,
}

/// With what a replica is opened.
#[derive(Clone, Copy)]
struct Ask2 {
    replica: ReplicaId,
    device: DeviceId,
    introducer: Option<ReplicaId>,
    rules: Rules,
    page_bytes: usize,
    networked: bool,
}

impl Ask2 {
    fn ask(self) -> Ask {
        let limits = Limits { page_bytes_max: self.page_bytes, ..Limits::default() };
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
    fn new() -> Self {
        Self { worlds: BTreeMap::new(), asks: BTreeMap::new(), frames: VecDeque::new() }
    }

    /// Adds a replica.
    fn open(&mut self, ask: Ask2) {
        self.worlds.insert(ask.replica, World::asking(ask.ask()));
        self.asks.insert(ask.replica, ask);
    }

    /// Opens a replica again, as after the end of its process.
    fn reopen(&mut self, replica: ReplicaId) {
        let at = self.at(replica).now.mono.0;
        let ask = self.asks[&replica].ask();
        self.at(replica).reopen_at(ask, now(at));
        self.frames.retain(|(from, to, _)| *from != replica && *to != replica);
    }

    fn at(&mut self, replica: ReplicaId) -> &mut World {
        self.worlds.get_mut(&replica).expect("a replica")
    }

    fn up(&mut self, one: ReplicaId, other: ReplicaId) {
        for (here, there) in [(one, other), (other, one)] {
            self.at(here).handle(Input::Up(there));
            self.at(here).settle();
        }
    }

    fn down(&mut self, one: ReplicaId, other: ReplicaId) {
        for (here, there) in [(one, other), (other, one)] {
            self.at(here).handle(Input::Down(there));
            self.at(here).settle();
        }
        self.frames.retain(|(from, to, _)| ![(one, other), (other, one)].contains(&(*from, *to)));
    }

    /// Takes the frames that were sent.
    fn collect(&mut self) {
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

    /// Delivers the next frame; `false` if there is none.
    fn deliver(&mut self) -> bool {
        self.collect();
        let Some((from, to, frame)) = self.frames.pop_front() else { return false };
        if let Some(world) = self.worlds.get_mut(&to) {
            world.feed(from, frame);
        }
        true
    }

    /// Delivers frames, and lets time pass, until nothing more happens for a while.
    fn run(&mut self) {
        for _ in 0..40 {
            while self.deliver() {}
            self.pass(2_500);
        }
    }

    fn pass(&mut self, ms: u64) {
        let ids: Vec<_> = self.worlds.keys().copied().collect();
        for id in ids {
            self.at(id).pass(ms);
        }
    }

    /// The tags that a read at a replica would show.
    fn shown(&self, replica: ReplicaId) -> BTreeMap<u32, String> {
        shown(&self.worlds[&replica])
    }

    /// Drops the logs of a replica, up to its heads, and all tombstones, as if all members had acknowledged all of it.
    fn prune(&mut self, replica: ReplicaId) {
        let world = self.at(replica);
        let mut map = world.store.0.lock().unwrap();
        map.retain(|key, value| match StoredKey::parse(key) {
            Some(StoredKey::Log(..) | StoredKey::Kept(..)) => false,
            Some(StoredKey::Record(_)) => !record::parse(value).unwrap().0.tombstone,
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

    fn converged(&mut self) {
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
fn shown(world: &World) -> BTreeMap<u32, String> {
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
                match join(context, as_of, &record, live.map(Vec::as_slice), staged.map(Vec::as_slice)).unwrap() {
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

const A: ReplicaId = REPLICA;

fn founder(rules: Rules) -> Ask2 {
    Ask2 { replica: A, device: DEVICE, introducer: None, rules, page_bytes: 600, networked: true }
}

fn joiner(replica: ReplicaId, device: DeviceId, rules: Rules) -> Ask2 {
    Ask2 { replica, device, introducer: Some(A), ..founder(rules) }
}

fn add(net: &mut Net, at: ReplicaId, replica: ReplicaId, device: DeviceId) {
    let change = Staged { own_merge: true, ..put(&Member::new(replica, device)) };
    net.at(at).commit(vec![change]).unwrap();
}

/// A has 40 tags in pairs, and has deleted five pairs; its log is pruned.
fn pruned_founder(net: &mut Net, rules: Rules) {
    net.open(founder(rules));
    for n in 0..20 {
        net.at(A).commit(vec![tag(n, "one"), tag(100 + n, "one")]).unwrap();
    }
    for n in 0..5 {
        net.at(A).commit(vec![untag(n), untag(100 + n)]).unwrap();
    }
    net.prune(A);
}

fn untag(id: u32) -> Staged {
    Staged { action: Action::Delete, ..tag(id, "") }
}

/// Puts a pair, which a reader must never see half of.
fn pair(net: &mut Net, at: ReplicaId, n: u32, name: &str) {
    net.at(at).commit(vec![tag(n, name), tag(100 + n, name)]).unwrap();
}

fn halves(tags: &BTreeMap<u32, String>) -> Vec<u32> {
    (0..100).filter(|n| tags.get(n) != tags.get(&(100 + n))).collect()
}

#[test]
fn a_joiner_takes_the_records_of_a_replica_whose_log_is_pruned() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    net.open(joiner(B, B_DEVICE, Rules::ALL));
    net.up(A, B);
    add(&mut net, A, B, B_DEVICE);
    let mut overlays = vec![net.at(B).overlay.clone()];
    for _ in 0..2_000 {
        if !net.deliver() {
            net.pass(2_500);
        }
        let world = net.at(B);
        let overlay = world.overlay.clone();
        if overlays.last() != Some(&overlay) {
            overlays.push(overlay);
        }
        assert!(shown(world).is_empty() || shown(world).len() == 30, "all of it at once");
    }
    assert_eq!(overlays, [Overlay::None, Overlay::Hidden, Overlay::None]);
    let events = net.at(B).events();
    assert!(events.contains(&Event::Joined), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::Installed { .. })), "{events:?}");
    net.converged();
    net.at(B).commit(vec![tag(7, "of B")]).unwrap();
    net.run();
    net.converged();
    assert_eq!(net.shown(A)[&7], "of B");
}

/// Two members; B was away for long, and both have written meanwhile.
fn away(rules: Rules) -> Net {
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
    net.prune(A);
    net
}

#[test]
fn a_member_that_was_away_past_a_pruned_log_takes_a_snapshot_and_keeps_what_it_has_written() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    net.run();
    net.converged();
    let tags = net.shown(A);
    assert_eq!((tags[&15].as_str(), tags[&170].as_str(), tags[&7].as_str()), ("unsent", "unsent", "newer"));
    assert!(!tags.contains_key(&3) && tags.len() == 2 * (20 - 5 + 30 + 1));
}

/// A keeps on writing pairs while B installs; a reader at B looks after every step.
fn reads_during_an_install(rules: Rules) -> Vec<u32> {
    let mut net = away(rules);
    net.up(A, B);
    let mut seen = Vec::new();
    for step in 0..4_000_u32 {
        if !net.deliver() {
            net.pass(500);
        }
        if step % 7 == 0 && step < 700 {
            pair(&mut net, A, 30 + step / 7 % 30, &format!("while {step}"));
        }
        if step % 50 == 0 && step < 700 {
            pair(&mut net, B, 40 + step / 50 % 30, &format!("at B {step}"));
        }
        seen.extend(halves(&net.shown(B)));
    }
    if seen.is_empty() {
        net.run();
        net.converged();
    }
    seen
}

#[test]
fn nobody_reads_half_of_a_commit_while_a_snapshot_arrives_and_is_folded() {
    assert_eq!(reads_during_an_install(Rules::ALL), []);
}
