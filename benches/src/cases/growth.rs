//! How much memory two replicas take for what comes, beside what they take when they are open: the table of it.

use crate::hand_written::HandWritten;
use crate::item::Ids;
use crate::rounds::Spread;
use crate::table::{Bar, Quantity, Row};

/// How much more memory it may take than for a [`FEW`] records, however many come.
const GROWTH_MIB: f64 = 64.;

/// The number of records that tells how much two open replicas take.
pub(super) const FEW: usize = 1000;

/// The row of a case whose process had this `peak`, and the other one of `few` records that one.
pub(super) fn row<H: HandWritten>(case: &str, peak: f64, few: f64) -> Row {
    Row {
        case: format!("{}: {case}", H::ENGINE),
        ids: Ids::Random.name(),
        commit: H::Commit::default().to_string(),
        ours: Quantity::MiB(peak),
        beside: Some(Quantity::MiB(few)),
        bare: None,
        figure: Spread::once(peak - few),
        bar: Some(Bar::BelowMiB(GROWTH_MIB)),
    }
}
