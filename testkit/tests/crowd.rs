//! Goal: many replicas converge, and cost no more than the mesh should. Method: a crowd over the reference store: 16 replicas, and 50
//! in `.ci/nightly`.

use syncline_testkit::{Disk, block_on, replication};

/// Y1, Y9, Y14
#[test]
fn a_crowd_on_random_links_ends_the_same() {
    block_on(replication::a_crowd_on_random_links_ends_the_same(&Disk::new, 16));
}

/// Y1, Y9, Y14
#[test]
#[ignore = "it takes long: `.ci/nightly large`"]
fn a_crowd_of_fifty_on_random_links_ends_the_same() {
    block_on(replication::a_crowd_on_random_links_ends_the_same(&Disk::new, 50));
}
