//! Snapshots: replicas that are further behind than the logs of others reach.

use std::collections::BTreeSet;

use super::net::*;
use super::wire::{RowsWriter, SnapshotHead, SnapshotRefusal, WireStamped};
use super::*;
use crate::engine::rules::Mark;
use crate::stored::{Phase, forgotten_value};

#[test]
fn a_joiner_takes_the_records_of_a_replica_whose_log_is_pruned() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
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
    assert_eq!(net.at(B).get(keys::introducer()), None, "a member needs none");
    net.at(B).commit(vec![tag(7, "of B")]).unwrap();
    net.at(A).commit(vec![tag(8, "of A")]).unwrap();
    net.collect();
    while !net.frames.is_empty() {
        let snapshot =
            |(_, _, frame): &(_, _, Bytes)| has(frame, |message| matches!(message, Message::SnapshotPull(_)));
        assert!(!net.frames.iter().any(snapshot), "from here on the log is enough");
        net.deliver();
    }
    net.run();
    net.converged();
    assert_eq!((net.shown(A)[&7].as_str(), net.shown(B)[&8].as_str()), ("of B", "of A"));
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
    assert!(reads_during_an_install(Rules::ALL).is_empty());
}

#[test]
fn a_reader_sees_half_of_a_commit_if_a_snapshot_is_not_staged() {
    assert!(!reads_during_an_install(Rules { staged: false, ..Rules::ALL }).is_empty());
}

/// The pages of a snapshot show parts of commits that came while it was read: the rest of them is in the log.
#[test]
fn a_reader_sees_half_of_a_commit_if_the_switch_does_not_wait_for_the_tail() {
    assert!(!reads_during_an_install(Rules { need_tail: false, ..Rules::ALL }).is_empty());
}

/// Goal: an install goes on where it was. Method: one of the two, or the link, ends at every frame in turn; the records that
/// were sent are counted.
#[test]
fn an_install_goes_on_where_it_was_after_an_end_of_either_side_or_of_the_link() {
    type Ends = fn(&mut Net);
    let ends: [(&str, Ends); 3] =
        [("the receiver", |net| net.reopen(B)), ("the sender", |net| net.reopen(A)), ("the link", |_| {})];
    for (who, end) in ends {
        let mut net = away(Rules::ALL);
        net.up(A, B);
        let (mut rows, mut steps) = (0, 0);
        while steps < 3_000 {
            steps += 1;
            net.collect();
            let is_page = net.frames.front().is_some_and(|(_, to, frame)| {
                *to == B && has(frame, |message| matches!(message, Message::SnapshotPage(..)))
            });
            if let Some((_, _, frame)) = net.frames.front().filter(|_| is_page) {
                rows += rows_of(frame);
            }
            if !net.deliver() {
                net.pass(500);
            }
            if is_page && net.at(B).engine.report().installing.is_some() {
                net.down(A, B);
                end(&mut net);
                net.up(A, B);
            }
        }
        net.converged();
        // Each page was brought twice at most: once for the stage, and once if its write was cut.
        let tags = net.at(A).store.entries(keys::records()).len();
        assert!(rows <= 2 * tags + 20, "{who}: {rows} rows for {tags} records");
    }
}

/// Goal: a crash at any write of an install, applied or lost, harms nothing. Method: B ends at each of its writes in turn, from
/// the first page to the end of the fold; a reader looks right after the opening, and B knows at once whom the switch made a
/// member.
///
/// Y5.
#[test]
fn a_crash_at_any_write_of_an_install_harms_nothing() {
    for applied in [true, false] {
        let mut at = 0;
        while crashes_at(at, applied) {
            at += 1;
        }
        assert!(at > 12, "an install has many writes, not {at}");
    }
}

/// A store that takes few rows in a write gets a page in parts, none of which has a record without what lies beside it.
#[test]
fn a_page_is_written_in_parts_that_the_store_takes() {
    for joins in [true, false] {
        let mut net = ahead_of_b(joins);
        net.meet(Opening { changes: 4, ..joiner(B, B_DEVICE, Rules::ALL) });
        net.until_installed(B);
        let is_row = |op: &&WriteOp| match op {
            WriteOp::Put { key, .. } => keys::is_in_snapshot(keys::unstaged(key).unwrap_or(key)),
            WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => false,
        };
        let rows = net.at(B).writes.iter().map(|batch| batch.ops().iter().filter(is_row).count());
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.iter().max(), Some(&4), "{rows:?}");
        net.run();
        net.converged();
    }
}

