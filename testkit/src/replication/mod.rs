//! The list for replicas that talk to each other: several whole replicas over the store under test, on a network in
//! memory.
//!
//! Each scenario is a story that can happen to an app. The numbers are those of the catalogue of properties:
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
//! | H5, H6, Y11 | `a_stream_from_the_future_is_held_alone_until_time_catches_up`, `a_held_stream_that_is_released_goes_through_at_once` |
//! | H1, H2, Y11 | `a_clock_that_is_behind_or_frozen_delays_its_own_device_alone`, `a_clock_that_steps_back_every_day_converges` |
//! | H3, Y8, Y15 | `a_restored_store_that_wrote_other_commits_loses_nothing_anywhere`, `a_restored_store_learns_of_it_from_those_who_know_more`, `a_restored_store_that_lost_what_it_acknowledged_is_found_out` |
//! | Y11, Y14, Y15, Y17 | `a_device_from_the_future_is_told_so_itself`, `a_full_disk_elsewhere_is_told_and_asks_for_one_commit_a_minute`, `the_original_of_a_copy_is_told_that_its_stream_has_stopped`, `the_original_goes_on_after_a_copy_of_it_was_found_out` |
//! | C1, C6, Y4, X3 | `a_replica_that_stops_anywhere_goes_on_where_it_was` |
//! | C19, Y15, Y16 | `a_damaged_log_harms_nobody_and_is_mended`, `a_value_that_is_gone_ends_its_own_stream_alone` |
//! | Y14, Y20 | `a_star_says_what_has_reached_its_other_end`, `a_status_after_a_sleep_is_honest` |
//! | Y17, Y19 | `a_joiner_says_why_it_waits_and_a_wrong_add_is_put_right`, `a_device_is_taken_over_only_by_a_call_that_says_so` |
//! | Y5, Y9, C13, I9 | `a_replica_that_worked_alone_is_joined_by_a_snapshot` |
//! | Y4, Y5, Y6 | `a_member_that_was_away_past_a_pruned_log_loses_and_brings_back_nothing`, `a_tablet_after_200_days_brings_none_of_600_deleted_notes_back` |
//! | Y6, Y7, C8, C11 | `a_record_that_is_made_anew_is_new_for_a_member_that_was_away_in_any_phase` |
//! | Y7, Y17 | `a_member_never_heard_of_holds_the_logs_and_is_named` |
//! | Y5, Y6, Y9, Y16, C13 | `a_replica_joins_through_a_member_after_the_founder_is_gone`, `a_replica_joins_while_one_member_prunes_and_another_deletes`, `a_replica_joins_a_writer_that_never_stops_and_keeps_up` |
//! | Y5, C13, C14, I9 | `a_reader_never_sees_half_of_a_commit_during_a_snapshot` |
//! | Y5, C9, C14 | `a_sender_that_goes_for_ever_leaves_nothing_of_what_only_it_had` |
//! | Y5, Y10, Y14 | `a_snapshot_that_is_interrupted_at_every_page_goes_on_where_it_was` |
//! | B1, B2, C15 | `bad_frames_change_nothing_and_are_told`, `honest_peers_are_served_during_a_flood` |
//! | C10, C13, C16, C18 | `projections_follow_what_others_commit`, `records_go_on_whatever_a_projection_says` |
//! | C10, C18, Y5, Y6, Y9, I9 | `projections_follow_a_snapshot_of_a_member_that_was_away`, `forgotten_deletes_leave_the_tables_of_a_joiner` |
//! | C16, Y13 | `a_model_that_is_registered_later_is_as_if_known_from_the_start`, `an_older_app_keeps_what_a_newer_one_writes`, `what_an_update_can_merge_is_read_at_once_and_folded_later` |

