//! Goal: a round of the app's commits writes, answers and tells the right things, in the right order. Method: every
//! effect is performed by hand.

use super::*;

#[test]
fn a_commit_is_one_write_of_record_log_head_and_clock() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    let [batch] = &world.writes[..] else { panic!("one write") };
    let kinds: Vec<_> = batch
        .ops()
        .iter()
        .map(|op| match op {
            WriteOp::Put { key, .. } => ("put", StoredKey::parse(key).unwrap()),
            WriteOp::Delete { key } => ("delete", StoredKey::parse(key).unwrap()),
            WriteOp::DeleteRange { .. } => panic!("one entry is deleted by its name"),
        })
        .collect();
    let record = RecordKey::new::<Tag>(&1);
    assert_eq!(
        kinds,
        [
            ("delete", StoredKey::Log(REPLICA, 1)),
            ("put", StoredKey::Log(REPLICA, 2)),
            ("put", StoredKey::Record(record)),
            ("put", StoredKey::Head(REPLICA)),
            ("put", StoredKey::Clock),
        ]
    );
    assert_eq!(world.audit(), []);
    assert_eq!(world.changes(), [(2, ChangeKind::Insert)]);
}

#[test]
fn nothing_is_said_before_it_is_durable() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    assert!(world.up_to_write().is_none() && world.replies.is_empty() && world.notices.is_empty());
    world.written(batch);
    world.settle();
    assert!(matches!(world.replies[..], [(1, Ok(()))]));
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn events_are_told_before_the_reply() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    block_on(world.store.write(batch)).unwrap();
    let input = world.end_of_write(Ok(()));
    world.handle(input);
    assert!(matches!(world.engine.next_effect(), Some(Effect::Notify(_))));
    assert!(matches!(world.engine.next_effect(), Some(Effect::Reply(Ticket(1), Ok(())))));
}

#[test]
fn commits_that_arrive_during_a_write_share_the_next_one() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(0, "first")]);
    let first = world.up_to_write().unwrap();
    for id in 1..=5 {
        world.submit(vec![tag(id, "x")]);
    }
    assert!(world.up_to_write().is_none(), "one write at a time");
    world.written(first);
    world.settle();
    assert_eq!(world.writes.len(), 2);
    assert_eq!(world.changes(), (2..=7).map(|seq| (seq, ChangeKind::Insert)).collect::<Vec<_>>());
    assert_eq!(world.audit(), []);
}

#[test]
fn a_round_is_bounded_in_commits_and_bytes() {
    let limits = Limits { round_commits_max: 3, commit_bytes_max: 250, ..Limits::default() };
    for (limits, rounds) in [
        (Limits { commit_bytes_max: usize::MAX, ..limits.clone() }, vec![3, 3, 1]),
        (Limits { round_commits_max: 100, ..limits.clone() }, vec![2, 2, 2, 1]),
        (Limits { commit_bytes_max: 10, ..limits }, vec![1; 7]),
    ] {
        let mut world = World::asking(Ask { limits: Arc::new(limits), ..ask(Rules::default()) });
        for id in 0..7 {
            world.submit(vec![tag(id, "x")]);
        }
        let mut sizes = Vec::new();
        while let Some(batch) = world.up_to_write() {
            sizes.push(logged_in(&batch).len());
            world.written(batch);
        }
        assert_eq!(sizes, rounds);
    }
}

#[test]
fn an_update_sees_the_earlier_commits_of_its_round() {
    let mut world = World::new(Rules::default());
    for more in ["a", "b", "c"] {
        world.submit(vec![rename(1, more)]);
    }
    world.settle();
    assert_eq!(world.writes.len(), 1);
    let stored = world.get(RecordKey::new::<Tag>(&1).into_bytes()).unwrap();
    assert_eq!(record::value_of(&stored), encoded(1, "abc"));
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Update), (4, ChangeKind::Update)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_change_that_changes_nothing_writes_nothing() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    world.writes.clear();
    world.commit(vec![tag(1, "a")]).unwrap();
    world.commit(vec![untag(7)]).unwrap();
    world.commit(vec![rename(1, "")]).unwrap();
    assert!(world.writes.is_empty());
    assert_eq!(world.changes().len(), 1);
    // A change without effect is left out of a commit that has another change.
    world.commit(vec![tag(1, "a"), tag(2, "b")]).unwrap();
    let entry = world.logged(3);
    assert_eq!(entry.changes.len(), 1);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_commit_that_an_earlier_one_of_its_round_made_empty_waits_for_the_write() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    assert!(world.replies.is_empty());
    world.written(batch);
    world.settle();
    assert!(matches!(world.replies[..], [(1, Ok(())), (2, Ok(()))]));
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn the_same_bytes_under_a_newer_schema_are_a_change() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    let mut newer = tag(1, "a");
    if let Action::Put(value) = &mut newer.action {
        value.schema = 2;
    }
    world.commit(vec![newer]).unwrap();
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Update)]);
}

