//! The result of a check of the log.

use crate::events::Damage;

/// The result of [`check_log`](crate::TransactionManager::check_log).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogCheck {
    /// How many commits were found whole, of all streams: their rows in the log, and their values.
    pub commits: u64,
    /// How many damaged places were mended with what a peer has; [`Event::Mended`](crate::Event::Mended) names each.
    pub mended: u64,
    /// The damaged places that are left, since no peer that is connected has them whole. They are asked for again when a
    /// peer says hello. The log of a stream is checked from its head down, and not below a row that is left.
    pub damaged: Vec<Damage>,
}
