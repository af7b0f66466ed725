//! Goal: a check finds whatever is damaged in the logs here, takes of peers what has the digest that the log names and
//! nothing else, and leaves the store as it was before the damage. Method: bits of a replica's store are flipped under its
//! engine, and made-up peers show what they have.

use super::*;

/// The log rows and the values of a store, and the records.
pub(super) fn flip(world: &World, key: &Key, at: usize) {
    let mut map = world.store.0.lock().unwrap();
    map.get_mut(key).unwrap()[at] ^= 1 << (at % 8);
}

pub(super) fn remove(world: &World, key: &Key) {
    world.store.0.lock().unwrap().remove(key).unwrap();
}

/// The commits of a log here, as a peer has them that has all.
pub(super) fn commits_of(world: &World, stream: ReplicaId) -> Vec<Made> {
    let rows = world.store.entries(keys::logs(stream));
    let made = rows.into_iter().zip(1..).map(|(Entry { value: row, .. }, seq)| {
        let entry = LogEntry::parse(stream, split_row(&row).unwrap().1).unwrap();
        let mut values = Vec::new();
        for change in entry.changes.iter().filter(|change| change.value.is_some()) {
            let kept = world.get(keys::kept(stream, seq, &change.record));
            let record = || record::value_of(&world.get(change.record.as_bytes().to_vec()).unwrap()).to_vec();
            values.extend(kept.unwrap_or_else(record));
        }
        Made { stream, seq, row, values, stamp: entry.stamp }
    });
    made.collect()
}

/// A replica with commits of its own, four of B and one of C, of which some values are kept.
pub(super) fn relay() -> World {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made =
        [b.tag(1, "a"), b.tag(2, "b"), b.tag(1, "c"), b.commit(&[], vec![tagged(3, "d"), tagged(4, "e")])];
    made.iter().for_each(|made| world.feed(B, live(&[made])));
    world.feed(C, live(&[&Author::new(C, C_DEVICE).tag(5, "f")]));
    for n in 0..3 {
        world.commit(vec![tag(6, ["x", "y", "z"][n]), tag(7, "w")]).unwrap();
    }
    world.events();
    world.said();
    world
}

impl World {
    /// Asks for a check of the logs.
    pub(super) fn checks(&mut self) {
        self.handle(Input::CheckLog(Ticket(900)));
        self.settle();
    }

    /// The result of the check, once it has one.
    pub(super) fn checked(&mut self) -> Option<LogCheck> {
        self.checked.pop().map(|(_, result)| result.unwrap())
    }

    /// Lets a peer answer all that it is asked for, with these commits; returns how often it was asked.
    pub(super) fn answers(&mut self, peer: ReplicaId, commits: &[Made]) -> usize {
        let mut asked = 0;
        loop {
            let shows = self.shows(peer);
            let pulls = self.pulls_to(peer);
            if shows.is_empty() && pulls.is_empty() {
                return asked;
            }
            for show in shows {
                asked += 1;
                let frame = answer_to(&show, &commits.iter().collect::<Vec<_>>());
                self.feed(peer, frame);
            }
            for pull in pulls {
                asked += 1;
                let left_out = |made: &&Made| !pull.excluded.0.contains(&made.stream);
                let has = |stream| pull.heads.0.iter().find(|head| head.stream == stream);
                let next = commits.iter().filter(left_out).find(|made| match has(made.stream) {
                    // A peer compares the digest, and would doubt another one.
                    Some(head) if head.seq + 1 == made.seq => {
                        assert_eq!(split_row(&made.row).unwrap().0, head.digest);
                        true
                    }
                    head => head.is_none() && made.seq == 1,
                });
                let page = page_of(answer(&pull, true), &next.into_iter().collect::<Vec<_>>());
                self.feed(peer, page);
            }
        }
    }

    /// The pulls that a peer was sent since the last time.
    pub(super) fn pulls_to(&mut self, peer: ReplicaId) -> Vec<Pull> {
        let mut pulls = Vec::new();
        self.sent.retain(|(to, frame)| {
            let mut messages = Messages::new(frame.clone(), Some(GROUP), usize::MAX).unwrap();
            match messages.next() {
                Some(Ok(Message::Pull(pull))) if *to == Some(peer) => pulls.push(pull),
                _ => return true,
            }
            false
        });
        pulls
    }

