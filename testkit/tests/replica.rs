//! Goal: a whole replica keeps its promises over a correct store. Method: the list, over the reference store.

syncline_testkit::replica_tests!(reference, syncline_testkit::Disk::new());
