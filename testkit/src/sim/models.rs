//! The models of the apps of a run. Every value has a serial number, by which the oracle finds the commit that put it.

use std::collections::BTreeSet;

use std::panic::resume_unwind;

use serde::{Deserialize, Serialize};
use syncline::{BoxError, DeviceId, Shared, Syncable};

crate::models::models!(serial: u64);

/// A shared record with its own merge, the union of its serial numbers, as a version of the app knows it: with this
/// schema, and perhaps an `ILL` merge that panics where a number is [`is_ill`].
///
/// All schemas have one layout, and each writes the numbers in another way. So a value that is read by another schema than
/// its own can be decoded, and has wrong numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetOf<const SCHEMA: u16, const ILL: bool> {
    id: u32,
    /// The numbers, with the schema in the last two bits.
    written: BTreeSet<u64>,
}

/// A set as the first version of the app knows it.
pub(super) type Set = SetOf<1, false>;

/// The newest schema of a set.
pub(super) const SCHEMA_MAX: u16 = 3;

/// Whether ill code fails where this number comes.
pub(super) const fn is_ill(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// The message of all panics in code of the apps.
pub(super) const APP_PANICS: &str = "the app panics";

/// A set of any version.
pub(super) trait AnySet: Syncable<Id = u32, Ownership = Shared> {
    /// A set of one number.
    fn of(id: u32, serial: u64) -> Self;

    fn serials(&self) -> BTreeSet<u64>;
}

impl<const SCHEMA: u16, const ILL: bool> AnySet for SetOf<SCHEMA, ILL> {
    fn of(id: u32, serial: u64) -> Self {
        Self { id, written: [write(SCHEMA, serial)].into() }
    }

    fn serials(&self) -> BTreeSet<u64> {
        self.written.iter().map(|written| written >> 2).collect()
    }
}

impl<const SCHEMA: u16, const ILL: bool> Syncable for SetOf<SCHEMA, ILL> {
    const SYNC_MODEL: &'static str = "set";
    const SCHEMA: u16 = SCHEMA;
    type Id = u32;
    type Ownership = Shared;
    const OWN_MERGE: bool = true;

    fn sync_id(&self) -> u32 {
        self.id
    }

    fn merge(mut self, other: Self) -> Self {
        self.written.extend(other.written);
        if ILL && self.serials().into_iter().any(is_ill) {
            resume_unwind(Box::new(APP_PANICS));
        }
        self
    }

    fn migrate(schema: u16, value: &[u8]) -> Result<Self, BoxError> {
        let Set { id, .. } = syncline::decode(value)?;
        let serials = serials_of_set(schema, value).ok_or("the value is of another schema")?;
        Ok(Self { id, written: serials.into_iter().map(|serial| write(SCHEMA, serial)).collect() })
    }
}

fn write(schema: u16, serial: u64) -> u64 {
    serial << 2 | u64::from(schema)
}

/// The serial numbers of a set that was written with this schema; `None` if it was not.
pub(super) fn serials_of_set(schema: u16, value: &[u8]) -> Option<BTreeSet<u64>> {
    let Set { written, .. } = postcard::from_bytes(value).ok()?;
    written.into_iter().map(|one| (one & 3 == u64::from(schema)).then_some(one >> 2)).collect()
}

/// A shared record whose values are large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "photo")]
pub(super) struct Photo {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) serial: u64,
    #[serde(with = "serde_bytes")]
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