/// A cut between a record and what lies beside it would lose that: after an end, the next page goes on behind the record.
#[test]
fn a_part_has_a_record_and_all_that_lies_beside_it() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    let record = RecordKey::new::<Bag>(&1);
    net.has_bag(&[(3, &[3]), (1, &[1]), (2, &[2])]);
    net.join(Opening { changes: 2, ..joiner(B, B_DEVICE, Rules::ALL) });
    net.run();
    let puts = |batch: &WriteBatch, is: &dyn Fn(&Key) -> bool| {
        batch.ops().iter().filter(|op| matches!(op, WriteOp::Put { key, .. } if is(key))).count()
    };
    let writes = &net.at(B).writes;
    let part =
        writes.iter().find(|batch| puts(batch, &|key| *key == record.as_bytes()) == 1).expect("a part");
    assert_eq!(puts(part, &|key| keys::besides_of(&record).contains(key)), 2);
    assert_eq!(net.at(B).bag(1), Some(vec![1, 2, 3]));
}

/// A row that is left out would look like a deleted one.
#[test]
fn a_row_that_cannot_be_read_ends_a_snapshot() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    let key = RecordKey::new::<Tag>(&110).into_bytes();
    net.at(A).store.0.lock().unwrap().get_mut(&key).expect("a tag").truncate(5);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    net.run();
    let events = net.at(B).events();
    let refused =
        |event: &Event| matches!(event, Event::SnapshotRefused { reason, .. } if reason == "Damaged");
    assert!(events.iter().any(refused), "{events:?}");
    assert!(net.shown(B).is_empty() && !net.at(B).engine.marks.has(Mark::Installed));
}

/// Plays an install in which B ends at one of its writes; `false` if it has fewer.
fn crashes_at(at: usize, applied: bool) -> bool {
    let mut net = away(Rules::ALL);
    net.asks.get_mut(&B).unwrap().changes = 5;
    net.reopen(B);
    add(&mut net, A, C, C_DEVICE);
    net.drop_logs(A, false);
    net.up(A, B);
    let (mut writes, mut crashed) = (0, false);
    let is_done =
        |net: &mut Net| net.at(B).engine.install.row().is_none() && net.at(B).engine.ledger.head(A).seq > 30;
    while !is_done(&mut net) {
        let cut = net.up_to_write_of_b(|_, batch| {
            let installs = batch.ops().iter().any(|op| match op {
                WriteOp::Put { key, .. } | WriteOp::Delete { key } => *key == keys::install(),
                WriteOp::DeleteRange { .. } => false,
            });
            writes += usize::from(installs);
            installs && writes == at + 1 && !crashed
        });
        if let Some(batch) = cut {
            crashed = true;
            if applied {
                block_on(net.at(B).store.write(batch)).unwrap();
            }
            net.down(A, B);
            net.reopen(B);
            let switched = net.at(B).engine.ledger.head(A).seq > 30;
            assert!(halves(&net.shown(B)).is_empty(), "write {at}");
            if switched {
                assert_eq!(net.shown(B)[&59], "new", "write {at}");
                assert!(net.at(B).engine.members.device_of(C).is_some(), "write {at}: B has forgotten C");
            }
            net.up(A, B);
        }
    }
    net.run();
    net.converged();
    crashed
}

/// Runs until the snapshot of B counts, and nothing of it is folded yet.
fn until_the_switch(net: &mut Net) {
    for _ in 0..3_000 {
        let folds = net.up_to_write_of_b(|world, _| matches!(world.overlay, Overlay::Joined(_)));
        if folds.is_some() {
            // The store refuses the first step of the fold, which is tried again after a pause.
            net.at(B).rejected();
            return net.at(B).settle();
        }
    }
    panic!("it switches");
}

/// A commit of the tail whose stamp is too far ahead holds the install, until the app releases its stream.
#[test]
fn a_tail_with_a_stamp_too_far_ahead_waits_for_the_app() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    let of = |net: &mut Net| {
        net.at(B).engine.report().installing.map(|status| (status.records, status.of_records))
    };
    while of(&mut net).is_none_or(|(records, of)| records + 12 < of) {
        assert!(net.deliver(), "it begins");
    }
    let wall = net.at(A).now.wall.clone();
    net.at(A).now.wall = Ok(WallMs::new(400_000_000_000).unwrap());
    pair(&mut net, A, 0, "far");
    net.at(A).now.wall = wall;
    net.run();
    let events = net.at(B).events();
    let held = events.iter().any(
        |event| matches!(event, Event::Stopped { stream, reason: StreamStop::Held { .. } } if *stream == A),
    );
    assert!(held, "{events:?}");
    assert!(net.at(B).engine.report().installing.is_some(), "it waits");
    assert!(net.at(B).engine.release_held(A));
    net.run();
    net.converged();
    assert_eq!(net.shown(B)[&0], "far");
}

