//! The reference store passes both lists, with a second opener that is refused, with one that takes over, and with sizes as small
//! as a replica can do with.

use syncline::StoreLimits;
use syncline_testkit::{Disk, Limited, join_tests, storage_tests};

const SMALL: StoreLimits =
    StoreLimits { key_bytes: 511, value_bytes: 16 << 10, batch_ops: 1 << 10, batch_bytes: 1 << 20 };

storage_tests!(refusing, Disk::new, breaks_its_medium);
storage_tests!(fencing, Disk::fencing, breaks_its_medium);
storage_tests!(limited, || Limited::new(Disk::new(), StoreLimits::CONTRACT));
storage_tests!(small, || Limited::new(Disk::new(), SMALL));
join_tests!(refusing_join, Disk::new);
join_tests!(fencing_join, Disk::fencing);
