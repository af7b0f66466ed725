use super::super::super::made::{Author, B, C, GROUP, Made, context, ledger, note, pull_all, replica};
use super::super::super::wire::{Capped, CommitParts, CommitsWriter, HEADER_LEN, WireHead};
use super::*;
use crate::events::{Damage, DamagedPart};
use crate::storage::Key;
use crate::stored::{Head, log};

/// A store with the logs of some streams.
#[derive(Default)]
struct Logs {
    rows: BTreeMap<Key, Value>,
    heads: BTreeMap<ReplicaId, Head>,
}

impl Logs {
    fn of(commits: &[(&Author, &[&Made])]) -> Self {
        let mut logs = Self::default();
        for (author, commits) in commits {
            logs.heads.insert(author.stream, author.head);
            let rows = commits.iter().map(|made| (keys::log(made.stream, made.seq), made.row.clone()));
            logs.rows.extend(rows);
        }
        logs
    }

    fn picker(&self, pull: Pull, hidden: Option<ReplicaId>) -> Picker {
        self.picker_in(pull, hidden, &Damages::default(), &context())
    }

    fn picker_in(
        &self,
        pull: Pull,
        hidden: Option<ReplicaId>,
        damages: &Damages,
        context: &Context,
    ) -> Picker {
        let budget = pull.budget;
        Picker::new(Edge::of(pull), budget, hidden, &ledger(self.heads.clone()), damages, context)
    }

    /// Answers reads until the page is chosen; says how many rows each of them had, too.
    fn read(&self, mut picker: Picker) -> (Picked, Vec<usize>) {
        let mut reads = Vec::new();
        while let Some(query) = picker.step() {
            let Query::Scan(range, limit) = query else { panic!("{query:?} reads no rows") };
            let page = ScanPage::of(self.rows.iter().filter(|(key, _)| range.contains(key)), limit);
            reads.push(page.entries.len());
            picker.take(page);
            assert!(reads.len() < 1000, "it comes to an end");
        }
        (picker.finish(), reads)
    }

    fn digest_before(&self, stream: ReplicaId, seq: u64) -> Digest {
        log::split_row(&self.rows[&keys::log(stream, seq)]).unwrap().0
    }

    fn pick(&self, pull: Pull) -> Picked {
        self.read(self.picker(pull, None)).0
    }
}

fn places(picked: &Picked) -> Vec<(ReplicaId, u64)> {
    picked.commits.iter().map(|row| (row.stream, row.seq)).collect()
}

fn at(head: &Head, stream: ReplicaId) -> WireHead {
    WireHead { stream, seq: head.seq, digest: head.digest }
}

/// Two streams whose stamps take turns, with three commits each. The second of `C` rests on the second of `B`, and the
/// third of `C` rests on nothing but that.
fn two_streams() -> (Author, Author, Vec<Made>) {
    let (mut b, mut c) = (Author::new(B), Author::new(C));
    let mut made = Vec::new();
    for (wall, of_b, after) in
        [(1, true, 0), (2, false, 0), (3, true, 0), (4, false, 2), (5, true, 0), (6, false, 0)]
    {
        let author = if of_b { &mut b } else { &mut c };
        author.wall = wall;
        let after: &[_] = if after > 0 { &[(B, after)] } else { &[] };
        made.push(author.commit(after, vec![(note(1), Some(vec![7; 100]), None)]));
    }
    (b, c, made)
}

fn logs() -> (Author, Author, Logs) {
    let (b, c, made) = two_streams();
    let of = |stream| made.iter().filter(|made| made.stream == stream).collect::<Vec<_>>();
    let logs = Logs::of(&[(&b, &of(B)), (&c, &of(C))]);
    (b, c, logs)
}

#[test]
fn commits_come_in_the_order_of_their_stamps() {
    let picked = logs().2.pick(pull_all());
    assert_eq!(places(&picked), [(B, 1), (C, 1), (B, 2), (C, 2), (B, 3), (C, 3)]);
    assert!(!picked.more && !picked.pruned && picked.too_long.is_none() && picked.forked.is_empty());
}