/// Commits that arrive while the switch is being written go on from heads that it passes: they are let go.
#[test]
fn commits_that_arrive_while_the_switch_is_written_are_let_go() {
    let mut net = of_three(Rules::ALL, true, false);
    net.down(A, C);
    net.up(A, B);
    let heads = |op: &WriteOp| matches!(op, WriteOp::Put { key, .. } if *key == keys::head(A));
    let switch = loop {
        if let Some(batch) = net.up_to_write_of_b(|_, batch| batch.ops().iter().any(heads)) {
            break batch;
        }
    };
    net.up(B, C);
    for _ in 0..50 {
        if !net.deliver() {
            net.pass(100);
        }
    }
    let world = net.at(B);
    assert!(!world.engine.inbox.is_empty(), "C has the log that A has not");
    world.written(switch);
    assert!(world.engine.inbox.is_empty());
    world.settle();
    assert!(world.engine.marks.has(Mark::Installed));
    net.up(A, C);
    net.run();
    net.converged();
}

/// Goal: a commit between the switch and the end of the fold is decided on what a reader sees. Method: B deletes what is only
/// staged, and writes over what the staged record beats here.
#[test]
fn a_commit_during_the_fold_is_decided_on_what_is_read() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    until_the_switch(&mut net);
    assert_eq!((net.shown(B)[&59].as_str(), net.shown(B)[&8].as_str()), ("new", "newer"));
    assert_eq!(net.at(B).stored_tags().get(&59), None, "it is staged alone");
    net.at(B).commit(vec![untag(59), untag(159)]).unwrap();
    pair(&mut net, B, 8, "again");
    assert!(halves(&net.shown(B)).is_empty());
    let beaten = net.at(B).get(keys::kept(B, 1, &RecordKey::new::<Tag>(&8)));
    assert!(beaten.is_some(), "the log of B needs what the staged record beats");
    net.until_installed(B);
    net.run();
    net.converged();
    let tags = net.shown(A);
    assert_eq!((tags.get(&59), tags[&8].as_str()), (None, "again"));
}

/// A value of the tail that is beaten by a newer commit of the receiver is in no record in the end: the log keeps it.
#[test]
fn a_value_of_the_tail_that_is_beaten_is_kept_for_the_log() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    until_records(&mut net, 20);
    pair(&mut net, A, 15, "of the tail");
    net.pass(10);
    pair(&mut net, B, 15, "newest");
    net.until_installed(B);
    assert_eq!(net.at(B).audit(), [], "before it is pruned");
    net.run();
    net.converged();
    assert_eq!(net.shown(A)[&15], "newest");
}

/// Goal: a page names the heads on which its rows rest, also if a write ended while they were read. Method: the rows are read
/// while a commit is durable, and its writer has not been told.
#[test]
fn a_page_waits_for_the_write_that_ran_while_its_rows_were_read() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    let world = net.at(A);
    world.settle();
    world.sent.clear();
    world.submit(vec![tag(7, "under way")]);
    let batch = world.up_to_write().expect("a write");
    block_on(world.store.write(batch.clone())).unwrap();
    let pull = wire::SnapshotPull { id: 1, budget: 1 << 20, frame_bytes: 1 << 20, after: Vec::new() };
    world.handle(Input::Frame(B, wire::snapshot_pull(GROUP, &pull)));
    assert!(world.up_to_write().is_none());
    let pages = |world: &mut World| -> Vec<SnapshotHead> {
        let said = world.said().into_iter().filter_map(|(_, message)| match message {
            Message::SnapshotPage(head, _) => Some(head),
            _ => None,
        });
        said.collect()
    };
    assert_eq!(pages(world), [], "its commit may be among the rows");
    world.written(batch);
    world.settle();
    let (page, head) = (pages(world).remove(0), world.head());
    assert_eq!(page.heads.0.iter().find(|named| named.stream == A).map(|named| named.seq), Some(head.seq));
    assert_eq!(
        page.before.0.iter().find(|named| named.stream == A).map(|named| named.seq),
        Some(head.seq - 1)
    );
}

/// Pages begin small, in case the link is slow, and each of them is a durable write.
#[test]
fn pages_of_a_snapshot_become_longer() {
    let mut net = Net::new();
    let long = |ask: Opening| Opening { page_bytes: 1 << 20, ..ask };
    net.open(long(founder(Rules::ALL)));
    for n in 0..20 {
        net.at(A).commit((0..100).map(|m| tag(100 * n + m, &"x".repeat(200))).collect()).unwrap();
    }
    net.prune(A);
    net.join(long(joiner(B, B_DEVICE, Rules::ALL)));
    let mut pages = Vec::new();
    while pages.len() < 4 {
        let (from, to, frame) = net.next_frame();
        pages.extend(page_in(&frame).map(|(_, rows)| rows.bytes() >> 10));
        net.at(to).feed(from, frame);
    }
    net.run();
    assert_eq!(pages, [15, 61, 247, 168], "in KiB");
    net.converged();
}

