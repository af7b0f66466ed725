use super::super::super::made::{Author, B, C, ME, Made, note, replica};
use super::*;
use crate::stored::keys::RecordKey;
use crate::stored::record::Header;

/// What a store has of values: some in the records that they were put into, some that were kept.
#[derive(Clone, Default)]
struct Store {
    records: BTreeMap<Key, Value>,
    kept: BTreeMap<Key, Value>,
}

impl Store {
    /// A store that holds the last of `commits` on a record in that record, and has kept all others.
    fn of(commits: &[Made]) -> Self {
        let mut store = Self::default();
        commits.iter().for_each(|made| store.write(made));
        store
    }

    /// Applies a commit that puts or deletes records, each of which belongs to the commit before on it.
    fn write(&mut self, made: &Made) {
        let entry = made.entry();
        for (change, value) in entry.changes.iter().zip(&made.values) {
            let (tombstone, stamp, seq) = (value.is_none(), entry.stamp, made.seq);
            let schema = if tombstone { 0 } else { 1 };
            let header = Header { tombstone, schema, stamp, seq, merge: None };
            let record = record::of(&header, value.as_deref().unwrap_or_default());
            let before = self.records.insert(change.record.as_bytes().to_vec(), record);
            let Some((old, value)) = before.as_deref().map(|before| record::parse(before).unwrap()) else {
                continue;
            };
            if !old.tombstone {
                let kept = keys::kept(old.stamp.replica(), old.seq, &change.record);
                self.kept.insert(kept, value.to_vec());
            }
        }
    }

    fn answer(&self, query: Query) -> Answer {
        match query {
            Query::Scan(range, limit) => {
                let kept = self.kept.iter().filter(|(key, _)| range.contains(key));
                Answer::Page(ScanPage::of(kept, limit))
            }
            Query::Get(keys) => {
                let get = |key: Key| self.records.get(&key).or_else(|| self.kept.get(&key)).cloned();
                Answer::Values(keys.into_iter().map(get).collect())
            }
            Query::Count(range) => panic!("a page counts nothing in {range:?}"),
        }
    }
}

fn rows(commits: &[Made]) -> Vec<LogRow> {
    let row = |made: &Made| LogRow {
        stream: made.stream,
        seq: made.seq,
        row: made.row.clone(),
        entry: made.entry(),
    };
    commits.iter().map(row).collect()
}

/// What a read is for, and how many values it asks for.
fn name(query: &Query) -> (&'static str, usize) {
    match query {
        Query::Scan(_, limit) => ("scan", limit.entries),
        Query::Get(keys) if keys.iter().all(|key| keys::records().contains(key)) => ("records", keys.len()),
        Query::Get(keys) => ("kept", keys.len()),
        Query::Count(_) => ("count", 0),
    }
}