/// The budget is kept before the values are read, so what a commit takes is known from its log row.
#[test]
fn a_commit_takes_no_more_bytes_than_are_counted() {
    let (_, _, made) = two_streams();
    let picked = logs().2.pick(pull_all());
    assert_eq!(picked.bytes, picked.commits.iter().map(LogRow::bytes).sum::<usize>());
    let context = context();
    for (row, made) in picked.commits.iter().zip(&made) {
        let mut page = CommitsWriter::live(context.group(), C);
        let (previous, values) = (made.previous(), made.values[0].as_deref().unwrap());
        let (stream, seq, entry) = (made.stream, made.seq, made.raw());
        page.push(&CommitParts { stream, seq, previous: &previous, entry, values });
        assert_eq!(page.rebuilt(), row.bytes());
        let bytes = page.finish().len() - HEADER_LEN;
        assert!((bytes..bytes + 200).contains(&row.bytes()), "{bytes}, counted as {}", row.bytes());
    }
}

#[test]
fn a_page_is_within_its_budget_but_for_its_first_commit() {
    let (_, _, logs) = logs();
    let all = logs.pick(pull_all());
    let each: Vec<_> = all.commits.iter().map(LogRow::bytes).collect();
    for count in 0..=6 {
        let room: usize = each[..count].iter().sum();
        for (budget, fit) in [(room, count), (room.saturating_sub(1), count.saturating_sub(1))] {
            let picked = logs.pick(Pull { budget: budget.try_into().unwrap(), ..pull_all() });
            assert_eq!(places(&picked), places(&all)[..fit.max(1)], "{budget} bytes");
            assert_eq!((picked.more, picked.bytes <= budget), (fit.max(1) < 6, fit > 0), "{budget} bytes");
        }
    }
}

/// However much the puller asks for, a page fits into a frame of both.
#[test]
fn the_budget_is_at_most_what_frames_can_hold() {
    let (_, _, logs) = logs();
    let first = logs.pick(pull_all()).commits[0].bytes();
    let frame_bytes = |bytes: usize| {
        u32::try_from(bytes + u32::MAX as usize - wire::commit_max(u32::MAX as usize)).unwrap()
    };
    let pull = Pull { frame_bytes: frame_bytes(2 * first), ..pull_all() };
    assert_eq!(places(&logs.pick(pull)), [(B, 1), (C, 1)], "of the puller");
    let mut context = context();
    std::sync::Arc::make_mut(&mut context.limits).frame_bytes_max = 2 * (2 * first);
    let picker = logs.picker_in(pull_all(), None, &Damages::default(), &context);
    assert_eq!(places(&logs.read(picker).0), [(B, 1), (C, 1)], "of this replica");
}

#[test]
fn a_page_begins_behind_what_the_puller_has() {
    let (b, c, logs) = logs();
    let all = Capped(vec![at(&b.head, B), at(&c.head, C)]);
    let (picked, reads) = logs.read(logs.picker(Pull { heads: all, ..pull_all() }, None));
    assert!(places(&picked).is_empty() && reads.is_empty(), "whoever has everything costs no read");
    let more = WireHead { stream: C, seq: 9, digest: [9; 32] };
    let heads = Capped(vec![at(&b.head, B), more]);
    assert!(logs.pick(Pull { heads, ..pull_all() }).commits.is_empty(), "nor whoever has more");
    let none = Capped(vec![WireHead { stream: B, seq: 0, digest: [9; 32] }, at(&c.head, C)]);
    let picked = logs.pick(Pull { heads: none, ..pull_all() });
    assert_eq!((places(&picked), picked.forked), (vec![(B, 1), (B, 2), (B, 3)], vec![]));
    let second = WireHead { stream: B, seq: 2, digest: logs.digest_before(B, 3) };
    let picked = logs.pick(Pull { heads: Capped(vec![second, at(&c.head, C)]), ..pull_all() });
    assert_eq!((places(&picked), picked.forked), (vec![(B, 3)], vec![]));
}

#[test]
fn what_rests_on_a_stream_that_is_left_out_is_left_out_with_it() {
    let (b, _, logs) = logs();
    let excluded = || Capped(vec![B]);
    let (hidden, _) = logs.read(logs.picker(pull_all(), Some(B)));
    for picked in [logs.pick(Pull { excluded: excluded(), ..pull_all() }), hidden] {
        assert_eq!(places(&picked), [(C, 1)]);
        assert!(!picked.more, "the puller does not want it");
    }
    let heads = Capped(vec![at(&b.head, B)]);
    let picked = logs.pick(Pull { heads, excluded: excluded(), ..pull_all() });
    assert_eq!(places(&picked), [(C, 1), (C, 2), (C, 3)], "what the puller has is there to rest on");
}

