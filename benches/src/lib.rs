#![forbid(unsafe_code)]
//! Measures syncline: `cargo bench -p syncline-benches` runs both kinds of measurement.
//!
//! *What touches a disk* is measured beside the hand-written way in paired rounds (`--bench ratios`), and gives one Markdown
//! table. An argument selects an engine, or the cases whose name contains it: `--bench ratios -- sqlite commit` measures
//! commits on SQLite. `-- --quick` measures less. Progress goes to stderr.
//!
//! *What runs in memory alone* is measured by criterion (`--bench in_memory`): stamps, the encoding and decoding of values,
//! rows and frames, a round of commits, a received commit by the number of peers, a page that is served. There are
//! statistics, baselines (`-- --save-baseline before`, `-- --baseline before`) and plots, in `target/criterion/report`.
//!
//! # What it is compared with
//! [`HandWritten`]: what a good engineer would code for one app. A record row, a log row with the value and one
//! head row go into one durable transaction of the engine's own API, in the layout that is fastest there, with
//! the same settings of durability and cache. Both sides hold the same typed records, encoded with postcard, and
//! both are awaited from a task; behind the hand-written one stands a [`Writer`] thread. The column *bare* is the
//! same engine without that thread: a plain loop that nobody awaits. Where only reads are measured, *bare* decodes
//! in place what the hand-written side copies out first, as any store behind a seam has to. A list is compared with
//! hand-written pages, decoded in place too: both keep a page of records, and hold no read transaction between two pages.
//! There *bare* is one scan that drops each record at once; pages of either side are shown beside it, without a bar.
//!
//! # How it is measured
//! In [paired rounds](rounds): in each round every side does the same work on stores that have grown alike, in an
//! order that turns every round, and the figure is the median of the ratios of the rounds. A durable commit costs
//! what the disk makes of it at that moment, and that drifts by a third within a minute: only two measurements
//! that are a tenth of a second apart can be divided. Criterion, which measures one function to its end and then
//! the next, would divide two different disks.
//!
//! What [two replicas](pair) do together is compared with the same records in hand-written transactions of the size that
//! the receiver's writes had, which is counted. Both replicas run in this process, so on a machine with few cores the
//! one that sends takes time from the one that receives, and no network hides it. What it takes to apply commits is
//! measured once they have all [arrived](holding), as the hand-written rows have.
//!
//! A snapshot is measured in the same way, beside rows alone: it brings no log. They come in the order of their ids, as the
//! records of a snapshot do. A commit beside pruning is compared with as many commits of the same store right after it.
//!
//! All data comes from a seeded generator. The stores lie on a real disk, under the target directory.

pub mod cases;
pub mod counting;
pub mod disk;
pub mod group;
pub mod hand_written;
pub mod holding;
pub mod item;
pub mod memory;
pub mod ours;
pub mod pair;
pub mod rounds;
pub mod stopwatch;
pub mod table;

pub use hand_written::{HandWritten, Writer};
pub use syncline::BoxError;

/// What can go wrong while measuring ends the run.
pub type Result<T> = std::result::Result<T, BoxError>;
