#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "asserting is the job of this crate: a property that does not hold fails the test that called it"
)]
//! Proves that a store keeps the [contract](syncline::Storage) of `syncline`.
//!
//! The pages for authors, with a whole store and the questions that come up: [`docs`].
//!
//! The author of a store writes a [`Fixture`], which opens the store, and one line, with a function that makes one:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
//! use std::sync::{Arc, Mutex};
//!
//! use async_trait::async_trait;
//! use syncline::{BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, WriteBatch, WriteError};
//! use syncline_testkit::{Fixture, storage_tests};
//!
//! #[derive(Clone, Default)]
//! struct MapDisk {
//!     entries: Arc<Mutex<BTreeMap<Key, Value>>>,
//!     open: Arc<AtomicBool>,
//! }
//!
//! struct MapStore(MapDisk);
//!
//! #[async_trait]
//! impl Fixture for MapDisk {
//!     type Store = MapStore;
//!
//!     async fn open(&self) -> Result<MapStore, BoxError> {
//!         if self.open.swap(true, SeqCst) { Err("it is open already".into()) } else { Ok(MapStore(self.clone())) }
//!     }
//! }
//!
//! impl Drop for MapStore {
//!     fn drop(&mut self) {
//!         self.0.open.store(false, SeqCst);
//!     }
//! }
//!
//! #[async_trait]
//! impl Storage for MapStore {
//!     async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
//!         let entries = self.0.entries.lock().unwrap();
//!         Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
//!     }
//!
//!     async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
//!         let entries = self.0.entries.lock().unwrap();
//!         Ok(ScanPage::of(entries.iter().filter(|(key, _)| range.contains(key)), limit))
//!     }
//!
//!     async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
//!         batch.apply_to(&mut self.0.entries.lock().unwrap());
//!         Ok(())
//!     }
//! }
//!
//! storage_tests!(map, MapDisk::default);
//! # // The tests of a documentation example do not run, so the list runs by hand.
//! # for property in syncline_testkit::storage::properties::<MapDisk>() {
//! #     property.check(&MapDisk::default);
//! # }
//! ```
//!
//! `cargo test` then prints `map::write_is_atomic ... ok` and sixteen more lines: one [property](storage) for each
//! bullet of the contract, under its name, and one that plays random sequences against a sorted map. A failure names
//! the property, the step, and what was found:
//!
//! ```text
//! scan_is_ordered: nasty keys, "".., limit 1: found ["\x80"="value 10"], expected ["\x00"=""]
//! ```
//!
//! One cause can make many properties fail. Then a message ends with the one to begin with, the first in the order of
//! the list that fails.
//!
//! Every run plays the same sequences. `SYNCLINE_SEED=7 cargo test` plays others; a failure prints the seed and the
//! fewest steps that still fail.
//!
//! A store whose medium can be replaced overrides [`Fixture::break_medium`]: then the properties let the medium fail
//! and panic at each of its operations in turn, so that every error path is walked. Its author says so:
//! `storage_tests!(mine, MyFixture::new, breaks_its_medium)`. What the list cannot see of a store shows as ignored
//! tests, each with the reason: `map::not_checked::failing_medium ... ignored, implement Fixture::break_medium …`.
//!
//! Every test ends: one that hangs fails after 120 s, or as many as `SYNCLINE_TEST_SECONDS` says, and names its step.
//!
//! # Stores with a native transaction
//! A store that implements [`JoinStorage`](syncline::JoinStorage) gets two more lists. Its fixture implements
//! [`JoinFixture`]: three short functions that reach a table of the app through the native transaction and, if the
//! engine lets a statement end the transaction, the [`Ending`]s that it knows:
//!
//! ```
//! # use syncline_testkit::Disk;
//! syncline_testkit::join_tests!(join, Disk::new);
//! syncline_testkit::joined_replica_tests!(joined_replica, Disk::new);
//! ```
//!
//! The first list has one [property](join) for each bullet of that contract, the second runs `with_tx` and the
//! projections of a [whole replica](joined_replica) over the store.
//!
//! # Stores on files
//! Three lists need a closure that opens the store at a path, and start processes of their own:
//!
//! ```
//! # use syncline_testkit::FileStore;
//! syncline_testkit::crash_tests!(crash, |path| FileStore::open(path));
//! syncline_testkit::power_tests!(power, |path| FileStore::open(path));
//! syncline_testkit::fault_tests!(faults, |path| FileStore::open(path));
//! ```
//!
//! [`crash_tests!`] kills a process that writes, or opens the store, and is the second owner from another process.
//! [`power_tests!`] judges by the calls of a process whether a loss of power could take back what was acknowledged or
//! read. [`fault_tests!`] lets calls fail: full media, failed syncs, short writes. The last two need strace, but no
//! privileges; where it is missing their tests are *ignored*. [`crash_join_tests!`] is for joined writes.
//!
//! [`FileStore`] passes all of them, and is short: start from it, with the [page](docs::writing_a_store) that explains it.
//!
//! # Transports
//! The author of a transport writes a [`TransportFixture`] and [`transport_tests!`]: one [property](transport) for each
//! bullet of the [contract](syncline::Transport) of transports; the [page](docs::writing_a_transport) shows a whole one. [`replication_over_tests!`] runs [whole
//! replicas](over_transport) over it.
//!
//! # Models with a merge of their own
//! [`merge_laws!`] checks an app's model: that its merge is commutative, associative, idempotent, deterministic and total
//! ([laws](mod@merge_laws)).
//!
//! # Clocks
//! [`clock_tests!`] checks a clock that an app brings: one [property](clocks) for each bullet of the
//! [contract](syncline::Clock) of clocks. [`clock_rises_tests!`] checks that the stamps of a replica [rise](clock_rises)
//! over a store, whatever becomes of the process and of the wall clock.
//!
//! # Whole apps
//! [`AppSim`](app_sim::AppSim) plays an app's models, merges and work on several replicas, under crashes, failing stores,
//! partitions, losses and wrong clocks, and [checks](app_sim) that they agree and that the app's own invariants hold.
//!
//! # What else is here
//! - [`replica_tests!`] runs a whole [replica] over the store, [`replication_tests!`] runs
//!   [several](replication) that talk to each other, and [`sim`] plays seeded histories of crashes, faults and losses;
//!   `cargo soak` plays them for as long as one likes.
//! - [`Faulty`], [`Recording`], [`Gated`], [`Filtered`] and [`Limited`] wrap a store, to test the code above it: errors,
//!   unknown outcomes and panics at every operation; the order of writes and replies; writes that wait; writes that are
//!   left out; a store that takes exactly what it declares. Over a store that lends its transaction they lend it too, and count a joined write as one write.
//! - [`poll_at_most`] and [`interleave`] stop futures where a test wants them, [`seed`] is the seed of all randomness,
//!   [`panic_quietly`] is a panic that is looked for.
//! - [`StepClock`] and [`ManualClock`] are clocks that a test moves by hand.
//! - [`Disk`] holds the [`Reference`] store, which is correct; [`BrokenDisk`] and [`BrokenJoinsDisk`] hold stores with
//!   one [`Flaw`] or [`JoinFlaw`] each, [`BrokenNetwork`], [`BrokenClock`] and
//!   [`BrokenClockDisk`] have a [`TransportFlaw`], a [`ClockFlaw`] and a [`RiseFlaw`]. The lists must
//!   fail every one of them by the property that names its flaw: `tests/kill_matrix.rs` and `tests/more_than_stores`
//!   print the matrices.
//!
//! # What is checked, and what is not
//! The properties that storage engines have broken, and where each one is checked:
//!
//! | | property of a store | checked by |
//! |---|---|---|
//! | S1 | `Ok`: all of it, otherwise nothing | `write_is_atomic`, `rejected_leaves_no_trace`, `behaves_like_a_sorted_map` |
//! | S2 | an error at any operation: before or after, no mix | `failed_write_is_told`, `failed_change_of_a_name_or_a_length_is_told`; `write_is_atomic`, `rejected_leaves_no_trace`, with `break_medium` |
//! | S3 | a panic at any operation: as S2 | `write_is_atomic`, with `break_medium`; lost space is the store's own test |
//! | S4 | a crash at any operation | of the process: `kill_9_loses_nothing_acknowledged`, `kill_9_tears_no_batch`, `killed_at_any_call_tears_no_batch`, a store dropped at every poll of a write (`write_is_atomic`), a medium that stops for good (`break_medium`). What a crash of the machine leaves of unsynced bytes is the store's own test |
//! | S5 | `Ok` survives loss of power | `acknowledged_is_synced`, `new_files_are_synced_in_their_directory`, `seen_is_synced`: that the bytes are there, not that the store puts them together. There is no deferred durability to check |
//! | S6 | a crash during recovery | `killed_while_opening_it_opens_again`, `failed_open_changes_nothing`, `reopening_changes_nothing` with `break_medium`; torn images are the store's own test |
//! | S7 | a failed sync is not forgotten | `failed_sync_is_told`; `write_survives_reopening`, `writes_are_ordered`, with `break_medium` |
//! | S8 | a read sees one state | `reads_are_never_torn`. A read is one call, so there are no anomalies between reads to look for |
//! | S9 | no lost update | nothing to check: the seam has one writer and no read-modify-write; `second_owner_is_fenced` keeps it so |
//! | S10 | a transaction sees its own writes | `join_sees_its_own_writes` of the [joins](join). A batch is data and cannot be read; the order of its operations: `later_ops_win` |
//! | S11 | after `Ok` every read sees it | `reads_see_last_write` |
//! | S12 | scans in order and in bounds | `scan_is_ordered`. There are no reverse scans |
//! | S13 | empty keys and values | `empty_is_not_absent` |
//! | S14 | sizes | `sizes_are_kept` |
//! | S15 | tables apart, range deletes inside | `delete_range_stays_inside`. There is one keyspace, its prefixes are the caller's |
//! | S16 | a scan that failed says so | `failed_read_is_told`; `scan_is_ordered` and, for keys, `reads_see_last_write`, with `break_medium`. There are no iterators to go on with |
//! | S17 | a second opener | `second_owner_is_fenced` within a process, `another_process_is_fenced` between two |
//! | S18 | reopening changes nothing | `reopening_changes_nothing`; files of other versions are the store's own test |
//! | S19 | space is given back, readers block no writer | space is the store's own soak test; `reads_see_last_write` reads beside writes |
//! | S20 | dropped futures | `cancel_is_all_or_nothing` |
//! | S21 | a full medium | `full_medium_is_told`, `short_write_is_completed_or_told`; `write_is_atomic`, `rejected_leaves_no_trace`, with `break_medium` |