/// `after` names the streams that moved since the last own commit; in the first commit after an opening, all streams.
#[test]
fn a_commit_says_what_it_rests_on() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    world.feed(B, live(&[&b.tag(1, "a")]));
    world.commit(vec![tag(2, "x")]).unwrap();
    let after = |world: &World| world.logged(world.head().seq).after;
    let causes = |heads: &[WireHead]| heads.iter().map(cause).collect::<Vec<_>>();
    assert_eq!(after(&world), causes(&[b.head()]));
    world.commit(vec![tag(2, "y")]).unwrap();
    assert_eq!(after(&world), []);
    world.feed(C, live(&[&c.tag(3, "c")]));
    // A rejected write named causes to no peer: the next commit must name them again.
    world.submit(vec![tag(2, "z")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    world.commit(vec![tag(2, "z")]).unwrap();
    assert_eq!(after(&world), causes(&[c.head()]));
    world.reopen(networked(Rules::ALL));
    world.commit(vec![tag(2, "w")]).unwrap();
    assert_eq!(after(&world), causes(&[b.head(), c.head()]));
    assert_eq!(world.audit(), []);
}

/// A record that all commits of a round change is read once, however large it is and however many they are. Those of
/// them that find no change of the round share what was read.
#[test]
fn a_record_is_read_once_for_all_commits_of_a_round() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap();
    world.submit(vec![tag(0, "first")]);
    let first = world.up_to_write().unwrap();
    for changes in [
        vec![tag(1, "a")],
        vec![rename(1, ""), tag(3, "new")],
        vec![tag(2, "x"), rename(1, "")],
        vec![rename(1, "b"), rename(2, "y")],
        vec![rename(1, "c"), untag(2)],
    ] {
        world.submit(changes);
    }
    world.written(first);
    let (job, keys) = world.up_to_read();
    let records: Vec<_> = [1, 3, 2].iter().map(|id| RecordKey::new::<Tag>(id).into_bytes()).collect();
    assert_eq!(keys, records, "each of them once");
    let values = block_on(world.store.get_many(&keys));
    world.handle(Input::Read(job, keys, values));
    world.settle();
    assert_eq!(
        world.stored_tags(),
        BTreeMap::from([(0, "first".into()), (1, "abc".into()), (3, "new".into())])
    );
    assert_eq!(world.audit(), [], "what was displaced is kept");
}

/// The first commit of a write names the causes, and the others of its round rest on that one.
#[test]
fn the_causes_of_a_round_are_named_once() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    world.feed(B, live(&[&b.tag(1, "a")]));
    for id in 2..5 {
        world.submit(vec![tag(id, "x")]);
    }
    world.settle();
    let last = world.head().seq;
    let after: Vec<_> = (last - 2..=last).map(|seq| world.logged(seq).after).collect();
    assert_eq!(after, [vec![cause(&b.head())], vec![], vec![]]);
}

/// An app that shows changes as they come shows them as the records stand in the store.
#[test]
fn the_changes_of_a_commit_are_told_in_the_order_of_their_records() {
    let mut world = World::new(Rules::default());
    world.commit((1..9).map(|id| tag(id, "a")).collect()).unwrap();
    let told: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| if let Event::Changed(change) = event { Some(change.record) } else { None })
        .collect();
    assert_eq!((told.len(), told.is_sorted()), (8, true), "{told:?}");
}

/// A delete that stayed in the epoch before it would be merged with values that it deletes.
#[test]
fn a_delete_of_a_model_that_merges_opens_the_epoch_of_its_own_stamp() {
    let mut world = World::unpruned();
    let record = RecordKey::new::<Bag>(&1);
    let bag = Bag { id: 1, items: BTreeSet::from([1]) };
    world.commit(vec![Staged { own_merge: true, ..put(&bag) }]).unwrap();
    world.commit(vec![Staged { record: record.clone(), action: Action::Delete, own_merge: true }]).unwrap();
    world.commit(vec![Staged { own_merge: true, ..put(&bag) }]).unwrap();
    let logged = [2, 3, 4].map(|seq| world.logged(seq));
    let epochs: Vec<_> = logged.iter().map(|entry| entry.changes[0].epoch).collect();
    let deleted = logged[1].stamp;
    assert_eq!(epochs, [Some(Hlc::NEVER), Some(deleted), Some(deleted)]);
    assert_eq!((world.bag(1), world.audit()), (Some(vec![1]), vec![]));
}