/// The next page is asked for while the one before it is being written. If that write fails, or the process ends, it goes on
/// behind the last page that is durable.
#[test]
fn a_page_is_asked_for_while_another_one_is_written() {
    for (joins, end) in
        [true, false].into_iter().flat_map(|joins| ["written", "rejected", "crashed"].map(|end| (joins, end)))
    {
        let mut net = ahead_of_b(joins);
        net.meet(joiner(B, B_DEVICE, Rules::ALL));
        net.at(B).events();
        let batch = page_under_way(&mut net, B);
        assert!(net.at(B).up_to_write().is_none());
        net.collect();
        let pulls_on = |(from, _, frame): &(_, _, Bytes)| {
            *from == B
                && has(
                    frame,
                    |message| matches!(message, Message::SnapshotPull(pull) if !pull.after.is_empty()),
                )
        };
        assert!(net.frames.iter().any(pulls_on), "{end}: the next page is asked for");
        let records = |net: &mut Net| net.at(B).engine.install.row().map_or(0, |row| row.counts.records);
        let first = records(&mut net);
        while net.deliver() {}
        let taken = records(&mut net);
        assert!(first < taken && taken <= 3 * first, "{end}: one page waits, and no more are asked for");
        match end {
            "written" => net.at(B).written(batch),
            "rejected" => net.at(B).rejected(),
            _ => net.reopen(B),
        }
        net.at(B).settle();
        if end == "crashed" {
            net.up(A, B);
        }
        net.run();
        net.converged();
        let events = net.at(B).events();
        let installed = events.iter().filter(|event| matches!(event, Event::Installed { .. })).count();
        assert_eq!(installed, 1, "{end}: {events:?}");
        assert!(!net.at(B).engine.marks.has(Mark::InstallBeganAnew), "{end}");
    }
}

/// Values that lie beside a record come with it, to a stage and to an empty store, and are merged by an app that can; also
/// if the app of the sender merges them while the snapshot is sent.
#[test]
fn values_beside_records_come_with_a_snapshot() {
    let kinds = [true, false].into_iter().flat_map(|joins| [false, true].map(|merges| (joins, merges)));
    for (joins, merges) in kinds {
        let mut net = ahead_of_b(joins);
        net.has_bag(&[(3, &[30]), (2, &[20])]);
        net.meet(joiner(B, B_DEVICE, Rules::ALL));
        if merges {
            // The app of A merges them, after their record was sent and before the last page is.
            until_records(&mut net, 1);
            net.down(A, B);
            net.has_bag(&[(3, &[20, 30])]);
            net.reopen(A);
            net.up(A, B);
        }
        net.run();
        assert_eq!(net.at(B).bag(1), Some(vec![20, 30]), "joins: {joins}, merges: {merges}");
    }
}

/// A replica that is merging what lies beside records serves no page, also none that it began to read before.
#[test]
fn a_replica_that_is_merging_serves_no_snapshot() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    net.run();
    let record = RecordKey::new::<Bag>(&1);
    net.has_bag(&[(3, &[30]), (2, &[20])]);
    net.reopen(A);
    let world = net.at(A);
    world.handle(Input::Up(B));
    let merges = |batch: &WriteBatch| {
        batch.ops().iter().any(|op| matches!(op, WriteOp::Put { key, .. } if *key == record.as_bytes()))
    };
    let batch = loop {
        let batch = world.up_to_write().expect("it merges");
        if merges(&batch) {
            break batch;
        }
        world.written(batch);
    };
    let refusal = |world: &mut World, id: u32, ends: Option<WriteBatch>| {
        let pull = wire::SnapshotPull { id, budget: 1 << 20, frame_bytes: 1 << 20, after: Vec::new() };
        world.handle(Input::Frame(B, wire::snapshot_pull(GROUP, &pull)));
        assert!(world.up_to_write().is_none());
        ends.into_iter().for_each(|batch| world.written(batch));
        world.settle();
        let said = world.said().into_iter().find_map(|(_, message)| match message {
            Message::SnapshotPage(head, _) if head.id == id => Some(head.refusal),
            _ => None,
        });
        said.expect("an answer")
    };
    assert_eq!(refusal(world, 1, Some(batch)), Some(SnapshotRefusal::NotNow));
    assert_eq!(refusal(world, 2, None), None);
}

/// Delivers frames until a replica gets the first page of a snapshot; returns its sender, and the page.
fn up_to_page(net: &mut Net, at: ReplicaId) -> (ReplicaId, Bytes) {
    loop {
        match net.next_frame() {
            (from, to, frame) if to == at && page_in(&frame).is_some() => return (from, frame),
            (from, to, frame) => net.at(to).feed(from, frame),
        }
    }
}

