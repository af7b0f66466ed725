//! Goal: a page has whole commits in an order in which they can be applied, for hardly more reads than rows. Method: pulls
//! that are answered read by read.

use super::*;

/// Y14, section 8: a page is in the order of stamps across streams, within its budget, has at least one commit, and
/// leaves out the excluded streams and all commits that rest on them.
#[test]
fn a_page_can_be_applied_front_to_back() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    c.wall = 1001;
    for n in 0..20 {
        let made = b.tag(n, "b");
        world.feed(B, live(&[&made]));
        let made = c.commit(&[b.head()], vec![tagged(n, "c")]);
        world.feed(C, live(&[&made]));
        b.wall = c.wall;
        c.wall += 1;
    }
    let (head, page) = world.page(C, &[], 1 << 20);
    assert_eq!((page.len(), head.more), (43, false));
    let stamps: Vec<_> =
        page.iter().map(|commit| LogEntry::parse(commit.stream, &commit.entry).unwrap().stamp).collect();
    assert!(stamps.is_sorted());
    let (head, page) = world.page(B, &[], 1);
    assert_eq!((page.len(), head.more), (1, true), "a single commit always fits");
    // B has every commit except those of C. With C left out, no commit of B's own stream is left to send either.
    let (head, page) = world.page(B, &[b.head()], 1 << 20);
    assert_eq!(page.iter().filter(|commit| commit.stream == C).count(), 20);
    assert!(!head.more);
    world.sent.clear();
    world.feed(C, wire::pull(GROUP, &Pull { excluded: Capped(vec![B]), ..pull_all() }));
    let said = world.said();
    let Some((_, Message::Page(_, page))) =
        said.iter().find(|(_, message)| matches!(message, Message::Page(..)))
    else {
        panic!("a page")
    };
    let page = page.whole(REPLICA);
    assert!(page.iter().all(|commit| commit.stream == REPLICA), "what rests on B's is left out with it");
}

#[test]
fn a_page_reads_hardly_more_rows_than_it_sends() {
    let mut world = World::connected(Rules::ALL);
    for n in 0..3_000 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    world.scanned = 0;
    let (head, page) = world.page(C, &[], 300_000);
    assert!(head.more && page.len() > 1_100 && page.len() < 2_000, "{} commits", page.len());
    assert!(world.scanned <= page.len() + 32, "{} rows for {} commits", world.scanned, page.len());
}

/// An acknowledgement that rode on a page could make it longer than the puller takes: the page would be lost, again and
/// again.
#[test]
fn no_acknowledgement_rides_on_a_page() {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Down(C));
    let mut b = Author::new(B, B_DEVICE);
    world.feed(B, live(&[&b.tag(1, "a")]));
    world.pass(12);
    world.sent.clear();
    world.feed(B, wire::pull(GROUP, &pull_all()));
    let [(_, page)] = &world.sent[..] else { panic!("the page, and nothing yet that acknowledges") };
    let messages: Vec<_> = Messages::new(page.clone(), Some(GROUP), usize::MAX).unwrap().collect();
    assert!(matches!(messages[..], [Ok(Message::Page(..))]), "{messages:?}");
    world.pass(1_000);
    let acks =
        |(_, message): &(_, Message)| matches!(message, Message::Ack(heads) if heads.0.contains(&b.head()));
    assert!(world.said().iter().any(acks));
}

/// One commit with many changes does not make the pages behind it take a read for each commit: neither at once, nor after
/// the store was opened again.
#[test]
fn a_large_commit_makes_no_later_page_slow() {
    let mut world = World::connected(Rules::ALL);
    world.commit((0..1_000).map(|id| tag(id, "a")).collect()).unwrap();
    let large = world.own();
    for n in 0..1_000 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    for reopens in [false, true] {
        if reopens {
            world.reopen(networked(Rules::ALL));
            world.handle(Input::Up(C));
            world.settle();
        }
        world.finds = 0;
        let (_, page) = world.page(C, std::slice::from_ref(&large), 1 << 20);
        assert_eq!(page.len(), 1_000);
        assert!(world.finds <= 6, "{} reads", world.finds);
    }
    assert_eq!(world.audit(), []);
}

