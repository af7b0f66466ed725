//! The list for a whole replica: the manager, the driver and the engine over a store under test.
//!
//! Each property stands for rows of the catalogue of invariants: atomicity (C1, C12), order (C2, C4, C5, H2, H12),
//! cancellation (X1 to X3) and bounds (B1, B2) as far as one device goes.

mod app;
mod atomicity;
mod bounds;
mod openings;
mod order;
mod reads;

pub use atomicity::{
    a_fenced_store_stops_its_driver, a_rejected_commit_can_be_retried,
    an_unknown_outcome_is_said_to_be_unknown, cancelling_leaves_all_or_nothing,
    dropping_the_driver_loses_nothing, every_fault_leaves_a_whole_store,
};
pub use bounds::{
    a_full_queue_makes_callers_wait, a_stuck_subscriber_delays_nobody, commits_share_writes,
    shutting_down_serves_what_was_sent,
};
pub use openings::{a_contradiction_leaves_the_store_untouched, identity_comes_from_the_store};
pub use order::{
    events_come_once_in_commit_order, nothing_is_told_before_it_is_durable, sequence_numbers_have_no_holes,
    stamps_rise_across_crashes,
};
pub use reads::{
    batches_are_seen_whole, committed_is_read_back, lists_are_paged_in_order, overwritten_values_are_kept,
    updates_are_not_lost,
};

/// The list. Calls the macro in brackets with the arguments and the name of every property.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_replica_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            committed_is_read_back
            every_fault_leaves_a_whole_store
            an_unknown_outcome_is_said_to_be_unknown
            a_rejected_commit_can_be_retried
            a_fenced_store_stops_its_driver
            cancelling_leaves_all_or_nothing
            dropping_the_driver_loses_nothing
            nothing_is_told_before_it_is_durable
            events_come_once_in_commit_order
            sequence_numbers_have_no_holes
            stamps_rise_across_crashes
            overwritten_values_are_kept
            updates_are_not_lost
            batches_are_seen_whole
            lists_are_paged_in_order
            commits_share_writes
            a_full_queue_makes_callers_wait
            a_stuck_subscriber_delays_nobody
            shutting_down_serves_what_was_sent
            identity_comes_from_the_store
            a_contradiction_leaves_the_store_untouched
        }
    };
}

/// One test for each property of a whole replica over the store under test, in a module of the given name.
///
/// The expression makes a fresh [`Fixture`](crate::Fixture) for each test.
#[macro_export]
macro_rules! replica_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_replica_property! { [$crate::replica_test_module] $module, $fixture }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! replica_test_module {
    ([$module:ident, $fixture:expr] $($property:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may need nothing from outside")]
            use super::*;

            $(
                #[test]
                fn $property() {
                    let fixture = $fixture;
                    $crate::block_on($crate::replica::$property(&fixture));
                }
            )*
        }
    };
}
