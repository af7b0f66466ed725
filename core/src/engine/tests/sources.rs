//! Snapshots: the peers of which they are asked, and when the log is the better way.

use super::net::*;
use super::*;
use crate::engine::rules::Mark;
use crate::stored::Phase;

/// A peer whose log is damaged keeps nobody from the snapshot of another one.
#[test]
fn a_log_that_is_damaged_is_no_way() {
    let mut net = of_three(Rules::ALL, true, false);
    let next = net.at(B).engine.ledger.head(A).seq + 1;
    net.at(C).store.0.lock().unwrap().remove(&keys::log(A, next));
    net.down(A, C);
    net.up(B, C);
    net.run();
    assert_eq!(net.at(B).engine.ledger.head(A).seq, next - 1, "C has no more of it");
    net.up(A, B);
    net.run();
    assert!(net.at(B).engine.marks.has(Mark::Installed));
    assert_eq!(net.shown(A), net.shown(B));
}

/// A log that is cut short by its limit is kept from where a snapshot began, as long as that is taken.
#[test]
fn the_log_behind_a_snapshot_is_kept_while_it_is_taken() {
    let mut net = of_three(Rules::ALL, true, false);
    net.asks.get_mut(&A).unwrap().retain = 10;
    net.reopen(A);
    net.up(A, C);
    net.up(A, B);
    until_records(&mut net, 20);
    // C has all of it, so that its log may go where nothing else needs it.
    net.down(A, B);
    for n in 0..100 {
        pair(&mut net, A, 20 + n % 10, &format!("while {n}"));
    }
    net.run();
    net.up(A, B);
    net.run();
    net.converged();
    assert!(!net.at(B).engine.marks.has(Mark::InstallBeganAnew));
}

/// B begins a snapshot with A, which goes away, and meets C then. Returns how often it began anew.
fn another_goes_on(rules: Rules, c_has_all: bool, c_is_pruned: bool) -> (Net, usize) {
    let mut net = of_three(rules, c_has_all, c_is_pruned);
    net.up(A, B);
    until_records(&mut net, 20);
    net.down(A, B);
    net.up(B, C);
    assert!(!net.at(B).engine.marks.has(Mark::InstallBeganAnew));
    net.run();
    let anew = net.at(B).engine.marks.has(Mark::InstallBeganAnew);
    (net, usize::from(anew))
}

#[test]
fn another_peer_goes_on_with_a_snapshot_if_it_has_all_that_that_rests_on() {
    let (mut net, anew) = another_goes_on(Rules::ALL, true, true);
    assert_eq!(anew, 0);
    net.up(A, B);
    net.up(A, C);
    net.run();
    net.converged();
}

#[test]
fn a_peer_that_lacks_something_of_a_snapshot_begins_it_anew() {
    let (mut net, anew) = another_goes_on(Rules::ALL, false, true);
    assert_eq!(anew, 1);
    net.up(A, B);
    net.up(A, C);
    net.run();
    net.converged();
    for resume_needs_cover in [true, false] {
        let rules = Rules { resume_needs_cover, ..Rules::ALL };
        let (mut net, _) = another_goes_on(rules, false, false);
        net.up(A, B);
        net.up(A, C);
        net.run();
        assert_eq!(
            net.shown(A) == net.shown(B),
            resume_needs_cover,
            "a mixture of two snapshots lacks what neither showed"
        );
    }
}

