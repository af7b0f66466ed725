//! Goal: a whole replica keeps its promises over a correct store. Method: both lists over the reference store.

syncline_testkit::replica_tests!(reference, syncline_testkit::Disk::new());
syncline_testkit::joined_replica_tests!(reference_joined, syncline_testkit::Disk::new());
