//! The list passes on the store that it was written against, however its second opener fares.

use syncline_testkit::{Disk, join_tests, storage_tests};

storage_tests!(refusing, Disk::new());
storage_tests!(fencing, Disk::fencing());
join_tests!(refusing_join, Disk::new());
join_tests!(fencing_join, Disk::fencing());