    pub(super) fn damaged(&self, stream: ReplicaId) -> Option<Damage> {
        self.engine.report().streams.into_iter().find(|view| view.replica == stream).unwrap().damaged
    }

    pub(super) fn head_of(&self, stream: ReplicaId) -> WireHead {
        let head = Head::parse(stream, &self.get(keys::head(stream)).unwrap()).unwrap();
        WireHead { stream, seq: head.seq, digest: head.digest }
    }
}

#[test]
fn a_sound_log_is_read_once_and_asks_nobody() {
    let mut world = relay();
    world.feed(B, hello(1, &[world.head_of(B), world.own()]));
    let (before, own) = (world.content(), world.own().seq);
    world.said();
    world.checks();
    assert_eq!(world.checked(), Some(LogCheck { commits: own + 5, mended: 0, damaged: vec![] }));
    assert!(world.content() == before && world.shows(B).is_empty() && world.pulls().is_empty());
    assert_eq!(world.events(), []);
}

/// C19: each bit of each row, and each row that is gone; of another's stream and of the own one.
#[test]
fn every_damaged_row_is_found_and_fetched() {
    let len = |stream, seq| relay().get(keys::log(stream, seq)).unwrap().len();
    for (stream, peer, seq) in [(B, B, 1), (B, C, 3), (B, B, 4), (REPLICA, C, 1), (REPLICA, B, 6)] {
        let gone = len(stream, seq);
        for at in (0..gone).step_by(5).chain([gone]) {
            let mut world = relay();
            let (before, commits) = (world.content(), commits_of(&world, stream));
            let key = keys::log(stream, seq);
            if at < gone {
                flip(&world, &key, at);
            } else {
                remove(&world, &key);
            }
            world.checks();
            let damage = Damage { stream, seq, part: DamagedPart::Row };
            let result = world.checked().expect("nobody is there to be asked");
            assert_eq!((result.mended, result.damaged), (0, vec![damage]), "byte {at} of {seq}");
            assert_eq!((world.events(), world.damaged(stream)), (vec![Event::Damaged(damage)], Some(damage)));
            // A peer that holds the stream comes up.
            world.feed(peer, hello(1, &[world.head_of(stream)]));
            assert_eq!(world.answers(peer, &commits), 1, "byte {at} of {seq}");
            assert!(world.content() == before, "byte {at} of {seq}");
            assert_eq!((world.events(), world.damaged(stream)), (vec![Event::Mended(damage)], None));
            let page = world.page(C, &[], 1 << 20).1;
            let served = page.iter().filter(|commit| commit.stream == stream).count();
            assert_eq!(served, commits.len(), "byte {at} of {seq}");
            assert_eq!(world.audit(), []);
        }
    }
}

/// With a peer at hand the result of the call has it all, also if rows behind each other are damaged.
#[test]
fn a_check_mends_what_peers_have_before_it_answers() {
    let mut world = relay();
    let (before, commits) = (world.content(), commits_of(&world, B));
    world.feed(B, hello(1, &[world.head_of(B)]));
    for (seq, at) in [(1, 40), (2, 3), (3, 50), (4, 70)] {
        flip(&world, &keys::log(B, seq), at);
    }
    world.checks();
    assert_eq!(world.checked(), None, "B is asked first");
    assert_eq!(world.answers(B, &commits), 4);
    let own = world.own().seq;
    assert_eq!(world.checked(), Some(LogCheck { commits: own + 5, mended: 4, damaged: vec![] }));
    assert!(world.content() == before);
}

/// A peer that was set aside, since it contradicted the damaged log here, is heard again once that is mended.
#[test]
fn a_peer_that_contradicted_the_damage_is_heard_again() {
    let mut world = relay();
    let commits = commits_of(&world, REPLICA);
    let own = world.own();
    flip(&world, &keys::log(REPLICA, own.seq), 60);
    let other = world.copy_at(own.seq - 1).tag(9, "another");
    world.feed(B, hello(1, &[WireHead { digest: [7; 32], ..own }]));
    world.convince(B, &[&other]);
    let disputed = |world: &World| {
        let streams = world.engine.report().streams;
        streams.into_iter().find(|view| view.replica == REPLICA).unwrap().disputed
    };
    assert_eq!(disputed(&world), [B]);
    world.feed(C, hello(1, &[own]));
    world.checks();
    world.answers(C, &commits);
    assert_eq!((disputed(&world), world.damaged(REPLICA)), (vec![], None));
}