/// A log that is much longer than all records is not sent, to an empty joiner and to one that has something.
#[test]
fn a_log_that_is_much_longer_than_the_records_is_not_sent() {
    for joins in [true, false] {
        let mut net = Net::new();
        busy_founder(&mut net, Rules::ALL);
        if !joins {
            add(&mut net, A, B, B_DEVICE);
        }
        let before = net.at(A).head().seq;
        net.open(joiner(B, B_DEVICE, Rules::ALL));
        net.up(A, B);
        if joins {
            add(&mut net, A, B, B_DEVICE);
        }
        let (mut pages, mut bytes) = (0, 0);
        for _ in 0..2_000 {
            net.collect();
            let to_b = net.frames.front().filter(|(from, ..)| *from == A).map(|(.., frame)| frame.clone());
            let is_page = |message: &Message| matches!(message, Message::Page(..));
            pages += to_b.iter().filter(|frame| has(frame, is_page)).count();
            bytes += to_b.map_or(0, |frame| frame.len());
            if !net.deliver() {
                net.pass(500);
            }
            assert_eq!(halves(&net.shown(B)), []);
        }
        net.converged();
        let world = net.at(B);
        assert!(world.engine.marks.has(Mark::LongerLog) && world.engine.marks.has(Mark::Installed));
        assert!(
            !world.engine.marks.has(Mark::InstallBeganAnew),
            "the log that came meanwhile was not all of it"
        );
        assert!(world.engine.ledger.head(A).floor >= before, "it has no log of what came by snapshot");
        assert!(pages <= 3 && bytes < 8_000, "{pages} pages of the log, {bytes} bytes in all");
    }
}

/// A snapshot that the peer refuses, though it advised it, keeps nobody from the log.
#[test]
fn a_longer_log_is_taken_if_no_snapshot_is_to_be_had() {
    let mut net = Net::new();
    busy_founder(&mut net, Rules::ALL);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    let refused = refusing(&mut net, A, 3_000, |_| true);
    net.converged();
    assert!(refused > 0 && !net.at(B).engine.marks.has(Mark::Installed));
    assert_eq!(net.at(B).engine.ledger.head(A).floor, 0);
}

/// A snapshot that was advised and has a page that cannot be taken is given up for the log, also in its places.
#[test]
fn a_longer_log_is_taken_if_a_later_page_cannot_be() {
    let mut net = Net::new();
    busy_founder(&mut net, Rules::ALL);
    for n in 50..90 {
        pair(&mut net, A, n, "for a second page");
    }
    let far = Hlc::new(WallMs::new(400_000_000_000).unwrap(), 0, A);
    let value = model::encode(&Tag { id: 500, name: "far".into() }, usize::MAX).unwrap();
    let header = record::Header { tombstone: false, schema: value.schema, stamp: far, seq: 1, merge: None };
    let row = record::of(&header, record::value_of(&value.record));
    net.at(A).store.0.lock().unwrap().insert(RecordKey::new::<Tag>(&500).into_bytes(), row);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    until_records(&mut net, 10);
    assert!(net.at(B).engine.install.is_in_place());
    net.run();
    let (all, world) = (net.at(A).head().seq, net.at(B));
    assert!(world.engine.report().installing.is_none(), "it waits for no page that will do");
    assert_eq!(world.engine.ledger.head(A).seq, all);
    assert_eq!(world.engine.ledger.head(A).floor, 0, "it has the log");
}

/// Records that were put in their places are given up if nobody can go on with them, though the only peer that is left
/// has a log.
#[test]
fn a_joiner_whose_source_is_gone_takes_the_log_of_another_peer() {
    let mut net = Net::new();
    net.open(founder(Rules::ALL));
    net.join(joiner(C, C_DEVICE, Rules::ALL));
    for n in 0..20 {
        pair(&mut net, A, n, "old");
    }
    net.run();
    net.converged();
    net.down(A, C);
    pair(&mut net, A, 40, "of A alone");
    net.drop_logs(A, false);
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    until_records(&mut net, 20);
    assert!(net.at(B).engine.install.is_in_place());
    net.down(A, B);
    add(&mut net, C, B, B_DEVICE);
    net.asks.get_mut(&B).unwrap().introducer = Some(C);
    net.reopen(B);
    net.up(B, C);
    net.run();
    assert!(net.at(B).engine.report().installing.is_none(), "it waits for nobody");
    assert!(net.at(B).engine.marks.has(Mark::InstallBeganAnew));
    assert_eq!(net.shown(B), net.shown(C));
    net.up(A, B);
    net.up(A, C);
    net.run();
    net.converged();
}

