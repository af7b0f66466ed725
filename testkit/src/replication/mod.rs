//! The list for replicas that talk: the whole library over the store under test, several times, on a network in memory.
//!
//! Each scenario is a story that an app may live through. What each stands for, by the numbers of the catalogue of
//! properties:
//!
//! | numbers | where |
//! |---|---|
//! | Y4, C15 | `a_shared_record_goes_round_and_an_owned_one_stays_its_authors` |
//! | Y4, Y9 | `a_commit_reaches_the_end_of_a_line_although_its_author_is_gone` |
//! | C9, Y10 | `older_edits_that_arrive_late_are_not_skipped` |
//! | C9, C14 | `a_commit_never_shows_before_what_it_rests_on` |
//! | C4, C13 | `a_remote_transaction_is_told_as_one`, `a_batch_shows_at_a_receiver_in_one_step` |
//! | Y14 | `coming_back_transfers_what_is_missing_and_nothing_else` |
//! | C9, Y10 | `a_cut_transfer_under_new_commits_ends_with_exactly_all` |
//! | B1, B2, B3 | `a_peer_that_stops_reading_catches_up_later` |
//! | C7, C8, C11 | `concurrent_changes_end_the_same_in_every_order` |
//! | C1, Y3 | `a_late_joiner_gets_every_log_entry_whole` |

mod catching_up;
mod merging;
mod models;
mod spreading;
mod tap;
mod watched;
mod world;

pub use catching_up::{
    a_batch_shows_at_a_receiver_in_one_step, a_cut_transfer_under_new_commits_ends_with_exactly_all,
    a_peer_that_stops_reading_catches_up_later, coming_back_transfers_what_is_missing_and_nothing_else,
};
pub use merging::{a_late_joiner_gets_every_log_entry_whole, concurrent_changes_end_the_same_in_every_order};
pub use spreading::{
    a_commit_never_shows_before_what_it_rests_on,
    a_commit_reaches_the_end_of_a_line_although_its_author_is_gone, a_remote_transaction_is_told_as_one,
    a_shared_record_goes_round_and_an_owned_one_stays_its_authors,
    older_edits_that_arrive_late_are_not_skipped,
};

/// The list. Calls the macro in brackets with the arguments and the name of every scenario.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_replication_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            a_shared_record_goes_round_and_an_owned_one_stays_its_authors
            a_commit_reaches_the_end_of_a_line_although_its_author_is_gone
            older_edits_that_arrive_late_are_not_skipped
            a_commit_never_shows_before_what_it_rests_on
            a_remote_transaction_is_told_as_one
            a_batch_shows_at_a_receiver_in_one_step
            coming_back_transfers_what_is_missing_and_nothing_else
            a_cut_transfer_under_new_commits_ends_with_exactly_all
            a_peer_that_stops_reading_catches_up_later
            concurrent_changes_end_the_same_in_every_order
            a_late_joiner_gets_every_log_entry_whole
        }
    };
}

/// One test for each scenario of replicas over the store under test, in a module of the given name.
///
/// The expression is a function that makes a fresh [`Fixture`](crate::Fixture) each time it is called: a scenario needs
/// several stores.
#[macro_export]
macro_rules! replication_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_replication_property! { [$crate::test_module] replication, $module, $fixture }
    };
}
