//! The list for a whole replica: the manager, the driver and the engine over a store under test.
//!
//! The numbers are those of the catalogue of properties:
//!
//! | numbers | where |
//! |---|---|
//! | C1, S2, S3 | `every_fault_leaves_a_whole_store`, `committed_is_read_back`; images after loss of power: each store's own tests |
//! | C2 | `nothing_is_told_before_it_is_durable` |
//! | C3 | `a_stuck_subscriber_delays_nobody`: `Lagged`, then read again. There are no durable cursors |
//! | C4, H12 | `events_come_once_in_commit_order` |
//! | C5 | `sequence_numbers_have_no_holes`, `a_rejected_commit_can_be_retried` |
//! | C12 | `an_unknown_outcome_is_said_to_be_unknown`. There are no retry keys: repeating a put changes nothing |
//! | C13 | `batches_are_seen_whole` |
//! | H1, H4 to H10 | tests of the generator and the clock in `syncline`, where they need no store. Threads do not matter: the generator has one owner |
//! | H2, H3 | `stamps_rise_across_crashes`. Only the peers can find out that a restored copy repeats stamps |
//! | H11 | tests of the engine in `syncline`: a jump is an event, stamping goes on |
//! | X1, X2 | `cancelling_leaves_all_or_nothing` |
//! | X3, X4 | `dropping_the_driver_loses_nothing` |
//! | X5 | `a_call_from_inside_a_closure_is_refused`, `a_driver_that_nobody_runs_is_reported` |
//! | C20 | `one_record_of_a_newer_app_hides_no_other` |
//! | B1, B4 | `a_full_queue_makes_callers_wait` |
//! | B2 | `a_stuck_subscriber_delays_nobody` |
//! | B6 | nothing to check: the library spawns no task |

pub(crate) mod app;
mod atomicity;
mod bounds;
pub(crate) mod calls;
mod openings;
mod order;
mod reads;

pub use atomicity::{
    a_failed_call_returns_after_the_store_is_released, a_fenced_store_stops_its_driver,
    a_rejected_commit_can_be_retried, an_unknown_outcome_is_said_to_be_unknown,
    cancelling_leaves_all_or_nothing, dropping_the_driver_loses_nothing, every_fault_leaves_a_whole_store,
};
pub use bounds::{
    a_busy_replica_answers, a_full_queue_makes_callers_wait, a_stuck_subscriber_delays_nobody,
    commits_share_writes, shutting_down_serves_what_was_sent,
};
pub use calls::{
    a_call_from_inside_a_closure_is_refused, a_change_puts_deletes_or_keeps,
    a_driver_that_nobody_runs_is_reported,
};
pub use openings::{
    a_contradiction_leaves_the_store_untouched, a_second_start_of_the_same_program_works,
    identity_comes_from_the_store,
};
pub use order::{
    events_come_once_in_commit_order, nothing_is_told_before_it_is_durable, sequence_numbers_have_no_holes,
    stamps_rise_across_crashes,
};
pub use reads::{
    batches_are_seen_whole, committed_is_read_back, lists_are_paged_in_order,
    one_record_of_a_newer_app_hides_no_other, overwritten_values_are_kept, updates_are_not_lost,
};

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
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
            a_failed_call_returns_after_the_store_is_released
            nothing_is_told_before_it_is_durable
            events_come_once_in_commit_order
            sequence_numbers_have_no_holes
            stamps_rise_across_crashes
            overwritten_values_are_kept
            updates_are_not_lost
            batches_are_seen_whole
            lists_are_paged_in_order
            one_record_of_a_newer_app_hides_no_other
            a_change_puts_deletes_or_keeps
            a_call_from_inside_a_closure_is_refused
            a_driver_that_nobody_runs_is_reported
            commits_share_writes
            a_full_queue_makes_callers_wait
            a_stuck_subscriber_delays_nobody
            a_busy_replica_answers
            shutting_down_serves_what_was_sent
            identity_comes_from_the_store
            a_second_start_of_the_same_program_works
            a_contradiction_leaves_the_store_untouched
        }
    };
}

/// Makes a module of the given name with one test for each property of a whole replica over the store under test.
///
/// The expression is a function that makes a fresh [`Fixture`](crate::Fixture).
#[macro_export]
macro_rules! replica_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_replica_property! { [$crate::test_module] replica, $module, $fixture }
    };
}
