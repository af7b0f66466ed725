//! The list for a whole replica over a store that lends its native transaction: `with_tx` and projections.
//!
//! | promise | where |
//! |---|---|
//! | rows, records, log and clock together | `with_tx_commits_all_together`, `every_fault_leaves_rows_and_records_in_agreement` |
//! | nothing of a commit that failed | `a_failed_with_tx_leaves_nothing`, `a_failing_projection_rejects_the_commit` |
//! | dropped futures | `cancelling_with_tx_leaves_all_or_nothing` |
//! | one order, and no reply before it is durable | `commits_and_with_tx_keep_their_order`, `with_tx_is_told_once_it_is_durable` |
//! | a projection is exactly its records, less its debts | `projections_follow_every_commit`, `a_rebuild_owes_what_a_projection_cannot_take` |
//! | rebuilds | `a_projection_is_rebuilt_when_it_must_be`, `a_rebuild_goes_on_after_a_crash`, `commits_go_on_during_a_rebuild`, `a_rebuild_that_fails_is_tried_again` |
//! | rounds | `a_projection_refuses_one_commit_of_a_round` |

mod app;
mod debts;
mod failures;
mod projections;
mod rebuilds;
mod with_tx;

pub use debts::{
    a_projection_refuses_one_commit_of_a_round, a_rebuild_owes_what_a_projection_cannot_take,
    a_rebuild_that_fails_is_tried_again,
};
pub use failures::{
    a_failed_with_tx_leaves_nothing, a_failing_projection_rejects_the_commit,
    an_unknown_with_tx_is_said_to_be_unknown, cancelling_with_tx_leaves_all_or_nothing,
    every_fault_leaves_rows_and_records_in_agreement,
    every_medium_fault_leaves_rows_and_records_in_agreement,
};
pub use projections::projections_follow_every_commit;
pub use rebuilds::{
    a_projection_is_rebuilt_when_it_must_be, a_rebuild_goes_on_after_a_crash, commits_go_on_during_a_rebuild,
};
pub use with_tx::{
    a_call_from_inside_with_tx_is_refused, commits_and_with_tx_keep_their_order,
    with_tx_commits_all_together, with_tx_is_told_once_it_is_durable,
    with_tx_of_the_app_alone_works_while_joining, with_tx_sees_what_it_stages,
    with_tx_without_changes_commits_the_app_alone,
};

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_joined_replica_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            with_tx_commits_all_together
            with_tx_sees_what_it_stages
            with_tx_without_changes_commits_the_app_alone
            with_tx_of_the_app_alone_works_while_joining
            a_call_from_inside_with_tx_is_refused
            with_tx_is_told_once_it_is_durable
            commits_and_with_tx_keep_their_order
            a_failed_with_tx_leaves_nothing
            a_failing_projection_rejects_the_commit
            cancelling_with_tx_leaves_all_or_nothing
            an_unknown_with_tx_is_said_to_be_unknown
            every_fault_leaves_rows_and_records_in_agreement
            every_medium_fault_leaves_rows_and_records_in_agreement
            projections_follow_every_commit
            a_projection_is_rebuilt_when_it_must_be
            a_rebuild_goes_on_after_a_crash
            commits_go_on_during_a_rebuild
            a_rebuild_that_fails_is_tried_again
            a_rebuild_owes_what_a_projection_cannot_take
            a_projection_refuses_one_commit_of_a_round
        }
    };
}

/// Makes a module of the given name with one test for each property of `with_tx` and of projections over the store
/// under test.
///
/// The expression makes a fresh [`JoinFixture`](crate::JoinFixture) for each test.
#[macro_export]
macro_rules! joined_replica_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_joined_replica_property! { [$crate::test_module] joined_replica, $module, $fixture }
    };
}