/// A peer's word mends nothing unless it has the digest that the log here names; then others are asked.
#[test]
fn what_is_not_the_row_mends_nothing() {
    let mut world = relay();
    let (before, commits) = (world.content(), commits_of(&world, B));
    for peer in [B, C] {
        world.feed(peer, hello(1, &[world.head_of(B)]));
    }
    flip(&world, &keys::log(B, 2), 50);
    let damaged = world.content();
    world.checks();
    let other = Author { seq: 1, digest: split_row(&commits[1].row).unwrap().0, ..Author::new(B, B_DEVICE) }
        .tag(9, "made up");
    assert_eq!((world.answers(B, &[other]), world.checked()), (1, None), "C is asked next");
    assert_eq!(world.answers(C, &[]), 1);
    let damage = Damage { stream: B, seq: 2, part: DamagedPart::Row };
    assert_eq!(world.checked().map(|check| check.damaged), Some(vec![damage]));
    assert!(world.content() == damaged);
    // A row that comes unasked mends nothing either.
    let row =
        WireRow { previous: split_row(&commits[1].row).unwrap().0, entry: commits[1].row[32..].to_vec() };
    world.feed(C, wire::shown(GROUP, &Shown { stream: B, seq: 2, head: 0, row: Some(row) }));
    assert!(world.content() == damaged);
    world.feed(C, hello(1, &[world.head_of(B)]));
    assert_eq!(world.answers(C, &commits), 1, "at the next hello");
    assert!(world.content() == before);
}

/// A value lies in the record that its commit wrote last, or is kept. It is put back where it belongs.
#[test]
fn every_damaged_value_is_found_and_fetched() {
    let of = |id: u32| RecordKey::new::<Tag>(&id);
    for (stream, seq, key) in [
        (B, 1, keys::kept(B, 1, &of(1))),
        (B, 3, of(1).into_bytes()),
        (B, 4, of(4).into_bytes()),
        (REPLICA, 4, keys::kept(REPLICA, 4, &of(6))),
        (REPLICA, 6, of(6).into_bytes()),
    ] {
        for gone in [false, true] {
            let is_kept = matches!(StoredKey::parse(&key), Some(StoredKey::Kept(..)));
            if gone && !is_kept {
                continue;
            }
            let mut world = relay();
            let (before, commits) = (world.content(), commits_of(&world, stream));
            assert!(before.contains_key(&key), "{seq} of {stream}");
            world.feed(C, hello(1, &[world.head_of(stream)]));
            if gone {
                remove(&world, &key);
            } else {
                flip(&world, &key, before[&key].len() - 1);
            }
            world.checks();
            let damage = Damage { stream, seq, part: DamagedPart::Value };
            assert_eq!((world.events(), world.checked()), (vec![Event::Damaged(damage)], None));
            assert_eq!(world.answers(C, &commits), 1, "{seq} of {stream}");
            assert!(world.content() == before, "{seq} of {stream}");
            let result = world.checked().unwrap();
            assert_eq!((result.mended, result.damaged), (1, vec![]));
            assert_eq!((world.events(), world.damaged(stream)), (vec![Event::Mended(damage)], None));
        }
    }
}

/// A value that a peer makes up has another digest, so it is none of the commit.
#[test]
fn what_is_not_the_value_mends_nothing() {
    let mut world = relay();
    let commits = commits_of(&world, B);
    let key = keys::kept(B, 1, &RecordKey::new::<Tag>(&1));
    flip(&world, &key, 1);
    let damaged = world.content();
    world.feed(C, hello(1, &[world.head_of(B)]));
    let mut other_value = commits[0].clone();
    other_value.values[2] ^= 1;
    let another = Author::new(B, B_DEVICE).tag(1, "another");
    for made_up in [other_value, another] {
        world.checks();
        assert_eq!(world.answers(C, &[made_up]), 1);
        assert_eq!(
            world.checked().unwrap().damaged,
            [Damage { stream: B, seq: 1, part: DamagedPart::Value }]
        );
        assert!(world.content() == damaged);
    }
}