#[doc(hidden)]
pub mod app_sim;
mod away;
mod bad_input;
mod behind;
mod catching_up;
#[doc(hidden)]
pub mod clock_rises;
mod clocks;
mod contents;
mod crashes;
mod crowd;
mod damage;
mod interrupted;
mod joining;
mod joining_late;
mod merging;
mod pairs;
mod peer;
mod projected;
mod projections;
mod pruning;
mod refusals;
mod restored;
mod slow_links;
mod snapshots;
mod spreading;
mod stars;
mod stored;
mod unknown;
mod watched;
mod world;

pub use away::{
    a_member_that_was_away_past_a_pruned_log_loses_and_brings_back_nothing,
    a_tablet_after_200_days_brings_none_of_600_deleted_notes_back,
};
pub use bad_input::{bad_frames_change_nothing_and_are_told, honest_peers_are_served_during_a_flood};
pub use catching_up::{
    a_batch_shows_at_a_receiver_in_one_step, a_cut_transfer_under_new_commits_ends_with_exactly_all,
    a_peer_that_stops_reading_catches_up_later, coming_back_transfers_what_is_missing_and_nothing_else,
};
pub use clocks::{
    a_clock_that_is_behind_or_frozen_delays_its_own_device_alone,
    a_clock_that_steps_back_every_day_converges, a_held_stream_that_is_released_goes_through_at_once,
    a_stream_from_the_future_is_held_alone_until_time_catches_up,
};
pub use crashes::a_replica_that_stops_anywhere_goes_on_where_it_was;
#[doc(hidden)]
pub use crowd::a_crowd_on_random_links_ends_the_same;
pub use damage::{a_damaged_log_harms_nobody_and_is_mended, a_value_that_is_gone_ends_its_own_stream_alone};
pub use interrupted::a_snapshot_that_is_interrupted_at_every_page_goes_on_where_it_was;
#[doc(hidden)]
pub use interrupted::{Size, a_snapshot_of_this_size_is_interrupted};
pub use joining::{
    a_device_is_taken_over_only_by_a_call_that_says_so,
    a_joiner_says_why_it_waits_and_a_wrong_add_is_put_right,
};
pub use joining_late::{
    a_replica_joins_a_writer_that_never_stops_and_keeps_up,
    a_replica_joins_through_a_member_after_the_founder_is_gone,
    a_replica_joins_while_one_member_prunes_and_another_deletes,
};
pub use merging::{a_late_joiner_gets_every_log_entry_whole, concurrent_changes_end_the_same_in_every_order};
pub use projected::{
    forgotten_deletes_leave_the_tables_of_a_joiner, projections_follow_a_snapshot_of_a_member_that_was_away,
};
pub use projections::{projections_follow_what_others_commit, records_go_on_whatever_a_projection_says};
pub use pruning::{
    a_member_never_heard_of_holds_the_logs_and_is_named,
    a_record_that_is_made_anew_is_new_for_a_member_that_was_away_in_any_phase,
};
pub use refusals::{
    a_device_from_the_future_is_told_so_itself,
    a_full_disk_elsewhere_is_told_and_asks_for_one_commit_a_minute,
    the_original_goes_on_after_a_copy_of_it_was_found_out,
    the_original_of_a_copy_is_told_that_its_stream_has_stopped,
};
pub use restored::{
    a_restored_store_learns_of_it_from_those_who_know_more,
    a_restored_store_that_lost_what_it_acknowledged_is_found_out,
    a_restored_store_that_wrote_other_commits_loses_nothing_anywhere,
};
pub use slow_links::{
    a_busy_author_is_caught_up_with, a_large_commit_takes_its_time_on_a_slow_link,
    a_long_round_trip_is_filled, a_slow_link_is_used_well,
};
pub use snapshots::{
    a_reader_never_sees_half_of_a_commit_during_a_snapshot,
    a_replica_that_worked_alone_is_joined_by_a_snapshot,
    a_sender_that_goes_for_ever_leaves_nothing_of_what_only_it_had,
};
pub use spreading::{
    a_commit_never_shows_before_what_it_rests_on,
    a_commit_reaches_the_end_of_a_line_although_its_author_is_gone, a_remote_transaction_is_told_as_one,
    a_shared_record_goes_round_and_an_owned_one_stays_its_authors,
    older_edits_that_arrive_late_are_not_skipped,
};
pub use stars::{a_star_says_what_has_reached_its_other_end, a_status_after_a_sleep_is_honest};
pub use unknown::{
    a_model_that_is_registered_later_is_as_if_known_from_the_start,
    an_older_app_keeps_what_a_newer_one_writes, what_an_update_can_merge_is_read_at_once_and_folded_later,
};

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all scenarios.
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
            a_stream_from_the_future_is_held_alone_until_time_catches_up
            a_held_stream_that_is_released_goes_through_at_once
            a_clock_that_is_behind_or_frozen_delays_its_own_device_alone
            a_clock_that_steps_back_every_day_converges
            a_restored_store_that_wrote_other_commits_loses_nothing_anywhere
            a_restored_store_learns_of_it_from_those_who_know_more
            a_restored_store_that_lost_what_it_acknowledged_is_found_out
            a_device_from_the_future_is_told_so_itself
            a_full_disk_elsewhere_is_told_and_asks_for_one_commit_a_minute
            the_original_of_a_copy_is_told_that_its_stream_has_stopped
            the_original_goes_on_after_a_copy_of_it_was_found_out
            a_replica_that_stops_anywhere_goes_on_where_it_was
            a_damaged_log_harms_nobody_and_is_mended
            a_value_that_is_gone_ends_its_own_stream_alone
            a_star_says_what_has_reached_its_other_end
            a_status_after_a_sleep_is_honest
            a_joiner_says_why_it_waits_and_a_wrong_add_is_put_right
            a_replica_that_worked_alone_is_joined_by_a_snapshot
            a_member_that_was_away_past_a_pruned_log_loses_and_brings_back_nothing
            a_tablet_after_200_days_brings_none_of_600_deleted_notes_back
            a_record_that_is_made_anew_is_new_for_a_member_that_was_away_in_any_phase
            a_member_never_heard_of_holds_the_logs_and_is_named
            a_replica_joins_through_a_member_after_the_founder_is_gone
            a_replica_joins_while_one_member_prunes_and_another_deletes
            a_replica_joins_a_writer_that_never_stops_and_keeps_up
            a_reader_never_sees_half_of_a_commit_during_a_snapshot
            a_sender_that_goes_for_ever_leaves_nothing_of_what_only_it_had
            a_snapshot_that_is_interrupted_at_every_page_goes_on_where_it_was
            a_device_is_taken_over_only_by_a_call_that_says_so
            bad_frames_change_nothing_and_are_told
            honest_peers_are_served_during_a_flood
            a_model_that_is_registered_later_is_as_if_known_from_the_start
            an_older_app_keeps_what_a_newer_one_writes
            what_an_update_can_merge_is_read_at_once_and_folded_later
        }
    };
}

/// Makes a module of the given name with one test for each scenario of replicas over the store under test.
///
/// The expression is a function that makes a fresh [`Fixture`](crate::Fixture) each time it is called: a scenario needs
/// several stores.
#[macro_export]
macro_rules! replication_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_replication_property! { [$crate::test_module] replication, $module, $fixture }
    };
}

/// The scenarios of projections, as a macro: calls the macro in brackets with the arguments and the names of all of
/// them.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_joined_replication_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            projections_follow_what_others_commit
            records_go_on_whatever_a_projection_says
            projections_follow_a_snapshot_of_a_member_that_was_away
            forgotten_deletes_leave_the_tables_of_a_joiner
        }
    };
}

/// Makes a module of the given name with one test for each scenario of projections that follow other replicas.
///
/// The expression is a function that makes a fresh [`JoinFixture`](crate::JoinFixture) each time it is called.
#[macro_export]
macro_rules! joined_replication_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_joined_replication_property! { [$crate::test_module] replication, $module, $fixture }
    };
}