/// A peer would refuse such a frame, so it gets the word that there is something to pull.
#[test]
fn a_round_that_is_too_long_for_a_frame_is_acknowledged_instead() {
    let mut world = World::limited(Limits { frame_bytes_max: 400, ..Limits::default() });
    for (name, live) in [("x".repeat(100), true), ("x".repeat(500), false)] {
        world.said();
        world.commit(vec![tag(1, &name)]).unwrap();
        world.pass(1_000);
        let said = world.said();
        let own = world.own();
        let is_live = said.iter().any(|(_, message)| matches!(message, Message::Live(_)));
        let acked =
            said.iter().any(|(_, message)| matches!(message, Message::Ack(heads) if heads.0.contains(&own)));
        assert_eq!((is_live, acked), (live, !live), "{said:?}");
    }
}

/// An acknowledgement that has waited for half of its time costs no frame of its own, if a commit goes to those whom it
/// tells.
#[test]
fn an_acknowledgement_rides_on_a_commit() {
    // How long the acknowledgement has waited, whether all whom it tells hear the commit, and whether it rides.
    for (waited, all, rides) in [(12, true, true), (8, true, false), (12, false, false)] {
        let mut world = World::limited(Limits { frame_bytes_max: 400, ..Limits::default() });
        // No frame has room for the first commit. Who does not have it gets no commit behind it.
        let before = world.own();
        world.commit(vec![tag(1, &"x".repeat(500))]).unwrap();
        world.pass(1_000);
        for (peer, head) in [(C, world.own()), (B, if all { world.own() } else { before })] {
            world.feed(peer, wire::ack(GROUP, &Capped(vec![head])));
        }
        let mut b = Author::new(B, B_DEVICE);
        world.feed(B, live(&[&b.tag(1, "theirs")]));
        world.pass(waited);
        world.sent.clear();
        world.commit(vec![tag(2, "mine")]).unwrap();
        let is_live = |message: &Message| matches!(message, Message::Live(_));
        let acks = |message: &Message| matches!(message, Message::Ack(heads) if heads.0.contains(&b.head()));
        let together = world.sent.drain(..).any(|(_, frame)| {
            let messages: Vec<_> = Messages::new(frame, Some(GROUP), usize::MAX).unwrap().collect();
            let has = |wanted: &dyn Fn(&Message) -> bool| {
                messages.iter().any(|message| wanted(message.as_ref().unwrap()))
            };
            has(&is_live) && has(&acks)
        });
        assert_eq!(together, rides, "{waited} {all}");
        world.pass(1_000);
        let later = world.said().iter().any(|(_, message)| acks(message));
        assert_eq!(later, !rides, "it is said once");
    }
}