/// The log holds only what is above its floor, whose digest the puller's own is compared with.
#[test]
fn a_puller_behind_the_floor_hears_that_the_log_was_pruned() {
    let (b, c, made) = two_streams();
    let mut logs = Logs::of(&[(&b, &[&made[2], &made[4]]), (&c, &[&made[1], &made[3], &made[5]])]);
    logs.heads.get_mut(&B).unwrap().floor = 1;
    let picked = logs.pick(pull_all());
    assert_eq!((places(&picked), picked.pruned), (vec![(C, 1)], true), "the other streams come");
    let digest = made[2].previous();
    let heads = Capped(vec![WireHead { stream: B, seq: 1, digest }, at(&c.head, C)]);
    let picked = logs.pick(Pull { heads, ..pull_all() });
    assert_eq!((places(&picked), picked.pruned), (vec![(B, 2), (B, 3)], false), "at the floor");
}

#[test]
fn a_commit_that_is_too_long_for_the_puller_ends_its_stream_and_no_other() {
    let (mut b, mut c) = (Author::new(B), Author::new(C));
    let made = [b.note(1, "a"), b.note(1, &"x".repeat(1000)), b.note(1, "b")];
    c.wall = 2000;
    let of_c = [c.note(2, "c"), c.commit(&[(B, 2)], vec![])];
    let logs = Logs::of(&[(&b, &made.each_ref()), (&c, &of_c.each_ref())]);
    let pull = Pull { frame_bytes: 1000, ..pull_all() };
    let picked = logs.pick(pull);
    assert_eq!(places(&picked), [(B, 1), (C, 1)]);
    let long = logs.pick(pull_all()).commits[1].bytes() as u64;
    assert_eq!(picked.too_long, Some(TooLong { stream: B, seq: 2, bytes: long }));
    assert!(!picked.more, "asking again brings the same");
}

/// The puller sees it from the first row behind what it has, so the rows behind that one are not read.
#[test]
fn a_puller_with_another_history_gets_the_row_that_shows_it() {
    let (made, mut logs) = long_stream(5);
    let head = logs.heads[&B];
    logs.heads.extend((0..19).map(|n| (replica(n), head)));
    // A row is read at a time, and the page has room for several.
    let budget = (20 * made[0].row.len()).try_into().unwrap();
    let other = WireHead { stream: B, seq: 2, digest: [9; 32] };
    let picked = logs.pick(Pull { heads: Capped(vec![other]), budget, ..pull_all() });
    assert_eq!((places(&picked), picked.forked), (vec![(B, 3)], vec![(B, 2)]));
}

/// What is served of a stream has no holes, whatever happened to the store.
#[test]
fn a_row_that_is_missing_or_damaged_ends_what_is_served_of_its_stream() {
    let second = keys::log(B, 2);
    type Damage = fn(&mut Value);
    // Without the digest in the damaged row, nothing vouches for the row before it.
    let damages: [(&str, Damage, usize); 3] = [
        ("cut short", |row| row.truncate(20), 1),
        ("longer", |row| row.push(0), 0),
        ("empty", Vec::clear, 1),
    ];
    let all = [(B, 1), (C, 1)];
    for (name, damage, from) in damages {
        let (_, _, mut logs) = logs();
        damage(logs.rows.get_mut(&second).unwrap());
        assert_eq!(places(&logs.pick(pull_all())), all[from..], "{name}");
    }
    let (_, _, mut logs) = logs();
    logs.rows.remove(&second);
    assert_eq!(places(&logs.pick(pull_all())), [(C, 1)], "missing");
    logs.rows.retain(|key, _| *key >= keys::log(C, 1));
    assert_eq!(places(&logs.pick(pull_all())), [(C, 1)], "all of them");
}

