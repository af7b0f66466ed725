//! Goal: received commits are applied in order and once, acknowledged only when they are durable, and written in turn
//! with the app's own commits. Method: frames of made-up authors.

use super::*;

#[test]
fn a_live_commit_is_applied_and_told_with_its_origin() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let spot = Spot { id: 9, device_id: B_DEVICE, name: "home".into() };
    let owned = (RecordKey::new::<Spot>(&(B_DEVICE, 9)), Some(postcard::to_allocvec(&spot).unwrap()), None);
    let made = b.commit(&[], vec![tagged(1, "a"), owned]);
    world.feed(B, live(&[&made]));
    assert_eq!((world.tag_name(1).as_deref(), world.seq_of(B)), (Some("a"), 1));
    let changes: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Changed(change) => Some((change.kind, change.origin, change.stamp, change.seq)),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [(ChangeKind::Insert, B_DEVICE, made.stamp, 1); 2]);
    assert_eq!(world.audit(), []);
}

/// C2, Y8: an acknowledgement covers only durable commits, and comes after their write.
#[test]
fn y8_nothing_is_acknowledged_before_it_is_durable() {
    for (rules, early) in [(Rules::ALL, false), (without!(acks_are_durable), true)] {
        let mut world = World::connected(rules);
        world.said();
        let (first, second) = {
            let mut b = Author::new(B, B_DEVICE);
            (b.tag(1, "a"), b.tag(1, "b"))
        };
        world.feed(B, live(&[&first]));
        // The second commit waits for the store while the acknowledgement of the first one is due.
        world.handle(Input::Frame(B, live(&[&second])));
        let batch = world.up_to_write().expect("it is written");
        assert!(
            world
                .notices
                .iter()
                .all(|notice| !matches!(&notice[0], Event::Changed(change) if change.seq == 2))
        );
        world.now = Now { mono: Mono(world.now.mono.0 + 1_000), ..world.now.clone() };
        world.handle(Input::Tick);
        assert!(world.up_to_write().is_none());
        let acked = |world: &mut World| -> Vec<u64> {
            let said = world.said().into_iter();
            said.filter_map(|(_, message)| match message {
                Message::Ack(heads) => heads.0.iter().find(|head| head.stream == B).map(|head| head.seq),
                _ => None,
            })
            .collect()
        };
        assert_eq!(acked(&mut world), [if early { 2 } else { 1 }]);
        world.written(batch);
        world.pass(1_000);
        assert_eq!(acked(&mut world), [2]);
    }
}

/// C6: a commit that comes twice changes nothing the second time, and is told once.
#[test]
fn c6_duplicates_change_nothing() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (first, second) = (b.tag(1, "a"), b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER)]));
    world.feed(B, live(&[&first, &second]));
    let (before, events) = (world.content(), world.events().len());
    for frame in [live(&[&first]), live(&[&second]), live(&[&first, &second])] {
        world.feed(C, frame);
    }
    assert_eq!((world.content(), events, world.events().len()), (before, 2, 0));
}

/// C9: a stream is applied without holes, and the missing commits are asked for at once.
#[test]
fn c9_a_gap_is_not_jumped() {
    for (rules, jumped) in [(Rules::ALL, false), (without!(streams_have_no_holes), true)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let (first, second) = (b.tag(1, "a"), b.tag(2, "b"));
        world.said();
        world.feed(B, if jumped { page(&[&second]) } else { live(&[&second]) });
        assert_eq!(world.seq_of(B), if jumped { 2 } else { 0 });
        if jumped {
            assert!(!world.audit().is_empty());
            continue;
        }
        let pulls = world.pulls();
        let [(peer, pull)] = &pulls[..] else { panic!("one pull, not {pulls:?}") };
        assert_eq!(*peer, B);
        world.feed(B, page_of(answer(pull, false), &[&first, &second]));
        assert_eq!((world.seq_of(B), world.audit()), (2, vec![]));
    }
}

/// I7: a commit waits for what it rests on, and both are asked for.
#[test]
fn i7_causes_come_first() {
    for (rules, early) in [(Rules::ALL, false), (without!(causes_come_first), true)] {
        let mut world = World::connected(rules);
        let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
        let cause = b.tag(1, "a");
        let effect = c.commit(&[b.head()], vec![tagged(1, "answer")]);
        world.said();
        world.feed(C, live(&[&effect]));
        assert_eq!(world.tag_name(1).is_some(), early);
        if early {
            continue;
        }
        assert_eq!(world.pulls().len(), 1, "from whoever has the effect");
        // The cause comes from another peer: the effect is asked for all the same.
        world.feed(B, live(&[&cause]));
        assert_eq!((world.tag_name(1).as_deref(), world.peer(C).missing), (Some("a"), 1));
        world.feed(C, live(&[&effect]));
        assert_eq!((world.tag_name(1).as_deref(), world.audit()), (Some("answer"), vec![]));
    }
}