/// A stage is given up once the log has brought what it was begun for, even if nobody can bring its tail.
#[test]
fn a_stage_that_the_log_has_overtaken_is_given_up() {
    let mut net = of_three(Rules::ALL, true, false);
    net.down(A, C);
    net.up(A, B);
    until_records(&mut net, 1);
    pair(&mut net, A, 61, "of A alone");
    until_records(&mut net, 20);
    net.down(A, B);
    let rests = net.at(B).engine.install.row().map(|row| row.need.clone()).unwrap();
    assert!(rests[&A] > net.at(C).engine.ledger.head(A).seq, "C lacks what its last page rests on");
    net.up(B, C);
    net.run();
    assert!(net.at(B).engine.report().installing.is_none(), "it waits for nobody");
    assert_eq!(net.shown(B), net.shown(C));
    assert!(!net.at(B).engine.marks.has(Mark::Installed));
    net.up(A, B);
    net.up(A, C);
    net.run();
    net.converged();
}

/// The log that a snapshot needs behind its records may be gone: its sender was opened anew, and has pruned since.
#[test]
fn a_snapshot_begins_anew_if_the_log_behind_it_was_pruned() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    until_records(&mut net, 20);
    pair(&mut net, A, 5, "later");
    while net.at(B).engine.install.stage().is_none_or(|stage| stage.row.phase == Phase::Records) {
        if !net.deliver() {
            net.pass(500);
        }
    }
    net.down(A, B);
    net.drop_logs(A, false);
    net.up(A, B);
    net.run();
    net.converged();
    let seen = net.at(B).engine.marks;
    assert!(seen.has(Mark::TailPruned) && seen.has(Mark::InstallBeganAnew), "{seen:?}");
}

/// A pull of records that was not answered begins no snapshot any more, once the log has brought what was missing.
#[test]
fn a_pull_without_an_answer_begins_no_snapshot_once_nothing_is_missing() {
    for silent in [true, false] {
        let mut net = of_three(Rules::ALL, true, false);
        net.down(A, C);
        net.up(A, B);
        while !net.frames.iter().any(|(.., frame)| snapshot_pull(frame).is_some()) {
            assert!(net.deliver(), "B asks A");
            net.collect();
        }
        if !silent {
            net.down(A, B);
        }
        net.up(B, C);
        for _ in 0..500 {
            net.collect();
            net.frames.retain(|(from, to, _)| *from != A && *to != A);
            if !net.deliver() {
                net.pass(500);
            }
        }
        assert_eq!(net.shown(B), net.shown(C));
        let install = &net.at(B).engine.install;
        assert!(!install.is_under_way(), "silent: {silent}");
        assert!(!net.at(B).engine.marks.has(Mark::Installed), "silent: {silent}");
    }
}

/// A peer that refuses to go on with a snapshot is not the only one to ask.
#[test]
fn another_peer_goes_on_with_a_snapshot_that_is_refused() {
    let mut net = of_three(Rules::ALL, true, true);
    net.up(A, B);
    until_records(&mut net, 20);
    net.up(B, C);
    refusing(&mut net, A, 1_000, |_| true);
    let seen = net.at(B).engine.marks;
    assert!(seen.has(Mark::Installed) && !seen.has(Mark::InstallBeganAnew), "{seen:?}");
}

/// A snapshot is not begun anew with the only peer that has one, since that may take it up again.
#[test]
fn a_snapshot_waits_for_the_only_peer_that_has_one() {
    let mut net = away(Rules::ALL);
    net.up(A, B);
    until_records(&mut net, 20);
    refusing(&mut net, A, 1_000, |_| true);
    assert!(net.at(B).engine.report().installing.is_some());
    net.run();
    net.converged();
    assert!(!net.at(B).engine.marks.has(Mark::InstallBeganAnew));
}

/// Records that lie in their places keep the log out, so a peer that has one and goes on no more is not waited for.
#[test]
fn records_in_their_places_are_given_up_for_the_log_of_a_peer_that_refuses() {
    let mut net = Net::new();
    busy_founder(&mut net, Rules::ALL);
    for n in 50..90 {
        pair(&mut net, A, n, "for a second page");
    }
    net.join(joiner(B, B_DEVICE, Rules::ALL));
    let is_later =
        |message: &Message| matches!(message, Message::SnapshotPull(pull) if !pull.after.is_empty());
    refusing(&mut net, A, 1_000, is_later);
    assert!(net.at(B).engine.marks.has(Mark::InstallBeganAnew), "a minute is long enough");
    net.run();
    net.converged();
}
