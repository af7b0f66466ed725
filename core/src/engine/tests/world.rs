//! A replica in a test: a real engine whose effects are performed one by one, so that a test can stop between any two.

use super::*;

/// A replica whose effects are performed one by one.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) store: Map,
    pub(super) now: Now,
    next_ticket: u64,
    /// The commits of the joined writes that have not had their turn.
    pub(super) joins: BTreeMap<Ticket, Commit>,
    /// The write for whose end the engine waits.
    pub(super) open: Option<peek::Open>,
    pub(super) replies: Vec<(u64, Result<(), Error>)>,
    pub(super) notices: Vec<Notice>,
    /// The answers to calls that asked for a device to add.
    pub(super) knocked: Vec<(u64, Result<DeviceId, Error>)>,
    /// The answers to calls that asked for a check of the logs.
    pub(super) checked: Vec<(u64, Result<LogCheck, Error>)>,
    /// The answers to calls that waited for members.
    pub(super) synced: Vec<(u64, Result<Synced, Error>)>,
    pub(super) durable: Vec<(u64, Result<DurableOn, Error>)>,
    pub(super) writes: Vec<WriteBatch>,
    /// The frames that were sent, each with its receiver; `None` stands for a broadcast.
    pub(super) sent: Vec<(Option<ReplicaId>, Bytes)>,
    /// The receivers of the last broadcast.
    pub(super) reached: Vec<ReplicaId>,
    /// How many rows were read to answer peers.
    pub(super) scanned: usize,
    /// How many reads for peers there were.
    pub(super) finds: usize,
    /// Whether the engine said that nothing is left to fold.
    pub(super) is_folded: bool,
    /// The overlay that reads are to show.
    pub(super) overlay: Overlay,
}

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        Self::asking(ask(rules))
    }

    pub(super) fn asking(ask: Ask) -> Self {
        Self::with_models(ask, models())
    }

    /// A world whose app has only these models.
    pub(super) fn with_models(ask: Ask, models: Registry) -> Self {
        let store = Map::default();
        let engine = open_engine_with(&store, ask, models, now(1000)).unwrap();
        Self {
            engine,
            store,
            now: now(1000),
            next_ticket: 1,
            joins: BTreeMap::new(),
            open: None,
            replies: Vec::new(),
            notices: Vec::new(),
            knocked: Vec::new(),
            checked: Vec::new(),
            synced: Vec::new(),
            durable: Vec::new(),
            writes: Vec::new(),
            sent: Vec::new(),
            reached: Vec::new(),
            scanned: 0,
            finds: 0,
            is_folded: false,
            overlay: Overlay::None,
        }
    }

    /// A world whose log is not pruned, as if a member were away.
    pub(super) fn unpruned() -> Self {
        Self::new(Rules { prune: false, ..Rules::ALL })
    }

    /// Opens the store again, as after the end of the process: what was not durable is lost.
    pub(super) fn reopen_at(&mut self, ask: Ask, now: Now) {
        (self.joins, self.open) = (BTreeMap::new(), None);
        self.engine = open_engine(&self.store, ask, now).unwrap();
        self.overlay = self.engine.overlay();
    }

    pub(super) fn reopen(&mut self, ask: Ask) {
        self.reopen_at(ask, now(2000));
    }

    /// A second engine over the same store, which sees what the first one has made durable.
    pub(super) fn reopened(&self, ask: Ask) -> Engine {
        open_engine(&self.store, ask, now(2000)).unwrap()
    }

    /// Gives the engine an input at the present time.
    pub(super) fn handle(&mut self, input: Input) {
        self.engine.handle(self.now.clone(), input);
    }

    /// Hands over a commit of the app; gives the ticket by which it is answered.
    pub(super) fn submit(&mut self, changes: Vec<Staged>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.handle(Input::Commit(Ticket(ticket), Commit { changes, bytes: 100 }));
        ticket
    }

    pub(super) fn submit_joined(&mut self, changes: Vec<Staged>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.joins.insert(Ticket(ticket), Commit { changes, bytes: 100 });
        self.handle(Input::Join(Ticket(ticket)));
        ticket
    }

    /// Performs effects up to and with the next write, and returns that write instead of applying it.
    pub(super) fn up_to_write(&mut self) -> Option<WriteBatch> {
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Read(job, keys) => {
                    let values = block_on(self.store.get_many(&keys));
                    self.handle(Input::Read(job, keys, values));
                }
                Effect::Scan(job, range, limit) => {
                    let page = block_on(self.store.scan(range, limit));
                    self.handle(Input::Scanned(job, page));
                }
                Effect::Write(job, batch) => {
                    self.open = Some((job, None));
                    return Some(batch);
                }
                effect @ Effect::Join(..) => {
                    if let Some(batch) = self.join(effect) {
                        return Some(batch);
                    }
                }
                Effect::Round(..) | Effect::Receive(..) | Effect::WriteProjected(..) | Effect::Mend(_) => {
                    panic!("nothing is projected here")
                }
                Effect::Folded => self.is_folded = true,
                Effect::Folding => self.is_folded = false,
                Effect::Overlay(overlay) => self.overlay = overlay,
                Effect::Find(job, query) => {
                    let answer = self.find(query);
                    self.handle(Input::Found(job, answer));
                }
                Effect::Send(to, frame) => self.sent.push((Some(to), frame)),
                Effect::Broadcast(to, frame) => {
                    self.sent.push((None, frame));
                    self.reached = to;
                }
                Effect::Reply(Ticket(ticket), result) => self.replies.push((ticket, result)),
                Effect::Checked(Ticket(ticket), result) => self.checked.push((ticket, result)),
                Effect::Knocked(Ticket(ticket), device) => self.knocked.push((ticket, device)),
                Effect::Synced(Ticket(ticket), answer) => self.synced.push((ticket, answer)),
                Effect::Durable(Ticket(ticket), _, answer) => self.durable.push((ticket, answer)),
                Effect::Notify(notice) => self.notices.push(notice),
            }
        }
        None
    }

    /// Performs effects up to the read of a write; returns its id and its keys.
    pub(super) fn up_to_read(&mut self) -> (JobId, Vec<Key>) {
        loop {
            match self.engine.next_effect().expect("a write reads") {
                Effect::Read(job, keys) => return (job, keys),
                Effect::Send(to, frame) => self.sent.push((Some(to), frame)),
                Effect::Broadcast(_, frame) => self.sent.push((None, frame)),
                Effect::Reply(Ticket(ticket), result) => self.replies.push((ticket, result)),
                Effect::Notify(notice) => self.notices.push(notice),
                other => panic!("{other:?} comes before any read"),
            }
        }
    }

    /// Performs effects up to a read for a peer; returns its id.
    pub(super) fn up_to_find(&mut self) -> JobId {
        loop {
            match self.engine.next_effect() {
                Some(Effect::Find(job, _)) => return job,
                Some(Effect::Send(to, frame)) => self.sent.push((Some(to), frame)),
                other => panic!("{other:?} comes before any read"),
            }
        }
    }

    /// Reads for a peer.
    pub(super) fn find(&mut self, query: Query) -> Result<Answer, ReadError> {
        self.finds += 1;
        match query {
            Query::Scan(range, limit) => {
                let page = block_on(self.store.scan(range, limit))?;
                self.scanned += page.entries.len();
                Ok(Answer::Page(page))
            }
            Query::Get(keys) => block_on(self.store.get_many(&keys)).map(Answer::Values),
            Query::Count(range) => {
                let entries = self.store.entries(range);
                let bytes = entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
                Ok(Answer::Count(entries.len() as u64, bytes as u64))
            }
        }
    }

    /// Applies a write, and tells the engine that it is durable.
    pub(super) fn written(&mut self, batch: WriteBatch) {
        block_on(self.store.write(batch.clone())).unwrap();
        self.writes.push(batch);
        let input = self.end_of_write(Ok(()));
        self.handle(input);
    }

    /// Tells the engine that the store did not take its write.
    pub(super) fn rejected(&mut self) {
        let no: SharedError = Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("no"));
        let input = self.end_of_write(Err(no));
        self.handle(input);
    }

    /// Performs all effects.
    pub(super) fn settle(&mut self) {
        while let Some(batch) = self.up_to_write() {
            self.written(batch);
        }
    }

    /// Commits, performs all effects and returns the answer.
    pub(super) fn commit(&mut self, changes: Vec<Staged>) -> Result<(), Error> {
        let ticket = self.submit(changes);
        self.settle();
        let at = self.replies.iter().position(|(replied, _)| *replied == ticket).expect("a reply");
        self.replies.remove(at).1
    }

    /// The head of the own stream.
    pub(super) fn head(&self) -> Head {
        self.own_head()
    }

    pub(super) fn get(&self, key: Key) -> Option<Value> {
        block_on(self.store.get_many(&[key])).unwrap().remove(0)
    }

    /// A commit of the own log.
    pub(super) fn logged(&self, seq: u64) -> LogEntry {
        let row = self.get(keys::log(REPLICA, seq)).unwrap();
        LogEntry::parse(REPLICA, split_row(&row).unwrap().1).unwrap()
    }

    /// The value of a tag that is kept for a commit of the own log.
    pub(super) fn kept(&self, seq: u64, id: u32) -> Option<Value> {
        self.get(keys::kept(REPLICA, seq, &RecordKey::new::<Tag>(&id)))
    }

    pub(super) fn audit(&self) -> Vec<Rule> {
        block_on(audit(&self.store)).into_iter().map(|violation| violation.rule).collect()
    }

    /// Every change that was told.
    pub(super) fn changes(&self) -> Vec<(u64, ChangeKind)> {
        let events = self.notices.iter().flat_map(|notice| notice.iter());
        let changes = events.filter_map(|event| match event {
            Event::Changed(change) => Some((change.seq, change.kind)),
            _ => None,
        });
        changes.collect()
    }

    pub(super) fn stored_tags(&self) -> BTreeMap<u32, String> {
        let entries = self.store.entries(RecordKey::range_of_model::<Tag>());
        let tags = entries.iter().map(|entry| record::parse(&entry.value).unwrap());
        let tags = tags.filter(|(header, _)| !header.tombstone);
        tags.map(|(_, value)| model::decode_bytes::<Tag>(value).unwrap())
            .map(|tag| (tag.id, tag.name))
            .collect()
    }
}