/// All lost values of a log are named, not the first alone, and a damaged row hides none above it.
#[test]
fn one_damage_hides_none_above_it() {
    let mut world = relay();
    for seq in [4, 5] {
        remove(&world, &keys::kept(REPLICA, seq, &RecordKey::new::<Tag>(&6)));
    }
    flip(&world, &keys::log(REPLICA, 2), 40);
    world.checks();
    let damage = |seq, part| Damage { stream: REPLICA, seq, part };
    let all = [(2, DamagedPart::Row), (4, DamagedPart::Value), (5, DamagedPart::Value)];
    assert_eq!(world.checked().unwrap().damaged, all.map(|(seq, part)| damage(seq, part)));
}

/// A long log is read in parts, and commits go on meanwhile.
#[test]
fn a_check_keeps_no_commit_waiting() {
    let mut world = World::connected(Rules::ALL);
    (0..600).for_each(|n| world.commit(vec![tag(n % 7, "a"), tag(100 + n, "b")]).unwrap());
    world.handle(Input::CheckLog(Ticket(900)));
    let job = world.up_to_find();
    world.commit(vec![tag(1, "while it reads")]).unwrap();
    assert!(world.checked.is_empty());
    world.scanned = 0;
    let answer = block_on(world.store.scan(keys::logs_from(REPLICA, 603 - 255), ScanLimit::entries(256)))
        .map(Answer::Page);
    world.handle(Input::Found(job, answer));
    world.settle();
    let result = world.checked().unwrap();
    assert_eq!((result.commits, result.damaged), (603, vec![]));
    flip(&world, &keys::log(REPLICA, 200), 40);
    world.checks();
    let damage = Damage { stream: REPLICA, seq: 200, part: DamagedPart::Row };
    let result = world.checked().unwrap();
    assert_eq!((result.commits, result.damaged), (604 - 200, vec![damage]));
}

/// A peer that is silent is not waited for, nor one that goes away; a store that refuses is not asked again and again.
#[test]
fn a_check_comes_to_an_end() {
    let damage = Damage { stream: B, seq: 2, part: DamagedPart::Row };
    for what in ["silent", "down", "rejected"] {
        let mut world = relay();
        let commits = commits_of(&world, B);
        world.feed(B, hello(1, &[world.head_of(B)]));
        flip(&world, &keys::log(B, 2), 50);
        world.checks();
        let [show] = world.shows(B)[..] else { panic!("B is asked") };
        match what {
            "silent" => world.pass(60_000),
            "down" => {
                world.handle(Input::Down(B));
                world.settle();
            }
            _ => {
                let frame = answer_to(&show, &commits.iter().collect::<Vec<_>>());
                world.handle(Input::Frame(B, frame));
                world.up_to_write().expect("it is mended");
                world.rejected();
                world.settle();
            }
        }
        assert_eq!(world.checked().map(|check| check.damaged), Some(vec![damage]), "{what}");
        assert_eq!(world.shows(B), [], "{what}");
        world.handle(Input::Up(B));
        world.feed(B, hello(2, &[world.head_of(B)]));
        assert_eq!((world.answers(B, &commits), world.damaged(B)), (1, None), "{what}");
    }
}

/// Where the medium itself is broken, the same is not fetched and written again and again.
#[test]
fn a_place_that_is_damaged_again_is_left() {
    let mut world = relay();
    let commits = commits_of(&world, B);
    world.feed(B, hello(1, &[world.head_of(B)]));
    flip(&world, &keys::log(B, 2), 50);
    world.checks();
    for session in 1..3 {
        let [show] = world.shows(B)[..] else { panic!("B is asked") };
        world.handle(Input::Frame(B, answer_to(&show, &commits.iter().collect::<Vec<_>>())));
        let batch = world.up_to_write().expect("it is mended");
        world.written(batch);
        flip(&world, &keys::log(B, 2), 50);
        world.settle();
        assert_eq!(world.shows(B), []);
        let left = world.checked().map(|check| (check.mended, check.damaged.len()));
        assert_eq!(left, (session == 1).then_some((1, 1)));
        assert!(world.damaged(B).is_some());
        world.feed(B, hello(1, &[world.head_of(B)]));
    }
}

