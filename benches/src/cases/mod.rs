//! The cases: what is measured, against which bar.

mod catch_up;
mod commit_batch;
mod commit_many;
mod commit_one;
mod get;
mod group_size;
mod growth;
mod latency;
mod list;
mod local_commits;
mod projection;
mod pruning;
mod receive_live;
mod size;
mod snapshot;
mod stores;
mod wire;
mod with_tx;

use std::path::Path;

use tokio::runtime::Runtime;

use crate::Result;
use crate::hand_written::{HandWritten, HandWrittenJoin};
use crate::item::Ids;
use crate::table::Row;

/// What every case needs.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The multi-thread runtime on which both sides are awaited.
    pub runtime: &'a Runtime,
    /// Where stores go: a directory on a real disk.
    pub dir: &'a Path,
    /// Whether to measure less.
    pub quick: bool,
}

impl Bench<'_> {
    /// How much to do: `full`, or `quick` if asked for.
    const fn amount(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Runs `task` to its end on a worker of the runtime, where an app's tasks run.
    fn wait<T: Send + 'static>(&self, task: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.runtime.block_on(async { tokio::spawn(task).await? })
    }
}

/// Something that is measured and gives lines of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The engine, if it is about one; the command line selects by it.
    pub engine: &'static str,
    /// What else the command line selects it by.
    pub name: &'static str,
    /// Measures it.
    pub run: fn(&Bench<'_>) -> Result<Vec<Row>>,
}

/// The cases over one engine.
#[must_use]
pub fn of<H: HandWritten>() -> [Case; 15] {
    [
        Case { engine: H::ENGINE, name: "commit-one", run: commit_one::run::<H> },
        Case { engine: H::ENGINE, name: "commit-one-in-place", run: commit_one::run_in_place::<H> },
        Case { engine: H::ENGINE, name: "commit-64", run: commit_many::run::<H> },
        Case { engine: H::ENGINE, name: "commit-64-in-place", run: commit_many::run_in_place::<H> },
        Case { engine: H::ENGINE, name: "commit-batch", run: commit_batch::run::<H> },
        Case { engine: H::ENGINE, name: "get", run: get::run::<H> },
        Case { engine: H::ENGINE, name: "list", run: list::run::<H> },
        Case { engine: H::ENGINE, name: "size", run: size::run::<H> },
        Case { engine: H::ENGINE, name: "receive-live", run: receive_live::run::<H> },
        Case { engine: H::ENGINE, name: "catch-up", run: catch_up::run::<H> },
        Case { engine: H::ENGINE, name: "far-away", run: catch_up::run_far::<H> },
        Case { engine: H::ENGINE, name: "latency", run: latency::run::<H> },
        Case { engine: H::ENGINE, name: "snapshot-rate", run: snapshot::run::<H> },
        Case { engine: H::ENGINE, name: "pruning", run: pruning::run::<H> },
        Case { engine: H::ENGINE, name: "group-size", run: group_size::run::<H> },
    ]
}

/// The cases of an engine whose transaction the app's own statements can join.
#[must_use]
pub const fn join_of<H: HandWrittenJoin>() -> [Case; 3] {
    [
        Case { engine: H::ENGINE, name: "with-tx", run: with_tx::run::<H> },
        Case { engine: H::ENGINE, name: "projection", run: projection::run::<H> },
        Case { engine: H::ENGINE, name: "local-during-catch-up", run: local_commits::run::<H> },
    ]
}

/// The cases of how much memory it takes to catch up, by log and by snapshot, for an engine that keeps to the cache it is
/// given.
#[must_use]
pub const fn memory_of<H: HandWritten>() -> [Case; 2] {
    [
        Case { engine: H::ENGINE, name: "memory-growth", run: catch_up::run_memory::<H> },
        Case { engine: H::ENGINE, name: "snapshot-memory", run: snapshot::run_memory::<H> },
    ]
}

/// The cases that need no engine: the clock, and what lies between two replicas.
#[must_use]
pub const fn without_engine() -> [Case; 2] {
    [
        Case { engine: "memory", name: "latency", run: latency::run_in_memory },
        Case { engine: "memory", name: "wire", run: wire::run },
    ]
}

/// Does what this process was started for, if that is to measure the memory of something over the engine.
pub fn in_child<H: HandWritten>(runtime: &Runtime, arguments: &[String]) -> Option<Result<()>> {
    let [_, child, engine, path, more @ ..] = arguments else { return None };
    let path = Path::new(path);
    match (child.as_str(), more) {
        _ if engine != H::ENGINE => None,
        (list::IN_CHILD, [records]) => Some(match records.parse() {
            Ok(records) => list::in_child::<H>(runtime, path, records),
            Err(error) => Err(error.into()),
        }),
        (catch_up::IN_CHILD, [far_ms]) => Some(match far_ms.parse() {
            Ok(far_ms) => catch_up::in_child::<H>(runtime, path, far_ms),
            Err(error) => Err(error.into()),
        }),
        (snapshot::IN_CHILD, [records, taker]) => Some(match records.parse() {
            Ok(records) => snapshot::in_child::<H>(runtime, path, records, taker),
            Err(error) => Err(error.into()),
        }),
        _ => None,
    }
}

/// Measures `case` with both kinds of ids and every kind of commit.
fn in_every_way<H: HandWritten>(
    mut case: impl FnMut(Ids, H::Commit) -> Result<Vec<Row>>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &commit in H::COMMITS {
        for ids in Ids::ALL {
            eprintln!("  {commit}, ids {}", ids.name());
            rows.extend(case(ids, commit)?);
        }
    }
    Ok(rows)
}
