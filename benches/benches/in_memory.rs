//! What runs in memory alone, measured by criterion: statistics, baselines, plots (`target/criterion/report`).
//!
//! `cargo bench -p syncline-benches --bench in_memory -- peers` measures the cases whose name contains `peers`.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use syncline::internals::alone::{
    Alone, decode, encode, encode_unchecked, log_row, read_frame, read_log_row,
};
use syncline::{HlcGenerator, ReplicaId, Syncable, Uuid, WallMs};
use syncline_benches::item::{Ids, Item, Items};

/// Drawing a stamp: a commit costs some hundred microseconds, so this could cost ten times as much and not be seen there.
fn stamp(c: &mut Criterion) {
    let mut clock = HlcGenerator::fresh(ReplicaId(Uuid::from_u128(1)), 5 * 60 * 1000);
    c.bench_function("stamp", |bencher| {
        let mut wall = 0;
        bencher.iter(|| {
            wall += 1;
            WallMs::new(wall / 100).and_then(|now| clock.stamp(black_box(now)))
        });
    });
}

/// A value on its way into its record and back.
fn values(c: &mut Criterion) {
    let item = Items::new(Ids::TimeOrdered, 1).take(1).remove(0);
    let record = encode(&item);
    let mut group = c.benchmark_group("value");
    group.throughput(Throughput::Bytes(record.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| encode(black_box(&item))));
    group.bench_function("encode without its check", |bencher| {
        bencher.iter(|| encode_unchecked(black_box(&item)));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode::<Item>(&item.sync_id(), black_box(&record)));
    });
    group.finish();
}

/// A log row of a single commit and of a batch.
fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("log row");
    for changes in [1, 1_000] {
        let row = log_row(changes);
        group.throughput(Throughput::Elements(changes.into()));
        group.bench_with_input(BenchmarkId::new("write", changes), &changes, |bencher, changes| {
            bencher.iter(|| log_row(black_box(*changes)));
        });
        group.bench_with_input(BenchmarkId::new("read", changes), &row, |bencher, row| {
            bencher.iter(|| read_log_row(black_box(row)));
        });
    }
    group.finish();
}

/// Reading a live frame: its checksum, and the commit in it.
fn frames(c: &mut Criterion) {
    let frame = Alone::among(1, 200).frames(1).remove(0);
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(|| read_frame(black_box(&frame))));
    group.finish();
}

/// A round of single commits of the app, from the calls to the answers, over a map.
fn round(c: &mut Criterion) {
    let mut group = c.benchmark_group("round");
    for commits in [1, 64, 1_000] {
        let mut alone = Alone::among(1, 200);
        group.throughput(Throughput::Elements(commits.into()));
        group.bench_function(BenchmarkId::from_parameter(commits), |bencher| {
            bencher.iter(|| alone.commit(commits));
        });
    }
    group.finish();
}

/// A received commit of one record among connected peers that miss nothing: it must not cost more with more of them. The
/// bar: among 255, in a group of 256, five times as much as among 2 at most.
fn peers(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive among peers");
    for peers in [2, 32, 255] {
        group.bench_function(BenchmarkId::from_parameter(peers), |bencher| {
            let mut alone = Alone::among(peers, 200);
            // As many at once as criterion asks for: each is the next one of its stream.
            bencher.iter_custom(|iterations| {
                let frames = alone.frames(u32::try_from(iterations).unwrap_or(u32::MAX));
                let stopwatch = syncline_benches::stopwatch::Stopwatch::start();
                frames.into_iter().for_each(|frame| alone.receive(frame));
                stopwatch.elapsed()
            });
        });
    }
    group.finish();
}

/// A page of a megabyte of small values, over a map.
fn page(c: &mut Criterion) {
    let mut alone = Alone::among(1, 200);
    (0..4).for_each(|_| alone.commit(1_000));
    let bytes = alone.serve();
    let mut group = c.benchmark_group("serve");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("page", |bencher| {
        bencher.iter_batched(|| (), |()| black_box(alone.serve()), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, stamp, values, rows, frames, round, peers, page);
criterion_main!(benches);