/// A store that cannot be read fails the call, and the next one begins anew.
#[test]
fn a_store_that_cannot_be_read_fails_the_check() {
    let mut world = relay();
    world.handle(Input::CheckLog(Ticket(900)));
    let job = world.up_to_find();
    world.handle(Input::Found(job, Err(ReadError("no".into()))));
    world.settle();
    assert!(matches!(world.checked.pop(), Some((900, Err(Error::Read(_))))));
    world.checks();
    assert_eq!(world.checked().map(|check| check.damaged), Some(vec![]));
}

/// A call that comes during a check is answered by one that began after it.
#[test]
fn a_later_call_has_a_check_of_its_own() {
    let mut world = relay();
    world.handle(Input::CheckLog(Ticket(900)));
    let job = world.up_to_find();
    world.handle(Input::CheckLog(Ticket(901)));
    let rows =
        block_on(world.store.scan(keys::logs_from(REPLICA, 1), ScanLimit::entries(6))).map(Answer::Page);
    flip(&world, &keys::log(REPLICA, 4), 60);
    world.handle(Input::Found(job, rows));
    world.settle();
    let damaged: Vec<_> =
        world.checked.drain(..).map(|(ticket, result)| (ticket, result.unwrap().damaged.len())).collect();
    assert_eq!(damaged, [(900, 0), (901, 1)]);
}

impl World {
    /// Asks for a check, and performs effects up to a read of it; returns that read, if it comes, and what it finds.
    pub(super) fn checks_up_to(
        &mut self,
        is_it: impl Fn(&Query) -> bool,
    ) -> Option<(JobId, Result<Answer, ReadError>)> {
        self.handle(Input::CheckLog(Ticket(901)));
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Find(job, query) => {
                    let found = is_it(&query);
                    let answer = self.find(query);
                    if found {
                        return Some((job, answer));
                    }
                    self.handle(Input::Found(job, answer));
                }
                Effect::Send(to, frame) => self.sent.push((Some(to), frame)),
                other => panic!("{other:?} comes before the read"),
            }
        }
        None
    }
}

/// A place that a check has read before it was mended is no damage.
#[test]
fn a_place_that_is_mended_is_not_found_damaged_by_an_earlier_read() {
    let mut world = relay();
    let (before, commits) = (world.content(), commits_of(&world, B));
    let key = keys::kept(B, 1, &RecordKey::new::<Tag>(&1));
    flip(&world, &key, 1);
    world.checks();
    assert_eq!(world.checked().map(|check| check.damaged.len()), Some(1), "nobody is there to be asked");
    world.feed(C, hello(1, &[world.head_of(B)]));
    let read = world.checks_up_to(|query| matches!(query, Query::Get(keys) if keys.contains(&key)));
    assert_eq!(world.answers(C, &commits), 1);
    read.into_iter().for_each(|(job, answer)| world.handle(Input::Found(job, answer)));
    world.settle();
    assert!(world.content() == before);
    assert_eq!((world.checked().map(|check| check.damaged), world.damaged(B)), (Some(vec![]), None));
}

/// A peer that says hello and answers nothing is not asked place by place, again and again.
#[test]
fn a_peer_that_is_silent_but_for_its_hellos_keeps_no_check_from_its_end() {
    let mut world = relay();
    let commits = commits_of(&world, B);
    let head = world.head_of(B);
    for stream in [B, REPLICA] {
        flip(&world, &keys::log(stream, 2), 50);
    }
    let greet = |world: &mut World| world.feed(C, hello(1, &[head, world.own()]));
    greet(&mut world);
    world.checks();
    let waited = (0..8).take_while(|_| {
        world.pass(25_000);
        world.sent.clear();
        greet(&mut world);
        world.checked.is_empty()
    });
    assert_eq!(waited.count(), 2, "it is given the time of one answer");
    assert_eq!(world.checked().map(|check| check.damaged.len()), Some(2));
    assert!(world.answers(C, &commits) > 0, "it is asked again at the hello behind the check");
    assert_eq!(world.damaged(B), None);
}

