//! The operations of a batch take effect in their order.

use syncline::{KeyRange, WriteBatch, WriteOp};

use super::samples::{numbered_batch, replacing};
use super::subject::Subject;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

/// Goal: a batch has the effect of its operations one after the other. Method: all batches of three operations out of
/// six that disturb each other, against a sorted map; all pairs of them, far apart in a batch so large that a store may take
/// another way for it.
///
/// # Panics
/// If the store breaks the property.
pub async fn later_ops_win<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let subject = Subject::open("later_ops_win", fixture).await;
    let start: SortedMap = [(b"a".to_vec(), b"old".to_vec()), (b"b".to_vec(), b"old".to_vec())].into();
    let ops: [WriteOp; 6] = [
        WriteOp::Put { key: b"a".to_vec(), value: b"first".to_vec() },
        WriteOp::Put { key: b"a".to_vec(), value: b"second".to_vec() },
        WriteOp::Put { key: b"c".to_vec(), value: b"new".to_vec() },
        WriteOp::Delete { key: b"a".to_vec() },
        WriteOp::DeleteRange { range: KeyRange::new(*b"a", *b"c") },
        WriteOp::DeleteRange { range: KeyRange::all() },
    ];
    for first in &ops {
        for second in &ops {
            for third in &ops {
                let batch = WriteBatch::from(vec![first.clone(), second.clone(), third.clone()]);
                let step = sorted_map::show_ops(batch.ops());
                let expected = sorted_map::after(&start, &batch);
                // The first write fills the store and acts in one batch, the second one acts on stored keys: the
                // operations must work on both.
                let whole: Vec<_> = replacing(&start).into_iter().chain(batch.clone()).collect();
                subject.write(&step, whole.into()).await;
                subject.expect(format_args!("{step}, all keys staged"), &expected).await;
                subject.write(&step, replacing(&start)).await;
                subject.write(&step, batch).await;
                subject.expect(format_args!("{step}, keys stored before"), &expected).await;
            }
        }
    }
    for filler in [1_100, 12_000] {
        pairs_of_a_large_batch(&subject, filler).await;
    }
    let mut expected = subject.state("before a batch without operations").await;
    subject.write("a batch without operations", WriteBatch::new()).await;
    subject.expect("after a batch without operations", &expected).await;
    for number in 0..4 {
        sorted_map::apply(&mut expected, numbered_batch(number).ops());
        subject.write("batches that overwrite each other", numbered_batch(number)).await;
        subject.expect("after batches that overwrite each other", &expected).await;
    }
}

/// Each pair of operations has keys of its own. The first ones of all pairs come before the filler, the second ones after.
async fn pairs_of_a_large_batch<F: Fixture>(subject: &Subject<'_, F>, filler: usize) {
    let ops = |pair: [u8; 2]| -> [WriteOp; 6] {
        let key = |last: u8| [&b"pair/"[..], &pair, &[last]].concat();
        let put = |last, value: &[u8]| WriteOp::Put { key: key(last), value: value.to_vec() };
        [
            put(b'a', b"first"),
            put(b'a', b"second"),
            put(b'c', b"new"),
            WriteOp::Delete { key: key(b'a') },
            WriteOp::DeleteRange { range: KeyRange::new(key(b'a'), key(b'c')) },
            WriteOp::DeleteRange { range: KeyRange::prefix([&b"pair/"[..], &pair].concat()) },
        ]
    };
    let pairs = || (0..6).flat_map(|first| (0..6).map(move |second| [first, second]));
    let start: SortedMap = pairs()
        .flat_map(|pair| [b'a', b'b'].map(|last| ([&b"pair/"[..], &pair, &[last]].concat(), b"old".to_vec())))
        .collect();
    let filler = subject.ops_of_a_batch(filler + 72) - 72;
    let filler = (0..filler as u64).map(|at| WriteOp::Put {
        key: [&b"filler/"[..], &at.to_be_bytes()].concat(),
        value: b"filler".to_vec(),
    });
    let op = |pair: [u8; 2], at: usize| ops(pair)[usize::from(pair[at])].clone();
    let all: Vec<_> =
        pairs().map(|pair| op(pair, 0)).chain(filler).chain(pairs().map(|pair| op(pair, 1))).collect();
    let batch = WriteBatch::from(all);
    let step = format!("pairs of operations in a batch of {}", batch.ops().len());
    subject.write(&step, replacing(&start)).await;
    let expected = sorted_map::after(&start, &batch);
    subject.write(&step, batch).await;
    subject.expect(&step, &expected).await;
    subject.write(&step, replacing(&SortedMap::new())).await;
}
