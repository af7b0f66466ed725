//! Goal: a name of the library has one path, at the root of the crate. Method: search the text of the root, since the
//! compiler accepts a second path; and import the names that apps and stores outside of this repository use.

#[allow(unused_imports, reason = "that they are there is the test")]
use syncline::{
    BoxError, Clock, DeviceId, DeviceOwned, Entry, Error, Event, GroupId, Hlc, HlcGenerator, Incoming,
    JoinJob, JoinStorage, JoinTx, Key, KeyRange, Lagged, Mono, Now, Ownership, ReadError, ReplicaId, Shared,
    Storage, SyncId, Syncable, TransactionManager, Transport, TransportError, Tx, Uuid, Value, WallMs,
    WriteBatch, WriteError, WriteOp,
};

#[test]
fn no_module_but_the_internals_is_public() {
    let root = include_str!("../src/lib.rs");
    let public: Vec<_> = root.lines().filter_map(|line| line.trim_start().strip_prefix("pub mod ")).collect();
    // `docs` is there for rustdoc alone.
    assert_eq!(public, ["docs;", "internals;"]);
}
