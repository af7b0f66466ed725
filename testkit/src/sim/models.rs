//! What the apps of a run store. Every value carries a serial number, so that it can be told where it came from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

crate::models::models!(serial: u64, Set("set") of serials: u64);

/// Notes that are only ever put together.
pub(super) const PAIR: [u32; 2] = [1_000_001, 1_000_002];