/// A peer may have been silent since it was asleep. The next check asks it again, and need not wait for its hello.
#[test]
fn a_peer_that_was_silent_is_asked_by_the_next_check() {
    let mut world = relay();
    let commits = commits_of(&world, B);
    world.feed(B, hello(1, &[world.head_of(B)]));
    flip(&world, &keys::log(B, 2), 50);
    world.checks();
    world.pass(60_000);
    assert_eq!(world.checked().map(|check| check.damaged.len()), Some(1));
    world.sent.clear();
    world.checks();
    assert_eq!(world.answers(B, &commits), 1);
    assert_eq!(world.checked().map(|check| (check.mended, check.damaged)), Some((1, vec![])));
}

/// A check says what it found itself. What was mended since the one before, and what one that failed had found, is no part
/// of it.
#[test]
fn a_check_counts_what_it_found_itself() {
    let mut world = relay();
    let (commits, own) = (commits_of(&world, B), world.own().seq);
    flip(&world, &keys::log(B, 2), 50);
    world.checks();
    assert_eq!(world.checked().map(|check| (check.mended, check.damaged.len())), Some((0, 1)));
    world.feed(B, hello(1, &[world.head_of(B)]));
    assert_eq!((world.answers(B, &commits), world.damaged(B)), (1, None));
    let whole = LogCheck { commits: own + 5, mended: 0, damaged: vec![] };
    world.checks();
    assert_eq!(world.checked(), Some(whole.clone()));
    let (job, _) = world
        .checks_up_to(
            |query| matches!(query, Query::Scan(range, _) if range.contains(&keys::log(REPLICA, 1))),
        )
        .expect("the own log is read");
    world.handle(Input::Found(job, Err(ReadError("no".into()))));
    world.settle();
    world.checked.clear();
    world.checks();
    assert_eq!(world.checked(), Some(whole));
}

impl World {
    /// Checks the logs; returns how many bytes each read found.
    fn read_by_a_check(&mut self) -> Vec<usize> {
        self.handle(Input::CheckLog(Ticket(902)));
        let mut read = Vec::new();
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Find(job, query) => {
                    let answer = self.find(query);
                    read.push(match &answer {
                        Ok(Answer::Page(page)) => page.entries.iter().map(|row| row.value.len()).sum(),
                        Ok(Answer::Values(values)) => values.iter().flatten().map(Vec::len).sum(),
                        other => panic!("{other:?}"),
                    });
                    self.handle(Input::Found(job, answer));
                }
                Effect::Write(job, batch) => {
                    block_on(self.store.write(batch)).unwrap();
                    self.handle(Input::Written(job, Ok(())));
                }
                Effect::Checked(Ticket(ticket), result) => self.checked.push((ticket, result)),
                _ => {}
            }
        }
        read
    }
}

/// However long its rows and its values are, a log is checked a mebibyte at a time. So is one whose end is looked for.
#[test]
fn a_check_reads_no_more_at_once_than_memory_has_room_for() {
    let long_values: fn(u32) -> Vec<Staged> = |n| vec![tag(n, &"a".repeat(200_000))];
    let long_rows: fn(u32) -> Vec<Staged> = |n| (0..2_000).map(|id| tag(id, &n.to_string())).collect();
    for (what, make, wrong_head) in
        [("values", long_values, false), ("rows", long_rows, false), ("rows", long_rows, true)]
    {
        let mut world = World::connected(Rules::ALL);
        (0..16).for_each(|n| world.commit(make(n)).unwrap());
        let rows = world.store.entries(keys::logs(REPLICA));
        let bytes = rows.iter().map(|row| row.value.len()).sum::<usize>();
        assert!(what == "values" || bytes > 5 << 18, "{bytes}");
        if wrong_head {
            flip(&world, &keys::head(REPLICA), 8);
            world.reopen(networked(Rules::ALL));
        }
        let read = world.read_by_a_check();
        assert!(read.iter().all(|bytes| *bytes <= (1 << 20) + 4_096), "{what} {wrong_head}: {read:?}");
        let result = world.checked().unwrap();
        assert_eq!((result.commits, result.damaged), (rows.len() as u64, vec![]), "{what} {wrong_head}");
    }
}