/// The commits of one round go out in one frame, and the commits of one frame are written together.
#[test]
fn a_round_is_one_frame_and_a_frame_is_one_write() {
    let mut world = World::connected(Rules::ALL);
    world.said();
    for id in 0..5 {
        world.submit(vec![tag(id, "a")]);
    }
    world.settle();
    // The first commit did not wait for the others.
    let frames: Vec<_> = world
        .said()
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Live(commits) => Some(commits.whole(REPLICA).len()),
            _ => None,
        })
        .collect();
    assert_eq!(frames, [5]);

    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..5).map(|id| b.tag(id, "b")).collect();
    let frame = live(&made.iter().collect::<Vec<_>>());
    world.handle(Input::Frame(B, frame));
    let mut writes = 0;
    while let Some(batch) = world.up_to_write() {
        writes += 1;
        world.written(batch);
    }
    assert_eq!((writes, world.seq_of(B)), (1, 5));
}

/// The app's commits and the peers' take turns.
#[test]
fn neither_the_app_nor_the_peers_wait_for_each_other() {
    let limits = Limits { round_commits_max: 1, event_commits_max: 1, ..Limits::default() };
    let mut world = World::limited(limits);
    let mut b = Author::new(B, B_DEVICE);
    for n in 0..3 {
        world.submit(vec![tag(100 + n, "mine")]);
        let made = b.tag(n, "theirs");
        world.handle(Input::Frame(B, live(&[&made])));
    }
    let mut turns = Vec::new();
    while let Some(batch) = world.up_to_write() {
        turns.push(logged_in(&batch).contains(&REPLICA));
        world.written(batch);
    }
    assert_eq!(turns.iter().filter(|mine| **mine).count(), 3);
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
}

/// A record that many received commits change is read once, and those of them that are beaten share what was read.
#[test]
fn a_record_is_read_once_for_all_commits_of_a_received_write() {
    let mut world = World::connected(Rules::ALL);
    world.now = now(5_000);
    world.commit(vec![tag(1, "mine")]).unwrap();
    let mut b = Author::new(B, B_DEVICE);
    let mut made: Vec<_> = ["x", "y", "z"].map(|name| b.tag(1, name)).into();
    b.wall = 6_000;
    made.extend([b.tag(2, "other"), b.tag(1, "theirs"), b.tag(1, "last")]);
    world.handle(Input::Frame(B, live(&made.iter().collect::<Vec<_>>())));
    let (job, keys) = world.up_to_read();
    let records: Vec<_> = [1, 2].iter().map(|id| RecordKey::new::<Tag>(id).into_bytes()).collect();
    assert_eq!(keys, records, "each of them once");
    let values = block_on(world.store.get_many(&keys));
    world.handle(Input::Read(job, keys, values));
    world.settle();
    assert_eq!((world.tag_name(1).as_deref(), world.seq_of(B)), (Some("last"), 6));
    assert_eq!(world.kept(world.head().seq, 1), Some(encoded(1, "mine")));
    assert_eq!(world.audit(), []);
}

/// On a store that is slow at every write, received writes are not made short for nothing: how slow it is, the commits of
/// the app show, each a little.
#[test]
fn received_writes_are_worth_the_flush_of_a_slow_store() {
    const FLUSH_MS: u64 = 200;
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let mut sizes = Vec::new();
    for n in 0..80 {
        world.submit(vec![tag(1_000 + n, "mine")]);
        let mine = world.up_to_write().unwrap();
        world.now.mono.0 += FLUSH_MS;
        world.written(mine);
        let made: Vec<_> = (0..40).map(|id| b.tag(id, "a")).collect();
        world.handle(Input::Frame(B, live(&made.iter().collect::<Vec<_>>())));
        sizes.clear();
        while let Some(batch) = world.up_to_write() {
            sizes.push(logged_in(&batch).into_iter().filter(|stream| *stream == B).count());
            world.now.mono.0 += FLUSH_MS;
            world.written(batch);
        }
    }
    assert_eq!(sizes.into_iter().find(|size| *size > 0), Some(40));
}

