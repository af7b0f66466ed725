//! The reference store passes both lists, with a second opener that is refused and with one that takes over.

use syncline_testkit::{Disk, join_tests, storage_tests};

storage_tests!(refusing, Disk::new());
storage_tests!(fencing, Disk::fencing());
join_tests!(refusing_join, Disk::new());
join_tests!(fencing_join, Disk::fencing());