/// Members are told of different streams. A commit that does not go to all of them takes none of it along: those whom it
/// does not reach would hear with the next hello.
#[test]
fn an_acknowledgement_that_cannot_ride_to_all_is_said_to_all() {
    let others = [0xd0, 0xe0].map(|id| (ReplicaId(Uuid::from_u128(id)), DeviceId(Uuid::from_u128(id))));
    for all in [true, false] {
        let mut world = World::connected(Rules::ALL);
        for (replica, device) in others {
            world.commit(vec![Staged { own_merge: true, ..put(&Member::new(replica, device)) }]).unwrap();
            world.handle(Input::Up(replica));
        }
        let (mut b, mut e) = (Author::new(B, B_DEVICE), Author::new(others[1].0, others[1].1));
        world.pass(1_000);
        let own = world.own();
        let level: Vec<_> = [B, C].into_iter().chain(others.iter().map(|(replica, _)| *replica)).collect();
        let level = level.into_iter().filter(|peer| all || *peer != others[0].0);
        level.for_each(|peer| world.feed(peer, hello(1, &[own])));
        if !all {
            // The peer asks for everything, so it gets no live commit.
            world.feed(others[0].0, wire::pull(GROUP, &Pull { budget: 1, ..pull_all() }));
        }
        world.pass(1_000);
        for made in [b.tag(1, "b"), e.tag(2, "e")] {
            world.feed(made.stream, live(&[&made]));
        }
        world.pass(12);
        world.sent.clear();
        world.submit(vec![tag(3, "mine")]);
        let mut acked = BTreeMap::<_, BTreeSet<_>>::new();
        let mut live = BTreeSet::new();
        let mut hear = |world: &mut World| {
            while let Some(effect) = world.engine.next_effect() {
                let (to, frame) = match effect {
                    Effect::Read(job, keys) => {
                        let values = block_on(world.store.get_many(&keys));
                        world.handle(Input::Read(job, keys, values));
                        continue;
                    }
                    Effect::Write(job, batch) => {
                        block_on(world.store.write(batch)).unwrap();
                        world.handle(Input::Written(job, Ok(())));
                        continue;
                    }
                    Effect::Send(to, frame) => (vec![to], frame),
                    Effect::Broadcast(to, frame) => (to, frame),
                    _ => continue,
                };
                for message in Messages::new(frame, Some(GROUP), usize::MAX).unwrap() {
                    match message.unwrap() {
                        Message::Ack(heads) => to.iter().for_each(|peer| {
                            acked.entry(*peer).or_default().extend(heads.0.iter().map(|head| head.stream));
                        }),
                        Message::Live(_) => live.extend(to.iter().copied()),
                        _ => {}
                    }
                }
            }
        };
        hear(&mut world);
        world.now.mono = Mono(world.now.mono.0 + 30);
        world.handle(Input::Tick);
        hear(&mut world);
        assert_eq!(live.len(), if all { 4 } else { 3 });
        for (peer, streams) in [
            (B, vec![B, e.stream]),
            (C, vec![B, e.stream]),
            (others[0].0, vec![B]),
            (others[1].0, vec![e.stream]),
        ] {
            let told = acked.get(&peer).cloned().unwrap_or_default();
            assert!(streams.iter().all(|stream| told.contains(stream)), "{peer}, all: {all}: {told:?}");
        }
    }
}

/// A frame that an acknowledgement made too long would be refused, and the commit in it lost.
#[test]
fn an_acknowledgement_rides_only_where_it_finds_room() {
    const FRAME_BYTES: usize = 1_000;
    let mut world = World::limited(Limits { frame_bytes_max: FRAME_BYTES, ..Limits::default() });
    let mut authors = vec![Author::new(B, B_DEVICE), Author::new(C, C_DEVICE)];
    for id in 0xd0..0xd8 {
        let (replica, device) = (ReplicaId(Uuid::from_u128(id)), DeviceId(Uuid::from_u128(id)));
        world.commit(vec![Staged { own_merge: true, ..put(&Member::new(replica, device)) }]).unwrap();
        world.handle(Input::Up(replica));
        authors.push(Author::new(replica, device));
    }
    let (mut rode, mut rng) = (Vec::new(), fastrand::Rng::with_seed(7));
    for long in (0..480).step_by(10) {
        let own = world.own();
        for author in &mut authors {
            world.feed(author.stream, hello(1, &[own]));
            author.wall = world.now.mono.0;
        }
        world.pass(1_000);
        for author in &mut authors {
            let made = author.tag(1, "theirs");
            world.feed(made.stream, live(&[&made]));
        }
        world.pass(12);
        world.sent.clear();
        // No frame squeezes it.
        let name: String = (0..long).map(|_| rng.alphanumeric()).collect();
        world.commit(vec![tag(2, &name)]).unwrap();
        let longest = world.sent.iter().map(|(_, frame)| frame.len()).max();
        assert!(longest.is_some_and(|bytes| bytes <= FRAME_BYTES), "{long}: {longest:?}");
        let said = world.said();
        let any = |is_it: fn(&Message) -> bool| said.iter().any(|(_, message)| is_it(message));
        assert!(any(|message| matches!(message, Message::Live(_))), "{long}");
        rode.push(any(|message| matches!(message, Message::Ack(_))));
    }
    assert!(rode[0] && !rode[47] && rode.is_sorted_by(|one, next| one >= next), "{rode:?}");
}

/// The pen of a joined write that began without a peer makes no frame.
#[test]
fn a_peer_that_comes_up_during_a_joined_write_hears_that_there_is_something_to_pull() {
    let mut world = World::connected(Rules::ALL);
    for peer in [B, C] {
        world.handle(Input::Down(peer));
    }
    world.submit_joined(vec![tag(1, "a")]);
    let batch = world.up_to_write().expect("it is under way");
    world.handle(Input::Up(B));
    world.written(batch);
    world.settle();
    world.said();
    world.pass(1_000);
    let own = world.own();
    let said = world.said();
    assert!(
        said.iter().any(|(_, message)| matches!(message, Message::Ack(heads) if heads.0.contains(&own))),
        "{said:?}"
    );
}

