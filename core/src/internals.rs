//! Doors for the tests of the library itself, behind the feature `internals-for-tests`. **Not for apps**: they change
//! without notice, in any release.
//!
//! The simulator of `syncline-testkit` switches [`Rules`] of the protocol off and reads the rows of stores; its fuzz
//! targets feed bytes to the parsers. The feature adds these doors and changes nothing else, so it does no harm where
//! a dependency switches it on.
//!
//! | door | for |
//! |---|---|
//! | [`Rules`], [`Builder::rules`] | protocol mutants: one rule is off |
//! | [`MARKS`], [`Status::marks`](crate::Status::marks) | the marks that a corpus of histories must have seen |
//! | [`history`] | the rows of a store, read without the engine |
//! | [`fuzz`] | bytes, straight to the parsers |
//! | [`Builder::checked`] | the engine asserts the invariants of its machines |
//! | [`alone`] | the engine without driver, store and network, for benches |

pub mod fuzz;
pub mod history;

pub use crate::engine::alone;
pub use crate::engine::rules::{MARKS, Rules};

use crate::builder::Builder;

impl<S> Builder<S> {
    /// Sets the rules that hold: all, unless a test switches one off to see that a history breaks without it.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Has the engine assert the invariants of its machines after every input. The check looks at all that the engine
    /// knows, so it costs much.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }
}
