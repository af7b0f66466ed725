//! Doors for the tests of the library itself, behind the feature `internals-for-tests`. **Not for apps**: they change
//! without notice, in any release.
//!
//! The simulator of `syncline-testkit` switches [`Rules`] of the protocol off and reads what stores hold; its fuzz targets
//! feed what reads bytes. The feature adds these doors and changes nothing else, so it does no harm where a dependency
//! switches it on.
//!
//! | door | for |
//! |---|---|
//! | [`Rules`], [`Builder::rules`] | protocol mutants: one rule is off |
//! | [`MARKS`], [`Status::marks`](crate::Status::marks) | what a corpus of histories must have seen |
//! | [`history`] | what a store holds, read without the engine |
//! | [`fuzz`] | bytes, straight to what reads them |
//! | [`Builder::checked`] | the engine asserts what must always hold |
//! | [`alone`] | the engine without driver, store and network, for benches |

pub mod fuzz;
pub mod history;

pub use crate::engine::alone;
pub use crate::engine::rules::{MARKS, Rules};

use crate::builder::Builder;

impl<S> Builder<S> {
    /// The rules that hold: all, unless a test switches one off to see that something fails without it.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Has the engine assert what must always hold after everything that happens to it. That looks at all that the engine
    /// knows, so it costs much.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }
}