mod broken;
pub mod child;
mod clock;
pub mod clocks;
pub mod crash;
pub mod docs;
mod faults;
pub mod file_store;
mod filtered;
mod fixture;
pub mod fuzz;
mod gate;
pub mod io_faults;
pub mod join;
pub mod joined_replica;
mod limited;
#[doc(hidden)]
pub mod list;
pub mod merge_laws;
mod models;
mod on_drop;
mod poll;
pub mod power;
mod quiet;
mod recording;
mod reference;
pub mod replica;
pub mod replication;
mod seed;
pub mod sim;
mod sorted_map;
mod step_clock;
pub mod storage;
mod strace;
mod tap;
mod threads;
pub mod transport;
mod watchdog;

pub use broken::{
    Broken, BrokenClock, BrokenClockDisk, BrokenDisk, BrokenJoins, BrokenJoinsDisk, BrokenNetwork,
    BrokenTransport, BrokenTx, ClockFlaw, Flaw, JoinFlaw, RiseFlaw, TransportFlaw,
};
pub use clock::ManualClock;
pub use faults::{Fault, FaultKind, Faults, Faulty};
pub use file_store::FileStore;
pub use filtered::{Filtered, FilteredTx};
pub use fixture::{Ending, EndingFn, Fixture, JoinFixture, MediumFault, MediumFaultKind};
#[doc(hidden)]
pub use futures::executor::block_on;
pub use gate::{Gate, Gated};
pub use limited::Limited;
#[doc(hidden)]
pub use poll::be_patient_for;
pub use poll::{interleave, poll_at_most, poll_at_most_until_woken};
pub use quiet::panic_quietly;
pub use recording::{Recording, Request, Trace, TraceEvent, TraceOutcome};
pub use reference::{Disk, Reference, ReferenceRows, ReferenceTx};
#[doc(inline)]
pub use replication::{app_sim, clock_rises};
pub use seed::seed;
pub use step_clock::StepClock;
#[doc(inline)]
pub use transport::over_transport;
pub use transport::{Holds, TransportFixture};
#[doc(hidden)]
pub use watchdog::{watched, watched_for};

/// Makes a module with one test for each property of a list. The list is the module of this crate that is named first.
#[doc(hidden)]
#[macro_export]
macro_rules! test_module {
    ([$list:ident, $module:ident, $fixture:expr $(, { $($more:item)* })?] $($property:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may need nothing from outside")]
            use super::*;

            #[cfg(test)]
            const LIST: &[$crate::list::Test] = &[$((stringify!($property), || {
                let fixture = $fixture;
                $crate::block_on($crate::$list::$property(&fixture));
            })),*];

            $(
                #[test]
                fn $property() {
                    $crate::list::run(stringify!($list), LIST, stringify!($property));
                }
            )*
            $($($more)*)?
        }
    };
}