/// C19: one flipped bit, anywhere in a row. What is served is what was written, and no other stream ends.
#[test]
fn no_row_is_served_for_which_the_chain_does_not_vouch() {
    let (_, _, whole) = logs();
    let mut harm = 0;
    for seq in 1..=3 {
        let key = keys::log(B, seq);
        for at in 0..whole.rows[&key].len() {
            let (_, _, mut logs) = logs();
            logs.rows.get_mut(&key).unwrap()[at] ^= 1 << (at % 8);
            // A damaged digest before a commit is found at the commit before it.
            let damaged = seq - u64::from(at < 32 && seq > 1);
            let served = |picked: &Picked, stream| {
                let rows = picked.commits.iter().filter(|row| row.stream == stream);
                rows.map(|row| (row.seq, row.row.clone())).collect::<Vec<_>>()
            };
            let picked = logs.pick(pull_all());
            let expected: Vec<_> =
                (1..damaged).map(|seq| (seq, whole.rows[&keys::log(B, seq)].clone())).collect();
            assert_eq!(served(&picked, B), expected, "byte {at} of {seq}");
            assert_eq!(
                (&picked.damaged[..], &picked.forked[..]),
                (&[(B, damaged)][..], &[][..]),
                "byte {at} of {seq}"
            );
            // The second of C rests on the second of B.
            let of_c = if damaged <= 2 { 1 } else { 3 };
            assert_eq!(served(&picked, C).len(), of_c, "byte {at} of {seq}");

            // A puller that has the rows before the damaged one is not taken for one that has another history.
            let has = |digest| Pull {
                heads: Capped(vec![WireHead { stream: B, seq: seq - 1, digest }]),
                ..pull_all()
            };
            let digest = if seq == 1 { [0; 32] } else { whole.digest_before(B, seq) };
            let picked = logs.pick(has(digest));
            assert_eq!((served(&picked, B), &picked.forked[..]), (vec![], &[][..]), "byte {at} of {seq}");
            assert_eq!(picked.damaged, [(B, seq)], "byte {at} of {seq}");

            let unchecked = Context {
                rules: crate::engine::Rules { served_rows_are_checked: false, ..crate::engine::Rules::ALL },
                ..context()
            };
            let picker = logs.picker_in(pull_all(), None, &Damages::default(), &unchecked);
            let picked = logs.read(picker).0;
            harm += usize::from(
                served(&picked, B).iter().any(|(seq, row)| *row != whole.rows[&keys::log(B, *seq)]),
            );
        }
    }
    assert!(harm > 100, "without the rule {harm} of them are served");
}

/// A commit whose causes the puller lacks is left out without a word. A row that names causes which nobody has is damaged.
#[test]
fn a_damaged_cause_is_told_however_few_rows_are_read() {
    let (b, _, mut logs) = logs();
    // The seq of the only cause stands behind digest, format, device, time, count and stream.
    let seq_at = 32 + 1 + 16 + 8 + 2 + 16;
    logs.rows.get_mut(&keys::log(C, 2)).unwrap()[seq_at] ^= 1;
    let heads = vec![at(&b.head, B), WireHead { stream: C, seq: 1, digest: logs.digest_before(C, 2) }];
    for budget in [1, 1 << 20] {
        let picked = logs.pick(Pull { budget, heads: Capped(heads.clone()), ..pull_all() });
        assert_eq!((places(&picked), picked.damaged), (vec![], vec![(C, 2)]), "{budget}");
    }
}

#[test]
fn nothing_is_read_from_a_damaged_place_on_that_is_known() {
    let (_, logs) = long_stream(9);
    let mut damages = Damages::default();
    damages.note(Damage { stream: B, seq: 4, part: DamagedPart::Value });
    let pick = |heads| {
        let pull = Pull { heads: Capped(heads), ..pull_all() };
        logs.read(logs.picker_in(pull, None, &damages, &context()))
    };
    let (picked, reads) = pick(vec![]);
    assert_eq!((places(&picked), reads), (vec![(B, 1), (B, 2), (B, 3)], vec![4]));
    assert_eq!(picked.damaged, [(B, 4)]);
    let has = |seq| vec![WireHead { stream: B, seq, digest: logs.digest_before(B, seq + 1) }];
    let (picked, reads) = pick(has(3));
    assert_eq!((places(&picked), reads, picked.damaged), (vec![], vec![], vec![(B, 4)]));
    let (picked, _) = pick(has(4));
    assert_eq!((places(&picked).len(), picked.damaged), (5, vec![]), "whoever is behind it gets the rest");
}

/// The puller asks others for what is damaged here: from the first such place on.
#[test]
fn a_damaged_place_is_told_instead_of_one_behind_it() {
    let (_, mut logs) = long_stream(9);
    let mut damages = Damages::default();
    damages.note(Damage { stream: B, seq: 7, part: DamagedPart::Value });
    // Without the row, nothing vouches for the one before it.
    logs.rows.remove(&keys::log(B, 5));
    let (picked, _) = logs.read(logs.picker_in(pull_all(), None, &damages, &context()));
    assert_eq!((places(&picked).len(), picked.damaged), (3, vec![(B, 4)]));
}

/// The commits of one stream, and their log.
fn long_stream(commits: usize) -> (Vec<Made>, Logs) {
    let mut b = Author::new(B);
    let made: Vec<_> = (0..commits).map(|_| b.note(1, "a")).collect();
    let logs = Logs::of(&[(&b, &made.iter().collect::<Vec<_>>())]);
    (made, logs)
}

