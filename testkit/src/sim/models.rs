//! What the apps of a run store. Every value carries a serial number, so that it can be told where it came from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

/// A shared record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
pub(super) struct Note {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) serial: u64,
}

/// A record of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "place")]
pub(super) struct Place {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) device_id: DeviceId,
    pub(super) serial: u64,
}

/// A shared record that is united.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "set", merge = Set::union)]
pub(super) struct Set {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) serials: BTreeSet<u64>,
}

impl Set {
    fn union(mut self, other: Self) -> Self {
        self.serials.extend(other.serials);
        self
    }
}

/// Notes that are only ever put together.
pub(super) const PAIR: [u32; 2] = [1_000_001, 1_000_002];