/// Delivers frames until a replica has taken the first page of a snapshot; returns its write, which is under way.
fn page_under_way(net: &mut Net, at: ReplicaId) -> WriteBatch {
    let (from, frame) = up_to_page(net, at);
    net.at(at).handle(Input::Frame(from, frame));
    net.at(at).up_to_write().expect("a page is written")
}

/// Records that lie in their places are not projected, so an app that projects from now on gives them up.
#[test]
fn an_app_that_projects_gives_up_the_records_that_were_put_in_their_places() {
    let mut net = Net::new();
    pruned_founder(&mut net, Rules::ALL);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    until_records(&mut net, 10);
    let at = net.at(B).now.mono.0;
    let ask = Ask { projected: vec![RecordKey::range_of_model::<Bag>()], ..net.asks[&B].ask() };
    let world = net.at(B);
    assert!(world.engine.install.is_in_place());
    world.reopen_at(ask, now(at));
    let batch = world.up_to_write().expect("its first write");
    let all = |op: &WriteOp| matches!(op, WriteOp::DeleteRange { range } if *range == keys::records());
    assert!(batch.ops().iter().any(all), "{batch:?}");
    world.written(batch);
    let row = world.engine.install.row().expect("it is being cleared");
    assert_eq!((row.phase, row.in_place), (Phase::Clear, false));
}

/// A record that the sender never had is no deleted one.
#[test]
fn what_only_the_receiver_has_stays_when_a_snapshot_lacks_it() {
    for absence_needs_cover in [true, false] {
        let mut net = away(Rules { absence_needs_cover, ..Rules::ALL });
        net.up(A, B);
        for _ in 0..2_000 {
            // A must not hear of what B has before B has installed.
            net.collect();
            net.frames.retain(|(from, _, frame)| {
                *from != B || !has(frame, |message| matches!(message, Message::Page(..)))
            });
            if !net.deliver() {
                net.pass(500);
            }
        }
        assert!(net.at(B).engine.ledger.head(A).floor > 10);
        assert_eq!(net.shown(B).contains_key(&70), absence_needs_cover);
    }
}

/// The tombstone of a bag is forgotten by A. B creates the bag again after its install: in the epoch that was forgotten.
#[test]
fn an_install_takes_over_the_stamps_that_its_sender_has_forgotten() {
    for takes_forgotten in [true, false] {
        let mut net = Net::new();
        pruned_founder(&mut net, Rules::ALL);
        // The clock of B has to follow it: no commit is stamped so late.
        let forgotten = Hlc::new(WallMs::new(90_000).unwrap(), 3, A);
        add(&mut net, A, B, B_DEVICE);
        net.at(A).store.0.lock().unwrap().insert(keys::forgotten("bag"), forgotten_value(forgotten));
        net.reopen(A);
        net.open(joiner(B, B_DEVICE, Rules { takes_forgotten, ..Rules::ALL }));
        net.up(A, B);
        net.run();
        let bag = Bag { id: 1, items: BTreeSet::from([7]) };
        net.at(B).commit(vec![Staged { own_merge: true, ..put(&bag) }]).unwrap();
        let stored = net.at(B).get(RecordKey::new::<Bag>(&1).into_bytes()).unwrap();
        let epoch = record::parse(&stored).unwrap().0.merge.unwrap().epoch;
        assert_eq!(epoch == forgotten, takes_forgotten, "{epoch}");
    }
}

/// Y6, Y7, Y9: members that prune keep neither logs nor tombstones, a replica joins them by snapshot, and one that is away holds
/// what it lacks. Nothing that was deleted comes back.
#[test]
fn a_group_that_prunes_is_joined_by_snapshot() {
    let rules = Rules { prunes_by_acks: true, ..Rules::ALL };
    let mut net = Net::new();
    net.open(founder(rules));
    net.open(joiner(B, B_DEVICE, rules));
    net.up(A, B);
    add(&mut net, A, B, B_DEVICE);
    net.run();
    net.run();
    for n in 0..100 {
        pair(&mut net, A, n % 20, &format!("{n}"));
    }
    for n in 0..5 {
        net.at(A).commit(vec![untag(n), untag(100 + n)]).unwrap();
    }
    net.run();
    net.run();
    for at in [A, B] {
        assert_eq!((net.logged(at), net.tombstones(at)), (0, 0), "{at} has nothing that nobody needs");
    }
    net.converged();
    let before = net.at(A).now.clone();
    net.open(joiner(C, C_DEVICE, rules));
    net.at(C).now = before;
    net.up(A, C);
    net.up(B, C);
    add(&mut net, A, C, C_DEVICE);
    net.run();
    net.run();
    net.converged();
    assert!(net.at(C).events().iter().any(|event| matches!(event, Event::Installed { .. })));
    // C is away: its log is kept, and so is a tombstone that it lacks.
    net.down(A, C);
    net.down(B, C);
    net.at(A).commit(vec![untag(6), untag(106)]).unwrap();
    pair(&mut net, C, 7, "of C");
    net.run();
    net.run();
    for at in [A, B] {
        assert_eq!((net.logged(at), net.tombstones(at)), (1, 2), "{at} keeps what C lacks");
    }
    net.up(A, C);
    net.up(B, C);
    net.run();
    net.run();
    net.converged();
    for at in [A, B, C] {
        assert_eq!((net.logged(at), net.tombstones(at)), (0, 0), "{at} has nothing that nobody needs");
    }
    let shown = net.shown(C);
    assert!(!shown.contains_key(&3) && !shown.contains_key(&106) && shown[&107] == "of C", "{shown:?}");
}

