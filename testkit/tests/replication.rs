//! Goal: replicas that talk keep their promises over a correct store. Method: the list, over the reference store.

syncline_testkit::replication_tests!(reference_replication, syncline_testkit::Disk::new);
