//! The list for stores that lend their native transaction: one property for each bullet of the
//! [contract](syncline::JoinStorage).

mod cancelled_join_is_all_or_nothing;
mod join_cannot_be_ended_from_inside;
mod join_error_leaves_no_trace;
mod join_is_atomic;
mod join_runs_its_job_once;
mod join_sees_its_own_writes;
mod join_survives_reopening;
mod join_undoes_a_part;
mod joins_and_writes_are_ordered;
mod subject;
mod work;

pub use cancelled_join_is_all_or_nothing::cancelled_join_is_all_or_nothing;
pub use join_cannot_be_ended_from_inside::join_cannot_be_ended_from_inside;
pub use join_error_leaves_no_trace::join_error_leaves_no_trace;
pub use join_is_atomic::join_is_atomic;
pub use join_runs_its_job_once::join_runs_its_job_once;
pub use join_sees_its_own_writes::join_sees_its_own_writes;
pub use join_survives_reopening::join_survives_reopening;
pub use join_undoes_a_part::join_undoes_a_part;
pub use joins_and_writes_are_ordered::joins_and_writes_are_ordered;

use crate::JoinFixture;
use crate::storage::Property;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_join_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            join_is_atomic
            join_survives_reopening
            join_sees_its_own_writes
            join_error_leaves_no_trace
            join_runs_its_job_once
            join_cannot_be_ended_from_inside
            join_undoes_a_part
            joins_and_writes_are_ordered
            cancelled_join_is_all_or_nothing
        }
    };
}

/// Makes a module of the given name with one test for each property of the contract of joined writes.
///
/// The expression is a function that makes a fresh [`JoinFixture`](crate::JoinFixture):
/// `join_tests!(redb_join, RedbFixture::new);` prints `redb_join::join_is_atomic ... ok` and so on. A joined write is
/// a write, so the store has to pass [`storage_tests!`](crate::storage_tests) too.
#[macro_export]
macro_rules! join_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_join_property! { [$crate::test_module] join, $module, $fixture }
    };
}

/// Returns all properties, in the order of the contract.
#[must_use]
pub fn properties<F: JoinFixture>() -> Vec<Property<F>> {
    macro_rules! list {
        ([] $($property:ident)*) => {
            vec![$(Property {
                name: stringify!($property),
                check: |fresh| futures::executor::block_on($property(&|| fresh())),
            }),*]
        };
    }
    for_each_join_property!([list])
}