/// Whatever the sender of a page has rests on its heads, so a head of another history than the log here spoils all of it.
#[test]
fn a_page_of_another_history_is_not_taken() {
    type Break = fn(&mut SnapshotHead, u64);
    let breaks: [(&str, Break); 4] = [
        ("in the log", |head, own| other_history(head, own - 1)),
        ("at the head", other_history),
        ("behind the head", |head, own| other_history(head, own + 1)),
        ("as it is", |_, _| ()),
    ];
    for (at, change) in breaks {
        let mut net = away(Rules::ALL);
        let own = net.at(B).head().seq;
        assert!(own > 1);
        net.up(A, B);
        change_first_page(&mut net, |head, _| change(head, own));
        let staged = !net.at(B).store.entries(keys::stage()).is_empty();
        assert_eq!(staged, at == "as it is", "{at}");
        assert_eq!(net.at(B).engine.marks.has(Mark::Doubted), at != "as it is", "{at}");
    }
}

/// The records of a third replica are as good as the history of it that they rest on.
#[test]
fn a_page_of_another_history_of_a_third_replica_is_not_taken() {
    let mut net = Net::new();
    net.open(founder(Rules::ALL));
    for (replica, device) in [(B, B_DEVICE), (C, C_DEVICE)] {
        net.join(joiner(replica, device, Rules::ALL));
    }
    net.run();
    pair(&mut net, C, 1, "of C");
    net.run();
    net.down(A, B);
    pair(&mut net, A, 2, "new");
    net.prune(A);
    net.up(A, B);
    change_first_page(&mut net, |head, _| {
        let of_c = |named: &&mut WireStamped| named.stream == C;
        for named in head.heads.0.iter_mut().chain(&mut head.before.0).filter(of_c) {
            named.digest = [9; 32];
        }
    });
    assert!(net.at(B).store.entries(keys::stage()).is_empty());
    assert!(net.at(B).engine.marks.has(Mark::Doubted));
}

/// Delivers frames until B has heard the first page of a snapshot, which is changed on its way.
fn change_first_page(net: &mut Net, change: impl FnOnce(&mut SnapshotHead, &mut Vec<Entry>)) {
    let (from, frame) = up_to_page(net, B);
    let (mut head, rows) = page_in(&frame).expect("a page");
    let mut rows = rows.entries().unwrap();
    change(&mut head, &mut rows);
    let mut writer = RowsWriter::default();
    rows.iter().for_each(|row| writer.push(&row.key, &row.value));
    net.at(B).feed(from, writer.finish(GROUP, &head));
}

/// Gives a page another history of the stream of B, up to `seq`.
fn other_history(head: &mut SnapshotHead, seq: u64) {
    let of_b = head.heads.0.iter().find(|head| head.stream == B).copied();
    head.heads.0.retain(|head| head.stream != B);
    let mut other = of_b.unwrap_or(head.heads.0[0]);
    (other.stream, other.seq, other.digest) = (B, seq, [9; 32]);
    head.heads.0.push(other);
}

/// Goal: the deletes that came with a snapshot are forgotten, and the log of its sender goes, although nobody writes any more.
/// Method: B installs beside records of its own, and may be opened again right after that; then both are at rest.
///
/// Y6, Y7.
#[test]
fn a_group_at_rest_forgets_the_deletes_of_a_snapshot() {
    for reopens in [false, true] {
        let mut net = away_with_tombstones(Rules::ALL);
        net.drop_logs(A, false);
        net.up(A, B);
        net.until_installed(B);
        if reopens {
            net.run();
            net.down(A, B);
            net.reopen(B);
            net.up(A, B);
        }
        (0..4).for_each(|_| net.run());
        net.converged();
        for at in [A, B] {
            assert_eq!((net.logged(at), net.tombstones(at)), (0, 0), "{at}, reopens: {reopens}");
        }
    }
}