/// How many commits a page has, and how many rows each read for it has.
fn reads(logs: &Logs, budget: usize) -> (usize, Vec<usize>) {
    let pull = Pull { budget: budget.try_into().unwrap(), ..pull_all() };
    let (picked, reads) = logs.read(logs.picker(pull, None));
    (picked.commits.len(), reads)
}

/// The rows of all streams may lie in memory at once, so each gets its share of the budget.
#[test]
fn rows_are_read_as_many_as_fit_into_the_page() {
    let (made, mut logs) = long_stream(200);
    let (key, row) = (keys::log(B, 1).len(), made[0].row.len());
    assert_eq!(reads(&logs, 1 << 20), (200, vec![200]), "no more than there are");
    assert_eq!(reads(&logs, 10 * (key + row)).1[0], 10);
    assert_eq!(reads(&logs, 0), (1, vec![1, 1]), "one, and the one that shows that there is more");
    let head = logs.heads[&B];
    logs.heads.extend((0..9).map(|n| (replica(n), head)));
    assert_eq!(reads(&logs, 20 * (key + row)).1.iter().max(), Some(&2), "a tenth of the budget each");
    let heads = Capped((0..9).map(|n| at(&head, replica(n))).collect());
    let pull = Pull { heads, budget: (20 * (key + row)).try_into().unwrap(), ..pull_all() };
    assert_eq!(logs.read(logs.picker(pull, None)).1[0], 20, "a stream that the puller has takes no share");
}

/// A long row is read alone, and makes no other read shorter.
#[test]
fn a_long_row_makes_no_other_read_shorter() {
    let mut b = Author::new(B);
    let many = |count: u8| (0..count).map(|id| (note(id), Some(vec![7]), None)).collect();
    let made: Vec<_> =
        (1..=60).map(|seq| if seq == 20 { b.commit(&[], many(255)) } else { b.note(1, "a") }).collect();
    let logs = Logs::of(&[(&b, &made.iter().collect::<Vec<_>>())]);
    let key = keys::log(B, 1).len();
    let (row, long) = (key + made[0].row.len(), key + made[19].row.len());
    assert_eq!(reads(&logs, 20 * row).1[0], 19, "those in front of it");
    let behind = Capped(vec![WireHead { stream: B, seq: 20, digest: made[20].previous() }]);
    let pull = Pull { heads: behind, budget: (30 * row).try_into().unwrap(), ..pull_all() };
    assert_eq!(logs.read(logs.picker(pull, None)).1[0], 30, "those behind it");
    let at = Capped(vec![WireHead { stream: B, seq: 19, digest: made[19].previous() }]);
    for (budget, rows) in [(row, 1), (long, 1), (long + 2 * row, 3)] {
        let pull = Pull { heads: at.clone(), budget: budget.try_into().unwrap(), ..pull_all() };
        assert_eq!(logs.read(logs.picker(pull, None)).1[0], rows, "{budget} bytes");
    }
}

/// A store may cut any read short: the page goes on behind it.
#[test]
fn a_read_that_is_cut_short_is_read_on() {
    let (_, _, logs) = logs();
    let mut picker = logs.picker(pull_all(), None);
    while let Some(query) = picker.step() {
        let Query::Scan(range, _) = query else { panic!("{query:?} reads no rows") };
        let rows = logs.rows.iter().filter(|(key, _)| range.contains(key));
        picker.take(ScanPage::of(rows, ScanLimit::entries(1)));
    }
    assert_eq!(places(&picker.finish()), places(&logs.pick(pull_all())));
}

#[test]
fn a_read_after_the_first_asks_for_what_the_page_has_room_for() {
    let (_, logs) = long_stream(1500);
    let bytes = logs.pick(pull_all()).bytes / 1500;
    for (fit, then) in [(1100, 1100 - ROWS_MAX + 1), (1030, ROWS_MIN)] {
        assert_eq!(reads(&logs, bytes * fit), (fit, vec![ROWS_MAX, then]));
    }
    let mut endless = long_stream(0).1;
    endless.heads.insert(B, Head { seq: 1 << 40, ..Head::start(GROUP, B) });
    let Some(Query::Scan(_, limit)) = endless.picker(pull_all(), None).step() else {
        panic!("rows are read")
    };
    assert_eq!(limit.entries, ROWS_MAX, "however short the rows are");
}