/// A replica that is alone prunes its log at each commit. What is pruned while a check reads is no damage.
#[test]
fn what_is_pruned_while_a_check_reads_is_no_damage() {
    for at in 0..4 {
        let mut world = World::new(Rules::ALL);
        for name in ["a", "b"] {
            world.commit(vec![tag(1, name)]).unwrap();
        }
        world.handle(Input::CheckLog(Ticket(902)));
        let mut reads = 0;
        while let Some(effect) = world.engine.next_effect() {
            match effect {
                Effect::Find(job, query) => {
                    if reads == at {
                        world.commit(vec![tag(1, "c")]).unwrap();
                    }
                    reads += 1;
                    let answer = world.find(query);
                    world.handle(Input::Found(job, answer));
                }
                Effect::Checked(Ticket(ticket), result) => world.checked.push((ticket, result)),
                Effect::Notify(notice) => world.notices.push(notice),
                _ => {}
            }
        }
        let damaged = |event: &Event| matches!(event, Event::Damaged(_));
        assert_eq!((world.checked().unwrap().damaged, world.damaged(REPLICA)), (vec![], None), "read {at}");
        assert!(reads > 0 && !world.events().iter().any(damaged), "read {at}");
    }
}

/// A value is asked for with a pull, which must not come between a page and the pages that go on from it.
#[test]
fn no_value_is_asked_for_while_a_page_is_on_its_way() {
    let mut world = relay();
    let commits = commits_of(&world, B);
    flip(&world, &keys::kept(B, 1, &RecordKey::new::<Tag>(&1)), 1);
    let head = world.head_of(B);
    let mut b = Author { seq: head.seq, digest: head.digest, wall: 1_100, ..Author::new(B, B_DEVICE) };
    let next = b.tag(9, "next");
    world.feed(B, hello(1, &[b.head()]));
    let [(peer, pull)] = &world.pulls()[..] else { panic!("B has more") };
    world.feed(C, hello(1, &[head]));
    world.checks();
    assert_eq!((world.checked(), world.pulls()), (None, vec![]), "the page comes first");
    world.feed(*peer, page_of(answer(pull, false), &[&next]));
    assert_eq!(world.seq_of(B), b.seq);
    let asked = world.answers(B, &commits) + world.answers(C, &commits);
    assert_eq!((asked, world.checked().map(|check| check.damaged)), (1, Some(vec![])));
}

/// Peers leave out what they heard that is damaged here, until the next hello: so one is said as soon as all is mended, and
/// not with the next input or half a minute later.
#[test]
fn peers_hear_at_once_that_a_log_was_mended() {
    for (seq, waits) in (1..=4).flat_map(|seq| [(seq, true), (seq, false)]) {
        let mut world = relay();
        let (commits, head) = (commits_of(&world, B), world.head_of(B));
        if waits {
            world.feed(B, hello(1, &[head]));
        }
        flip(&world, &keys::log(B, seq), 50);
        world.checks();
        world.feed(B, hello(1, &[head]));
        assert_eq!(world.answers(B, &commits), 1);
        let hellos = |said: Vec<(Option<ReplicaId>, Message)>| {
            let to_c = said.into_iter().filter(|(to, _)| *to == Some(C));
            to_c.filter(|(_, message)| matches!(message, Message::Hello(_))).count()
        };
        assert_eq!(hellos(world.said()), 1, "{seq} {waits}");
    }
}

/// The walk behind a mended row goes on for no call. One that comes meanwhile waits for its end, and for nothing else.
#[test]
fn a_call_that_comes_while_a_mended_log_is_read_is_answered() {
    let mut world = relay();
    let (commits, own) = (commits_of(&world, B), world.own().seq);
    flip(&world, &keys::log(B, 3), 50);
    world.checks();
    world.checked.clear();
    world.feed(B, hello(1, &[world.head_of(B)]));
    let [show] = world.shows(B)[..] else { panic!("B is asked") };
    world.handle(Input::Frame(B, answer_to(&show, &commits.iter().collect::<Vec<_>>())));
    let batch = world.up_to_write().expect("it is mended");
    world.written(batch);
    world.handle(Input::CheckLog(Ticket(903)));
    for peer in [B, C] {
        world.handle(Input::Down(peer));
    }
    world.settle();
    assert_eq!(world.checked(), Some(LogCheck { commits: own + 5, mended: 0, damaged: vec![] }));
}
