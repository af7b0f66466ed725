//! The models of the apps of a run. Every value has a serial number, by which the oracle finds the commit that put it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

crate::models::models!(serial: u64, Set("set") of serials: u64);

/// The ids of two notes that are only ever put in one commit, with one serial number.
pub(super) const PAIR: [u32; 2] = [1_000_001, 1_000_002];