/// An update may make a value longer than it was when it was staged: its size counts once more, and the limit itself is
/// within the limit.
#[test]
fn a_commit_that_grew_is_refused_above_the_limit_and_taken_at_it() {
    let limits = |commit_bytes_max| Limits {
        value_bytes_max: 80,
        id_bytes_max: 20,
        commit_bytes_max,
        ..Limits::default()
    };
    // An id takes four bytes.
    const WORDS: &str = "more words than were staged, and as many as the limit lets through";
    let grown = 2 * (4 + encoded(1, WORDS).len());
    for (commit_bytes_max, taken) in [(grown, true), (grown - 1, false)] {
        let ask = Ask { limits: Arc::new(limits(commit_bytes_max)), ..ask(Rules::default()) };
        let result = World::asking(ask).commit(vec![rename(1, WORDS), rename(2, WORDS)]);
        assert_eq!(result.is_ok(), taken, "{result:?}");
        let named = |error: &Error| error.to_string().contains("commit_bytes_max");
        assert_eq!(result.as_ref().is_err_and(named), !taken, "{result:?}");
    }
}

/// A frame that a peer takes must not become too long for it by what rides on it: what limit the peer has, nobody knows.
#[test]
fn no_acknowledgement_rides_on_a_long_frame() {
    for (bytes, rides) in [(100, true), (8_000, false)] {
        let mut world = World::connected(Rules::ALL);
        for peer in [B, C] {
            world.feed(peer, hello(1, &[world.own()]));
        }
        let mut b = Author::new(B, B_DEVICE);
        world.feed(B, live(&[&b.tag(1, "theirs")]));
        world.pass(12);
        world.sent.clear();
        world.commit(vec![tag(2, &"x".repeat(bytes))]).unwrap();
        let frames = world.sent.drain(..).map(|(_, frame)| {
            let messages = Messages::new(frame, Some(GROUP), usize::MAX).unwrap();
            messages.map(Result::unwrap).collect::<Vec<_>>()
        });
        let live =
            frames.filter(|messages| messages.iter().any(|message| matches!(message, Message::Live(_))));
        let most = live.map(|messages| messages.len()).max();
        assert_eq!(most, Some(1 + usize::from(rides)), "{bytes} bytes");
    }
}

/// How long the value of an update is, nobody knows before it is decided. What finds no room in a write forms the next one,
/// and each update sees the one before it.
#[test]
fn the_bytes_of_one_write_are_bounded_also_for_updates() {
    let limits = Limits { commit_bytes_max: 10_000, ..Limits::default() };
    let mut world = World::limited(limits);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tickets = (0..30_u8).map(|n| {
        let seen = Arc::clone(&seen);
        let update = move |current: Option<Current<'_>>| {
            let before = current.map(|current| model::decode::<Tag>(&1, current).unwrap().name);
            seen.lock().unwrap().push(before.map_or(0, |name| name.as_bytes()[0]));
            let name = char::from(b'A' + n).to_string().repeat(3_000);
            model::encode(&Tag { id: 1, name }, usize::MAX).map(Updated::Put)
        };
        let (record, action) = (RecordKey::new::<Tag>(&1), Action::Update(Box::new(update)));
        world.submit(vec![Staged { record, action, own_merge: false }])
    });
    let tickets: Vec<_> = tickets.collect();
    let (mut writes, mut most) = (0, 0);
    while let Some(batch) = world.up_to_write() {
        writes += 1;
        most = most.max(batch.puts().map(|(_, value)| value.len()).sum::<usize>());
        world.written(batch);
    }
    assert!(most < 2 * 10_000 && writes <= 10, "{most} bytes in one of {writes} writes");
    let order: Vec<_> = (0..30).map(|n| if n == 0 { 0 } else { b'A' + n - 1 }).collect();
    assert_eq!(*seen.lock().unwrap(), order);
    let replied: Vec<_> = world.replies.iter().map(|(ticket, result)| (*ticket, result.is_ok())).collect();
    assert_eq!(replied, tickets.into_iter().map(|ticket| (ticket, true)).collect::<Vec<_>>());
    assert_eq!(world.audit(), []);
}
