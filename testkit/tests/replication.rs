//! Goal: replicas that talk to each other keep their promises over a correct store. Method: both lists over the
//! reference store, and the first one over a store that takes no more than the contract asks for.

use syncline::StoreLimits;
use syncline_testkit::{Disk, Limited};

fn limited() -> Limited<Disk> {
    Limited::new(Disk::new(), StoreLimits::CONTRACT)
}

syncline_testkit::replication_tests!(reference_replication, Disk::new);
syncline_testkit::replication_tests!(limited_replication, limited);
syncline_testkit::joined_replication_tests!(reference_joined_replication, Disk::new);
