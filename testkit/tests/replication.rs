//! Goal: replicas that talk to each other keep their promises over a correct store. Method: both lists over the
//! reference store.

syncline_testkit::replication_tests!(reference_replication, syncline_testkit::Disk::new);
syncline_testkit::joined_replication_tests!(reference_joined_replication, syncline_testkit::Disk::new);