impl World {
    /// Lets a store that takes so long for each write, and 10 ms for each commit in it, do its work; returns how many
    /// commits each received write had.
    fn receives_slowly(&mut self, write_ms: u64) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some(effect) = self.engine.next_effect() {
            let (commits, input) = match effect {
                Effect::Receive(..) => self.receive(effect),
                Effect::Round(..) => (0, self.round(effect)),
                Effect::Read(job, keys) => {
                    let values = block_on(self.store.get_many(&keys));
                    self.handle(Input::Read(job, keys, values));
                    continue;
                }
                Effect::Write(job, batch) => {
                    let commits = logged_in(&batch).iter().filter(|stream| **stream != REPLICA).count();
                    block_on(self.store.write(batch)).unwrap();
                    (commits, Input::Written(job, Ok(())))
                }
                Effect::Mend(job) => {
                    let next = crate::projection::Next::Done;
                    let mended = crate::projection::Mended { told: None, next };
                    self.handle(Input::Mended(job, mended));
                    continue;
                }
                _ => continue,
            };
            sizes.extend((commits > 0).then_some(commits));
            self.now.mono = Mono(self.now.mono.0 + write_ms + 10 * commits as u64);
            self.handle(input);
        }
        sizes
    }

    /// Opens the store again as an app that projects these records, and connects B.
    fn projects(&mut self, projected: Vec<KeyRange>) {
        self.reopen(Ask { projected, ..networked(Rules::ALL) });
        self.handle(Input::Up(B));
    }
}

/// 40 commits of 5,000 bytes each.
fn forty(b: &mut Author) -> Bytes {
    let name = "a".repeat(5_000);
    let made: Vec<_> = (0..40).map(|id| b.tag(id, &name)).collect();
    live(&made.iter().collect::<Vec<_>>())
}

/// A commit of the app waits for the received write under way, so these are short while the app commits: whether the
/// records are projected or not. Method: a store that takes 10 ms for each commit.
#[test]
fn received_writes_are_short_while_the_app_commits() {
    for projected in [vec![], vec![RecordKey::range_of_model::<Tag>()]] {
        let mut world = World::connected(Rules::ALL);
        world.projects(projected);
        let mut b = Author::new(B, B_DEVICE);
        let mut receive = |world: &mut World| {
            world.handle(Input::Frame(B, forty(&mut b)));
            world.receives_slowly(0)
        };
        assert_eq!(receive(&mut world), [40]);
        assert_eq!(receive(&mut world), [40], "the app does not commit");
        let mine = put(&Spot { id: 1, device_id: DEVICE, name: "mine".into() });
        world.commit(vec![mine]).unwrap();
        let sizes = receive(&mut world);
        assert_eq!(sizes.iter().sum::<usize>(), 40);
        assert!(sizes.iter().all(|commits| (5..=9).contains(commits)), "{sizes:?}");
        world.now.mono = Mono(world.now.mono.0 + 10_000);
        assert_eq!(receive(&mut world), [40], "the app commits no longer");
    }
}

/// Where the app's own commits show that every write takes long, received writes are not made short for nothing: whether
/// the records are projected or not. Method: a store that takes 60 ms for each write besides.
#[test]
fn received_writes_are_long_where_every_write_is() {
    for projected in [vec![], vec![RecordKey::range_of_model::<Tag>()]] {
        let mut world = World::connected(Rules::ALL);
        world.projects(projected);
        let mut b = Author::new(B, B_DEVICE);
        for n in 0..10 {
            world.submit(vec![tag(100 + n, "mine")]);
            assert_eq!(world.receives_slowly(60), []);
            world.handle(Input::Frame(B, forty(&mut b)));
            assert_eq!(world.receives_slowly(60), [40], "round {n}");
        }
    }
}

/// An app would redraw for nothing.
#[test]
fn a_commit_that_changes_nothing_that_can_be_seen_is_told_to_nobody() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    c.wall = 1_500;
    world.feed(B, live(&[&b.tag(1, "a")]));
    assert_eq!(world.events().len(), 1);
    let same = c.tag(1, "a");
    world.feed(C, live(&[&same]));
    assert_eq!((world.seq_of(C), world.events()), (1, vec![]), "the newer stamp alone is new");
    world.feed(C, live(&[&c.tag(1, "b")]));
    assert_eq!(world.events().len(), 1);
}

/// A shutdown waits for the calls of the app, and for nobody else.
#[test]
fn a_replica_that_closes_writes_nothing_that_it_received() {
    let mut world = World::connected(Rules::ALL);
    let ticket = world.submit(vec![tag(2, "mine")]);
    world.handle(Input::Frame(B, live(&[&Author::new(B, B_DEVICE).tag(1, "a")])));
    world.engine.close();
    world.settle();
    assert!(matches!(world.replies[..], [.., (answered, Ok(()))] if answered == ticket));
    assert_eq!((world.seq_of(B), world.tag_name(2).as_deref()), (0, Some("mine")));
}
