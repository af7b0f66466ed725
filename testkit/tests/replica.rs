//! Goal: a whole replica keeps its promises over a correct store. Method: both lists over the reference store, and the first
//! one over stores that take no more than the contract asks for, or as little as a replica can do with.

use syncline::StoreLimits;
use syncline_testkit::{Disk, Limited};

const SMALL: StoreLimits =
    StoreLimits { key_bytes: 511, value_bytes: 16 << 10, batch_ops: 1 << 10, batch_bytes: 1 << 20 };

syncline_testkit::replica_tests!(reference, Disk::new);
syncline_testkit::replica_tests!(limited, || Limited::new(Disk::new(), StoreLimits::CONTRACT));
syncline_testkit::replica_tests!(small, || Limited::new(Disk::new(), SMALL));
syncline_testkit::joined_replica_tests!(reference_joined, Disk::new);