/// The values that were found for each commit, the commits of which one was lost, and the reads that it took.
type Found = (Vec<Vec<Option<Value>>>, Vec<(ReplicaId, u64)>, Vec<(&'static str, usize)>);

/// Finds the values of `commits`; `meanwhile` happens to the store before each read.
fn find(
    commits: &[Made],
    own_kept: (ReplicaId, u64),
    store: &mut Store,
    mut meanwhile: impl FnMut(&mut Store, &str),
) -> Found {
    let mut values = Values::new(rows(commits), own_kept, Care::Values);
    let mut reads = Vec::new();
    while let Some(query) = values.step() {
        let read = name(&query);
        meanwhile(store, read.0);
        reads.push(read);
        assert!(reads.len() < 100, "it comes to an end");
        values.take(store.answer(query));
    }
    let (chosen, lost) = values.finish();
    let bytes = |located: &Located| located.bytes[located.at..].to_vec();
    let of_commit = |chosen: &Chosen| chosen.values.iter().map(|value| value.as_ref().map(bytes)).collect();
    (chosen.iter().map(of_commit).collect(), lost, reads)
}

fn found(commits: &[Made], store: &mut Store) -> Found {
    find(commits, (ME, 0), store, |_, _| {})
}

/// The values as the commits put them.
fn put(commits: &[Made]) -> Vec<Vec<Option<Value>>> {
    let value = |value: &Option<bytes::Bytes>| value.as_ref().map(|value| value.to_vec());
    commits.iter().map(|made| made.values.iter().map(value).collect()).collect()
}

#[test]
fn what_was_kept_is_read_first_and_then_the_records() {
    let (mut b, mut c) = (Author::new(B), Author::new(C));
    let two = vec![(note(1), Some(b"new".to_vec()), None), (note(2), Some(Vec::new()), None)];
    let commits = [b.note(3, "b"), b.note(1, "old"), c.note(4, "c"), b.commit(&[], two)];
    let (values, lost, reads) = found(&commits, &mut Store::of(&commits));
    assert_eq!((values, lost), (put(&commits), vec![]));
    assert_eq!(reads, [("scan", VALUES_MAX), ("scan", VALUES_MAX), ("records", 4)]);
}

/// A write between two reads puts another value into the record, and keeps the one that was there.
#[test]
fn a_value_that_is_displaced_while_a_page_is_read_is_found_among_what_was_kept() {
    let mut b = Author::new(B);
    let commits = [b.note(1, "one"), b.note(2, "two"), b.note(3, "three")];
    let displacing = b.note(2, "newer");
    let (values, lost, reads) = find(&commits, (ME, 0), &mut Store::of(&commits), |store, read| {
        if read == "records" {
            store.write(&displacing);
        }
    });
    assert_eq!((values, lost), (put(&commits), vec![]));
    assert_eq!(reads, [("scan", VALUES_MAX), ("records", 3), ("kept", 1)]);
}

/// A value was pruned meanwhile, or is damaged. A commit without its value would be taken by nobody; all others come, but for
/// those that rest on it.
#[test]
fn a_value_that_is_nowhere_ends_its_own_stream_and_what_rests_on_it() {
    for damaged in [false, true] {
        let (mut b, mut c, mut d) = (Author::new(B), Author::new(C), Author::new(replica(0xd)));
        let commits = [
            b.note(1, "1"),
            c.note(2, "2"),
            b.note(3, "3"),
            c.note(4, "4"),
            d.commit(&[(B, 1)], vec![(note(5), Some(b"5".to_vec()), None)]),
            d.commit(&[(B, 2)], vec![(note(6), Some(b"6".to_vec()), None)]),
            c.commit(&[(d.stream, 2)], vec![(note(7), Some(b"7".to_vec()), None)]),
            d.note(8, "8"),
            b.note(9, "9"),
        ];
        let mut store = Store::of(&commits);
        for lost in [3, 9] {
            let record = note(lost).into_bytes();
            if damaged {
                *store.records.get_mut(&record).unwrap().last_mut().unwrap() ^= 1;
            } else {
                store.records.remove(&record);
            }
        }
        let (values, lost, _) = found(&commits, &mut store);
        let served = [0, 1, 3, 4].map(|at: usize| put(&commits[at..=at]).remove(0));
        assert_eq!((&values[..], &lost[..]), (&served[..], &[(B, 2)][..]), "damaged: {damaged}");
    }
}

#[test]
fn a_record_holds_only_the_value_of_the_commit_that_it_names() {
    let (mut b, mut c) = (Author::new(B), Author::new(C));
    let commits = [b.note(1, "b")];
    // Its sequence number is the same, its stream is another one.
    let mut store = Store::of(&[c.note(1, "c")]);
    assert_eq!(
        found(&commits, &mut store),
        (vec![], vec![(B, 1)], vec![("scan", 1024), ("records", 1), ("kept", 1)])
    );
    let key = note(1).into_bytes();
    store.records.get_mut(&key).unwrap().truncate(5);
    assert_eq!(found(&commits, &mut store).1, [(B, 1)], "a damaged record holds nothing");
}

/// Own values are kept where the own log is read behind the last opening, which is rare.
#[test]
fn nothing_of_the_own_stream_is_looked_for_above_what_was_kept_of_it() {
    let mut me = Author::new(ME);
    let all = [me.note(1, "old"), me.note(1, "new"), me.note(2, "other")];
    let mut store = Store::of(&all);
    let (values, lost, reads) = find(&all, (ME, 1), &mut store, |_, _| {});
    assert_eq!((values, lost, reads[0]), (put(&all), vec![], ("scan", VALUES_MAX)));
    let (values, lost, reads) = find(&all[1..], (ME, 1), &mut store, |_, _| {});
    assert_eq!((values, lost, reads), (put(&all[1..]), vec![], vec![("records", 2)]));
    let (_, _, reads) = find(&all[1..], (B, 1), &mut store, |_, _| {});
    assert_eq!(reads[0].0, "scan", "of others that is not known");
}

#[test]
fn commits_without_values_take_no_read() {
    let mut b = Author::new(B);
    let delete = |b: &mut Author, id| b.commit(&[], vec![(note(id), None, None)]);
    let commits = [delete(&mut b, 1), b.commit(&[], vec![])];
    assert_eq!(found(&commits, &mut Store::default()), (vec![vec![None], vec![]], vec![], vec![]));
    let commits = [b.note(1, "a"), delete(&mut b, 1), delete(&mut b, 2), b.note(2, "b")];
    let mut store = Store::of(&commits);
    store.write(&b.note(2, "newer"));
    let (values, lost, reads) = found(&commits, &mut store);
    assert_eq!((values, lost), (put(&commits), vec![]), "also between those that have some");
    assert_eq!(reads, [("scan", VALUES_MAX)]);
}

/// What is read at once has a bound, wherever the values lie.
#[test]
fn thousands_of_values_are_read_in_pieces() {
    let mut b = Author::new(B);
    let writes = |value: &str, count: u32| {
        let record = |n: u32| RecordKey::from_parts("note", None, &n.to_be_bytes());
        (0..count).map(|n| (record(n), Some(format!("{value} {n}").into_bytes()), None)).collect()
    };
    let commits = [b.commit(&[], writes("old", 1500)), b.commit(&[], writes("new", 3000))];
    let mut store = Store::of(&commits);
    let (values, lost, reads) = found(&commits, &mut store);
    assert!(values == put(&commits) && lost.is_empty());
    let gets = [("records", 1024), ("records", 1024), ("records", 952)];
    assert_eq!(reads, [&[("scan", 1024); 2][..], &gets].concat());
    // All of them move while the first piece of the records is read.
    let newer = b.commit(&[], writes("newer", 3000));
    let mut moves = Some(newer);
    let (values, lost, reads) = find(&commits, (ME, 0), &mut store, |store, read| {
        if let Some(newer) = moves.take_if(|_| read == "records") {
            store.write(&newer);
        }
    });
    assert!(values == put(&commits) && lost.is_empty());
    assert_eq!(reads[5..], [("kept", 1024), ("kept", 1024), ("kept", 952)]);
    let (values, lost, reads) = found(&commits, &mut Store::default());
    assert_eq!((values.len(), lost), (0, vec![(B, 1)]));
    assert_eq!(
        reads.iter().filter(|(read, _)| *read == "kept").count(),
        1,
        "the first loss is the last read"
    );
}