/// Goal: a page that cannot be is refused in whole, and the next try works. Method: the first page of a real snapshot, changed.
#[test]
fn a_page_that_cannot_be_changes_nothing() {
    type Break = fn(&mut SnapshotHead, &mut Vec<Entry>);
    let breaks: [(&str, Break); 19] = [
        ("empty", |_, rows| rows.clear()),
        ("do not rise", |_, rows| rows.push(rows[0].clone())),
        ("no record", |_, rows| rows[0].key = keys::clock()),
        ("cannot be read", |_, rows| rows[0].value.truncate(5)),
        ("does not have", |_, rows| {
            let (header, value) = record::parse(&rows[0].value).unwrap();
            rows[0].value = record::of(&record::Header { seq: 1 << 40, ..header }, value);
        }),
        ("heads that cannot be", |head, _| head.heads.0.clear()),
        ("heads that cannot be", |head, _| head.before.0.clear()),
        ("heads that cannot be", |head, _| head.before.0[0].seq += 1_000),
        ("heads that cannot be", |head, _| head.before.0[0].digest = [9; 32]),
        ("names a head twice", |head, _| head.heads.0.push(head.heads.0[0])),
        ("names a head twice", |head, _| head.heads.0[0].seq = 0),
        ("too far ahead", |head, _| {
            let stamp = Hlc::new(WallMs::new(1 << 40).unwrap(), 0, A);
            head.forgotten.0.push(wire::WireForgotten::of("bag", stamp));
        }),
        ("a model that cannot be", |head, _| {
            head.forgotten.0.push(wire::WireForgotten::of("", Hlc::NEVER));
        }),
        ("too far ahead", |_, rows| {
            let (header, value) = record::parse(&rows[5].value).unwrap();
            let stamp = Hlc::new(WallMs::new(1 << 40).unwrap(), 0, header.stamp.replica());
            rows[5].value = record::of(&record::Header { stamp, ..header }, value);
        }),
        ("too far ahead", |head, _| {
            let WireStamped { stream, seq, digest, .. } = head.before.0[0];
            let stamp = Hlc::new(WallMs::new(1 << 40).unwrap(), 0, stream);
            let far = Head { seq, stamp, digest, ..Head::start(GROUP, stream) };
            head.before.0[0] = WireStamped::of(stream, &far);
        }),
        ("too far ahead", |_, rows| {
            let epoch = Hlc::new(WallMs::new(1 << 40).unwrap(), 0, A);
            rows.insert(0, bag_row(rows, record::Merged::plain(epoch)));
        }),
        ("in another way", |_, rows| {
            let (header, value) = record::parse(&rows[5].value).unwrap();
            let merge = Some(record::Merged::plain(Hlc::NEVER));
            rows[5].value = record::of(&record::Header { merge, ..header }, value);
        }),
        ("does not have", |_, rows| {
            let bag = bag_row(rows, record::Merged { beside: true, ..record::Merged::plain(Hlc::NEVER) });
            let (header, _) = record::parse(&bag.value).unwrap();
            let record = RecordKey::from_bytes(&bag.key).unwrap();
            let key = keys::beside(&record, header.stamp.replica(), header.seq + 1);
            rows.splice(0..0, [bag.clone(), Entry { key, value: bag.value }]);
        }),
        ("another replica's key", |_, rows| {
            let (header, _) = record::parse(&rows[0].value).unwrap();
            let value = model::encode(&Member::new(B, B_DEVICE), usize::MAX).unwrap();
            let header = record::Header {
                schema: value.schema,
                merge: Some(record::Merged::plain(Hlc::NEVER)),
                ..header
            };
            let key = RecordKey::new::<Member>(&ReplicaId(Uuid::from_u128(1))).into_bytes();
            rows.push(Entry { key, value: record::of(&header, record::value_of(&value.record)) });
            rows.sort_by(|one, other| one.key.cmp(&other.key));
        }),
    ];
    for (says, change) in breaks {
        let mut net = away(Rules::ALL);
        let before = net.shown(B);
        net.up(A, B);
        change_first_page(&mut net, change);
        let events = net.at(B).events();
        let told = events
            .iter()
            .any(|event| matches!(event, Event::FrameRejected { reason, .. } if reason.contains(says)));
        assert!(told, "{says}: {events:?}");
        assert!(net.at(B).store.entries(keys::stage()).is_empty(), "{says}");
        assert_eq!(net.shown(B), before, "{says}");
        net.run();
        net.converged();
    }
}

/// A bag that rests on the same commit as the first of the rows.
fn bag_row(rows: &[Entry], merge: record::Merged) -> Entry {
    let (header, _) = record::parse(&rows[0].value).unwrap();
    let value = model::encode(&Bag { id: 1, items: BTreeSet::new() }, usize::MAX).unwrap();
    let header = record::Header { schema: value.schema, merge: Some(merge), tombstone: false, ..header };
    let value = record::of(&header, record::value_of(&value.record));
    Entry { key: RecordKey::new::<Bag>(&1).into_bytes(), value }
}

