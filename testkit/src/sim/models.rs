//! The models of the apps of a run. Every value has a serial number, by which the oracle finds the commit that put it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

crate::models::models!(serial: u64, Set("set") of serials: u64);

/// A shared record whose values are large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "photo")]
pub(super) struct Photo {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) serial: u64,
    pub(super) pixels: Vec<u8>,
}

impl Photo {
    /// A photo of `kib` KiB that no compression makes shorter.
    pub(super) fn of(id: u32, serial: u64, kib: u16) -> Self {
        let mut rng = fastrand::Rng::with_seed(serial);
        let pixels = (0..usize::from(kib) * 1024).map(|_| rng.u8(..)).collect();
        Self { id, serial, pixels }
    }
}

/// The ids of two notes that are only ever put in one commit, with one serial number.
pub(super) const PAIR: [u32; 2] = [1_000_001, 1_000_002];
