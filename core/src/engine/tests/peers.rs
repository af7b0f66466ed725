//! A [`World`] among peers: a test gives it frames, and reads the messages that it sends to its peers.

use super::*;

impl World {
    /// A founder with the members B and C, both connected.
    pub(super) fn connected(rules: Rules) -> Self {
        Self::asking(networked(rules)).with_peers()
    }

    /// The same, with limits of its own.
    pub(super) fn limited(limits: Limits) -> Self {
        Self::asking(Ask { limits: Arc::new(limits), ..networked(Rules::ALL) }).with_peers()
    }

    /// Adds the members B and C, and connects both.
    pub(super) fn with_peers(mut self) -> Self {
        for (replica, device) in [(B, B_DEVICE), (C, C_DEVICE)] {
            let member = Member::new(replica, device);
            let change = Staged { own_merge: true, ..put(&member) };
            self.commit(vec![change]).unwrap();
        }
        for peer in [B, C] {
            self.handle(Input::Up(peer));
        }
        self.settle();
        self.notices.clear();
        self
    }

    /// Gives the engine a frame, and performs the effects of it.
    pub(super) fn feed(&mut self, from: ReplicaId, frame: Bytes) {
        self.handle(Input::Frame(from, frame));
        self.settle();
    }

    /// Lets time pass on both clocks.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now = Now {
            wall: self.now.wall.clone().map(|wall| wall.saturating_add(ms)),
            mono: Mono(self.now.mono.0 + ms),
        };
        self.handle(Input::Tick);
        self.settle();
    }

    /// Lets time pass while a write is under way, whose end the test keeps back.
    pub(super) fn pass_in_write(&mut self, ms: u64) {
        let open = self.open.take();
        self.pass(ms);
        assert!(self.open.is_none(), "one write at a time");
        self.open = open;
    }

    pub(super) fn tag_name(&self, id: u32) -> Option<String> {
        let stored = self.get(RecordKey::new::<Tag>(&id).into_bytes())?;
        let (header, value) = record::parse(&stored).unwrap();
        (!header.tombstone).then(|| model::decode_bytes::<Tag>(value).unwrap().name)
    }

    pub(super) fn bag(&self, id: u32) -> Option<Vec<u32>> {
        let stored = self.get(RecordKey::new::<Bag>(&id).into_bytes())?;
        let (header, value) = record::parse(&stored).unwrap();
        (!header.tombstone).then(|| model::decode_bytes::<Bag>(value).unwrap().items.into_iter().collect())
    }

    /// How far a stream has come here.
    pub(super) fn seq_of(&self, stream: ReplicaId) -> u64 {
        let streams = self.engine.report().streams;
        streams.into_iter().find(|view| view.replica == stream).map_or(0, |view| view.commits)
    }

    /// The status of a peer.
    pub(super) fn peer(&self, peer: ReplicaId) -> PeerStatus {
        self.engine.report().peers.into_iter().find(|view| view.replica == peer).expect("a peer")
    }

    /// The place of the own stream, as a peer names it.
    pub(super) fn own(&self) -> WireHead {
        let head = self.head();
        WireHead { stream: REPLICA, seq: head.seq, digest: head.digest }
    }

    pub(super) fn stop_of(&self, stream: ReplicaId) -> Option<StreamStop> {
        let streams = self.engine.report().streams;
        streams.into_iter().find(|view| view.replica == stream).and_then(|view| view.stopped)
    }

    /// The events since the last time.
    pub(super) fn events(&mut self) -> Vec<Event> {
        self.notices.drain(..).flat_map(|notice| notice.to_vec()).collect()
    }

    /// The messages that were sent since the last time.
    pub(super) fn said(&mut self) -> Vec<(Option<ReplicaId>, Message)> {
        let frames = std::mem::take(&mut self.sent);
        let read = frames.into_iter().flat_map(|(to, frame)| {
            let messages = Messages::new(frame, Some(GROUP), usize::MAX).unwrap();
            messages.map(move |message| (to, message.unwrap()))
        });
        read.collect()
    }

    /// The pulls that were sent since the last time, and to whom.
    pub(super) fn pulls(&mut self) -> Vec<(ReplicaId, Pull)> {
        let said = self.said().into_iter();
        said.filter_map(|(to, message)| match message {
            Message::Pull(pull) => Some((to.unwrap(), pull)),
            _ => None,
        })
        .collect()
    }

    /// The page that answers a pull of `from`, which has `heads`.
    pub(super) fn page(
        &mut self,
        from: ReplicaId,
        heads: &[WireHead],
        budget: u32,
    ) -> (PageHead, Vec<WireCommit>) {
        self.sent.clear();
        let pull = Pull { budget, heads: Capped(heads.to_vec()), ..pull_all() };
        self.feed(from, wire::pull(GROUP, &pull));
        let page = self.said().into_iter().find_map(|(to, message)| match message {
            Message::Page(head, commits) if to == Some(from) => Some((head, commits.whole(REPLICA))),
            _ => None,
        });
        page.expect("a page")
    }

    /// The rows that a peer was asked to show since the last time.
    pub(super) fn shows(&mut self, to: ReplicaId) -> Vec<Show> {
        let mut shows = Vec::new();
        self.sent.retain(|(receiver, frame)| {
            let mut messages = Messages::new(frame.clone(), Some(GROUP), usize::MAX).unwrap();
            match messages.next() {
                Some(Ok(Message::Show(show))) if *receiver == Some(to) => shows.push(show),
                _ => return true,
            }
            false
        });
        shows
    }

    /// Lets a peer, which has these commits, show each of them that it is asked for; returns how many that were.
    pub(super) fn convince(&mut self, from: ReplicaId, commits: &[&Made]) -> usize {
        let mut shown = 0;
        loop {
            let shows = self.shows(from);
            if shows.is_empty() {
                return shown;
            }
            for show in shows {
                shown += 1;
                let frame = answer_to(&show, commits);
                self.feed(from, frame);
            }
        }
    }

    pub(super) fn content(&self) -> BTreeMap<Key, Value> {
        self.store.0.lock().unwrap().clone()
    }
}

/// The rules without one of them.
macro_rules! without {
    ($rule:ident) => {
        Rules { $rule: false, ..Rules::ALL }
    };
}
pub(super) use without;
