//! The rules, each switched off in turn, and where it is shown what breaks without it.

use syncline::internals::Rules;

const ENGINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/src/engine");

/// The engine test that shows what breaks without a rule, with the history written out: such a rule matters against a
/// hostile peer, in a group without a transport, or for how fast a link is used. All other rules are broken by a plan.
pub(crate) const WRITTEN_OUT: [(&str, &str); 22] = [
    ("prune", "every_history_leaves_a_whole_store"),
    ("groups_are_checked", "a_frame_of_a_stranger_or_of_another_group_changes_nothing"),
    ("peers_are_members", "a_frame_of_a_stranger_or_of_another_group_changes_nothing"),
    ("authors_are_members", "a_frame_of_a_stranger_or_of_another_group_changes_nothing"),
    ("devices_are_checked", "c15_a_commit_cannot_speak_for_another_device"),
    ("ends_are_checked", "values_must_be_what_their_commit_says"),
    ("acks_of_restored_are_void", "no_acknowledgement_of_a_restored_store_counts"),
    ("pulls_exclude", "a_stopped_stream_keeps_nobody_from_a_page"),
    ("served_rows_are_checked", "no_row_is_served_for_which_the_chain_does_not_vouch"),
    ("accusers_show", "a_damaged_row_of_a_peer_tells_nobody_that_it_was_restored"),
    ("pages_follow_the_link", "a_page_that_is_coming_is_waited_for"),
    ("live_follows", "a_live_commit_goes_to_whom_nothing_before_it_is_missing"),
    ("staged", "a_reader_sees_half_of_a_commit_if_a_snapshot_is_not_staged"),
    ("need_tail", "a_reader_sees_half_of_a_commit_if_the_switch_does_not_wait_for_the_tail"),
    ("resume_needs_cover", "a_peer_that_lacks_something_of_a_snapshot_begins_it_anew"),
    ("absence_needs_cover", "what_only_the_receiver_has_stays_when_a_snapshot_lacks_it"),
    ("takes_forgotten", "an_install_takes_over_the_stamps_that_its_sender_has_forgotten"),
    ("prunes_by_acks", "the_log_that_every_member_has_goes"),
    ("acks_are_compared", "an_acknowledgement_of_another_history_does_not_count"),
    ("ack_needs_cover", "a_tombstone_waits_for_members_that_its_holders_know"),
    ("tombstones_wait_for_their_log", "a_tombstone_goes_after_its_log"),
    ("members_never_heard_count", "a_member_never_heard_of_holds_the_log"),
];

/// Returns each rule by its name, with the rules that are left without it.
pub(crate) fn each_off() -> Vec<(&'static str, Rules)> {
    macro_rules! without {
        ($($rule:ident)*) => {{
            // Does not compile without one of the fields.
            let Rules { $($rule: _),* } = Rules::ALL;
            vec![$((stringify!($rule), Rules { $rule: false, ..Rules::ALL })),*]
        }};
    }
    without!(
        prune groups_are_checked peers_are_members authors_are_members devices_are_checked streams_have_no_holes
        chains_are_checked causes_come_first causes_are_compared ends_are_checked drift_is_held clock_follows
        higher_stamp_wins epochs_are_kept_apart values_are_kept unmerged_lies_beside joiner_waits
        restores_are_noticed acks_of_restored_are_void acks_are_durable pulls_exclude served_rows_are_checked
        accusers_show pages_follow_the_link live_follows staged need_tail resume_needs_cover absence_needs_cover
        takes_forgotten prunes_by_acks acks_are_compared ack_needs_cover tombstones_wait_for_their_log
        members_never_heard_count
    )
}

/// Returns the test that writes the history out in which a rule is needed, if no plan breaks without the rule.
pub(crate) fn written_out(rule: &str) -> Option<&'static str> {
    WRITTEN_OUT.iter().find(|(name, _)| *name == rule).map(|(_, test)| *test)
}

/// The files of the engine, each with its name.
pub(crate) fn sources() -> Vec<(String, String)> {
    let mut folders = vec![std::path::PathBuf::from(ENGINE)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(ENGINE).unwrap().display();
                sources.push((format!("core/src/engine/{name}"), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}
