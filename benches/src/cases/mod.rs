//! The cases: what is measured, against which bar.

mod commit_batch;
mod commit_many;
mod commit_one;
mod get;
mod list;
mod size;
mod stamp;
mod stores;
mod with_tx;

use std::path::Path;

use tokio::runtime::Runtime;

use crate::Result;
use crate::hand_written::{HandWritten, HandWrittenJoin};
use crate::item::Ids;
use crate::table::Row;

pub use list::{LIST_IN_CHILD, list_in_child};

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
pub fn of<H: HandWritten>() -> [Case; 6] {
    [
        Case { engine: H::ENGINE, name: "commit-one", run: commit_one::run::<H> },
        Case { engine: H::ENGINE, name: "commit-64", run: commit_many::run::<H> },
        Case { engine: H::ENGINE, name: "commit-batch", run: commit_batch::run::<H> },
        Case { engine: H::ENGINE, name: "get", run: get::run::<H> },
        Case { engine: H::ENGINE, name: "list", run: list::run::<H> },
        Case { engine: H::ENGINE, name: "size", run: size::run::<H> },
    ]
}

/// The case of an engine whose transaction the app's own statements can join.
#[must_use]
pub const fn join_of<H: HandWrittenJoin>() -> Case {
    Case { engine: H::ENGINE, name: "with-tx", run: with_tx::run::<H> }
}

/// The case of the clock, which needs no engine.
#[must_use]
pub const fn stamp() -> Case {
    Case { engine: "", name: "stamp", run: stamp::run }
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