/// A write may come while a page is read, before or after the store has seen the read: every entry still has its bytes.
#[test]
fn a_value_that_moves_while_a_page_is_read_is_in_the_page() {
    let overwrite: fn() -> Staged = || tag(2, "newer");
    let delete: fn() -> Staged = || untag(2);
    let cases = (0..4).flat_map(|at| [true, false].map(|early| (at, early)));
    for (at, early) in cases {
        for moves in [vec![overwrite], vec![delete], vec![overwrite, delete, overwrite]] {
            let mut world = World::connected(Rules::ALL);
            // One value is kept from the start, and one is moved while the page is read.
            for (id, name) in [(1, "old"), (1, "new"), (2, "moved")] {
                world.commit(vec![tag(id, name)]).unwrap();
            }
            world.sent.clear();
            world.handle(Input::Frame(C, wire::pull(GROUP, &pull_all())));
            let mut reads = 0;
            while let Some(effect) = world.engine.next_effect() {
                let (job, query) = match effect {
                    Effect::Find(job, query) => (job, query),
                    Effect::Send(to, frame) => {
                        world.sent.push((Some(to), frame));
                        continue;
                    }
                    other => panic!("{other:?} belongs to no page"),
                };
                let seen_early = world.find(query.clone());
                if reads == at {
                    for change in &moves {
                        world.submit(vec![change()]);
                        world.settle();
                    }
                }
                let seen = if early { seen_early } else { world.find(query) };
                world.handle(Input::Found(job, seen));
                reads += 1;
            }
            assert!(
                (3..=4).contains(&reads),
                "rows, kept values, records, and what was kept meanwhile: {reads}"
            );
            let said = world.said();
            let page = said.iter().find_map(|(_, message)| match message {
                Message::Page(_, page) => Some(page),
                _ => None,
            });
            let page = page.expect("a page");
            let page = page.whole(REPLICA);
            let values: Vec<_> = page[page.len() - 3..].iter().map(|commit| commit.values.clone()).collect();
            let expected = [encoded(1, "old"), encoded(1, "new"), encoded(2, "moved")];
            assert_eq!(values, expected, "moved at read {at}, seen early: {early}");
            assert_eq!(world.audit(), []);
        }
    }
}

/// The length of each value is known from the log, so a page takes few reads, however many values it has: rows of the
/// log, kept values, records. Pages of kept values take few as well.
#[test]
fn a_page_of_thousands_of_values_takes_few_reads() {
    for overwritten in [0, 1_000] {
        let mut world = World::connected(Rules::ALL);
        for n in 0..4_000 {
            world.commit(vec![tag(n, &"x".repeat(200))]).unwrap();
        }
        for n in 0..overwritten {
            world.commit(vec![tag(n, "newer")]).unwrap();
        }
        world.finds = 0;
        let mut scans = 0;
        world.sent.clear();
        world.handle(Input::Frame(C, wire::pull(GROUP, &pull_all())));
        let mut gets = 0;
        while let Some(effect) = world.engine.next_effect() {
            match effect {
                Effect::Find(job, query) => {
                    let count = if matches!(query, Query::Scan(..)) { &mut scans } else { &mut gets };
                    *count += 1;
                    let answer = world.find(query);
                    world.handle(Input::Found(job, answer));
                }
                Effect::Send(to, frame) => world.sent.push((Some(to), frame)),
                other => panic!("{other:?}"),
            }
        }
        let said = world.said();
        let [.., (_, Message::Page(_, page))] = &said[..] else { panic!("{said:?}") };
        let page = page.whole(REPLICA);
        assert!(page.len() > 2_500, "{} commits", page.len());
        assert!(gets <= 5, "{gets} reads of values");
        assert!(scans <= 8, "{scans} scans");
        let whole =
            page.iter().filter(|commit| commit.stream == REPLICA && !commit.values.is_empty()).count();
        assert_eq!(whole, page.len());
    }
}

/// A comparison does not wait until a page is complete, nor a page until a comparison is.
#[test]
fn a_page_and_a_comparison_take_turns_at_the_store() {
    let mut world = World::connected(Rules::ALL);
    for n in 0..200 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    let own = world.head();
    world.handle(Input::Frame(C, wire::pull(GROUP, &pull_all())));
    let first = world.up_to_find();
    world.handle(Input::Frame(
        B,
        hello(1, &[WireHead { stream: REPLICA, seq: own.seq - 1, digest: [7; 32] }]),
    ));
    world.handle(Input::Found(first, Ok(Answer::Page(ScanPage::default()))));
    let Some(Effect::Find(job, Query::Scan(range, ScanLimit { entries: 1, bytes }))) =
        std::iter::from_fn(|| world.engine.next_effect()).find(|effect| matches!(effect, Effect::Find(..)))
    else {
        panic!("the comparison is read next")
    };
    assert!(range.contains(&keys::log(REPLICA, own.seq)));
    let answer = world.find(Query::Scan(range, ScanLimit { entries: 1, bytes }));
    world.handle(Input::Found(job, answer));
    world.settle();
    assert_eq!(world.shows(B).len(), 1, "the peer is to show what it says");
}