#[test]
fn a_stage_that_another_version_left_is_given_up_unless_it_counts_already() {
    for (phase, opens) in [(0, true), (1, true), (2, false), (3, false)] {
        let mut net = away(Rules::ALL);
        net.up(A, B);
        while net.at(B).engine.report().installing.is_none() {
            assert!(net.deliver());
        }
        let world = net.at(B);
        {
            let mut map = world.store.0.lock().unwrap();
            let row = map.get_mut(&keys::install()).unwrap();
            (row[0], row[1]) = (99, phase);
        }
        let opened = open_engine(&world.store, joiner(B, B_DEVICE, Rules::ALL).ask(), now(9_000));
        assert_eq!(opened.is_ok(), opens, "{phase}: {:?}", opened.err());
        assert_eq!(world.store.entries(keys::stage()).is_empty(), opens);
        if opens {
            net.reopen(B);
            net.up(A, B);
            net.run();
            net.converged();
        }
    }
}

/// The tail of a snapshot stands in the logs. Nothing refers to it once its stage is given up.
#[test]
fn a_stage_that_is_given_up_leaves_no_tail() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    until_records(&mut net, 20);
    for n in 0..20 {
        pair(&mut net, A, n, "of the tail");
    }
    let head = net.at(B).engine.ledger.head(A).seq;
    let tail = |net: &mut Net| {
        let ranges = keys::log_and_kept(A, head + 1, 1 << 40);
        ranges.map(|range| net.at(B).store.entries(range).len())
    };
    while tail(&mut net)[0] == 0 {
        if !net.deliver() {
            net.pass(100);
        }
    }
    let world = net.at(B);
    world.engine.install.give_up();
    world.settle();
    assert!(world.engine.marks.has(Mark::InstallBeganAnew));
    assert_eq!(tail(&mut net), [0, 0]);
    net.run();
    net.converged();
}

/// A page is given up with its stage, also what is left of it while a part is being written, or a commit between two parts.
#[test]
fn no_part_of_a_page_comes_behind_a_stage_that_is_given_up() {
    for between in [false, true] {
        let mut net = away(Rules::ALL);
        net.asks.get_mut(&B).unwrap().changes = 4;
        net.reopen(B);
        net.up(A, B);
        let mut batch = page_under_way(&mut net, B);
        let world = net.at(B);
        if between {
            world.submit(vec![tag(90, "between")]);
            world.written(batch);
            batch = world.up_to_write().expect("the commit");
            let is_log = |op: &WriteOp| matches!(op, WriteOp::Put { key, .. } if keys::is_log(key));
            assert!(batch.ops().iter().any(is_log), "{batch:?}");
        }
        world.engine.install.give_up();
        world.written(batch);
        world.settle();
        assert!(world.engine.install.row().is_none(), "between: {between}");
        assert!(world.store.entries(keys::stage()).is_empty());
        net.run();
        net.converged();
    }
}

/// Goal: a step of a fold has no more rows than the store takes.
/// Method: most of what B has was deleted at A, and what A has instead lies in between; B has written over what is left.
#[test]
fn the_steps_of_a_fold_go_on_in_both_states_at_once() {
    let mut net = Net::new();
    net.open(founder(Rules::ALL));
    net.open(joiner(B, B_DEVICE, Rules::ALL));
    net.up(A, B);
    for n in 0..30 {
        pair(&mut net, A, 2 * n, "old");
    }
    add(&mut net, A, B, B_DEVICE);
    net.run();
    net.down(A, B);
    for n in 0..29 {
        net.at(A).commit(vec![untag(2 * n), untag(100 + 2 * n)]).unwrap();
    }
    for n in 0..20 {
        pair(&mut net, A, 2 * n + 1, "new");
    }
    pair(&mut net, B, 58, "unsent");
    net.prune(A);
    net.asks.get_mut(&B).unwrap().changes = 4;
    net.reopen(B);
    net.at(B).writes.clear();
    net.up(A, B);
    net.until_installed(B);
    let is_record = |op: &&WriteOp| match op {
        WriteOp::Put { key, .. } | WriteOp::Delete { key } => keys::is_in_snapshot(key),
        WriteOp::DeleteRange { .. } => false,
    };
    let steps = net.at(B).writes.iter().map(|batch| batch.ops().iter().filter(is_record).count());
    let steps: Vec<_> = steps.filter(|rows| *rows > 0).collect();
    assert!(steps.len() > 10 && steps.iter().all(|rows| *rows <= 4), "{steps:?}");
    assert_eq!(net.shown(B)[&58], "unsent");
    assert_eq!(net.at(B).audit(), [], "before it is pruned");
    net.run();
    net.converged();
}
