//! Goal: Y16, a link is used for what is needed, and all of it. Method: links with a rate, in virtual time, over the
//! reference store.

use syncline_testkit::{Disk, block_on, replication};

/// Y16
#[test]
fn a_slow_link_is_used_well() {
    block_on(replication::a_slow_link_is_used_well(&Disk::new));
}

/// Y16
#[test]
fn a_large_commit_takes_its_time_on_a_slow_link() {
    block_on(replication::a_large_commit_takes_its_time_on_a_slow_link(&Disk::new));
}

/// Y16
#[test]
fn a_long_round_trip_is_filled() {
    block_on(replication::a_long_round_trip_is_filled(&Disk::new));
}

/// Y16
#[test]
fn a_busy_author_is_caught_up_with() {
    block_on(replication::a_busy_author_is_caught_up_with(&Disk::new));
}
