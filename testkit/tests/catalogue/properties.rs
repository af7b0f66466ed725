//! The catalogue as data. `docs/properties.md` is made from it.

use Proof::{Tests, WhyNot};

/// Something that must hold, and how it is known to.
pub(crate) struct Property {
    /// What tests and comments call it: a letter for its group, and a number that is never given to another one.
    pub(crate) id: &'static str,
    /// The property, as it holds today.
    pub(crate) says: &'static str,
    /// How it is checked, or will be.
    pub(crate) method: &'static str,
    /// The false implementation that the check must catch.
    pub(crate) catches: &'static str,
    /// What a reader may expect here and does not get; empty if nothing.
    pub(crate) limits: &'static str,
    pub(crate) proof: Proof,
}

/// What stands behind a property.
pub(crate) enum Proof {
    /// The tests whose name begins with its number or whose comment cites it, and these.
    Tests(&'static [&'static str]),
    /// No test, for this reason.
    WhyNot(&'static str),
}

/// The groups, by their letter, and their headings.
pub(crate) const GROUPS: [(&str, &str); 7] = [
    ("H", "Clock and stamps"),
    ("S", "Stores"),
    ("C", "Commits here and at receivers"),
    ("Y", "Replication"),
    ("B", "Bounds"),
    ("X", "Cancellation"),
    ("I", "Invariants of the whole"),
];

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        id: "H1",
        says: "Whatever the order of `stamp` and `observe`, and whatever the wall clock shows (the same again, less, zero, \
               the maximum), the stamps of a replica rise strictly.",
        method: "Random scripts of readings and observations, against the definition.",
        catches: "A generator that takes the wall time as it is, and so goes back when the clock does.",
        limits: "Threads are not played: whoever stamps owns the generator (`&mut self`).",
        proof: Tests(&[]),
    },
    Property {
        id: "H2",
        says: "After any crash, the first stamp is above every stamp that was durable, sent or returned before.",
        method: "A crash at each operation of the store, then a wall clock that stands an hour back; the simulator.",
        catches: "A clock in memory alone; a clock row that is written in a later transaction; a clock that is read from \
                  the own log, which may be pruned.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H3",
        says: "A stream and a sequence number name one commit for ever. A second history of a stream is detected, reported \
               and stopped, and no honest replica is taken for restored.",
        method: "Old images of a store put back, in scenarios and in the simulator.",
        catches: "A restored backup that gives numbers a second time: peers drop the new commits as duplicates.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H4",
        says: "After a stamp was observed, the next own stamp is above it, also at the same wall time and a higher counter.",
        method: "Random stamps and readings.",
        catches: "Keeping the local counter at an equal wall time; observing only stamps of a higher wall time.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H5",
        says: "A stamp that stands further ahead of physical time than `Limits::max_drift_ms` is refused: the clock stays as \
               it is to the bit, and the commit is not applied. Exact to one millisecond.",
        method: "The boundary at -1, 0 and +1; scenarios with a clock an hour ahead.",
        catches: "A check after the clock has moved; mixed units; an error that is logged while the commit is applied.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H6",
        says: "No ratchet: after any accepted sequence, a clock stands at most `Limits::max_drift_ms` ahead of the highest \
               physical time it was shown.",
        method: "Random scripts; two replicas that push each other; the simulator.",
        catches: "A bound that is measured against the own stamps, so that each hop adds to the drift.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H7",
        says: "A full counter carries into the milliseconds. A carry beyond the drift bound is `ClockError::Exhausted`, and \
               nothing is stamped.",
        method: "The counter at its maximum, and one below and above.",
        catches: "Wrapping (the stamp goes back); saturating (the stamp comes twice).",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H8",
        says: "A wall clock that fails, or stands before 1970 or beyond 48 bits, is an error and never a panic.",
        method: "The edges of 48 and 64 bits; a clock that fails under a whole replica.",
        catches: "`duration_since(UNIX_EPOCH).unwrap()`.",
        limits: "",
        proof: Tests(&["a_clock_that_fails_writes_nothing_and_stamps_never_go_back"]),
    },
    Property {
        id: "H9",
        says: "The order of stamps is strict and total and agrees with equality and hashing. The replica breaks ties, the \
               same way everywhere.",
        method: "Random triples.",
        catches: "Comparing wall times alone; ties that the order of arrival decides.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H10",
        says: "An encoded stamp has 24 bytes whose order is the order of stamps. Decoding undoes encoding; any other length \
               is an error.",
        method: "Random stamps, golden bytes.",
        catches: "Little endian; varints; hex without leading zeros.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "H11",
        says: "A jump of the wall clock against the timer by more than `Limits::max_jump_ms` is an event.",
        method: "A clock that is stepped.",
        catches: "A jump that nobody hears of until peers hold the stream.",
        limits: "Stamping goes on: the drift bound of the receivers protects them.",
        proof: Tests(&["a_jump_of_the_wall_clock_is_an_event_and_stamping_goes_on"]),
    },
    Property {
        id: "H12",
        says: "Within a stream, a higher sequence number has a higher stamp: both are drawn when the write is formed.",
        method: "Many callers at once on one replica; random histories of the engine.",
        catches: "A stamp that is drawn before the queue: the order of the log is then not the order of stamps.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "S1",
        says: "A write that returned `Ok` is visible whole. One that returned `Rejected` is not visible at all.",
        method: "Random sequences against a sorted map, and every operation failing in turn.",
        catches: "Operations that are applied one by one; a rollback that keeps deletes.",
        limits: "",
        proof: Tests(&["write_is_atomic", "rejected_leaves_no_trace", "behaves_like_a_sorted_map"]),
    },
    Property {
        id: "S2",
        says: "An error at any operation of the medium, once or from then on, leaves the state before the write or the one \
               after it, never a mix. A store that lives on shows it, or refuses everything until it is reopened.",
        method: "Every operation of the medium fails in turn (`Fixture::break_medium`), or every call to the system.",
        catches: "A prefix that stays; leftovers that the next write takes along; a half-applied transaction that can \
                  still be committed.",
        limits: "",
        proof: Tests(&[
            "write_is_atomic",
            "rejected_leaves_no_trace",
            "failed_write_is_told",
            "failed_change_of_a_name_or_a_length_is_told",
            "after_an_io_error_the_store_refuses_until_it_is_reopened",
        ]),
    },
    Property {
        id: "S3",
        says: "A panic at any operation of the medium that somebody catches does what an error does there.",
        method: "Every operation of the medium panics in turn (`Fixture::break_medium`).",
        catches: "A lock that stays poisoned; a transaction that goes on half-applied.",
        limits: "That no space leaks is each store's own test.",
        proof: Tests(&[
            "write_is_atomic",
            "a_panic_in_the_middle_of_a_write_leaves_nothing_to_commit",
            "a_durable_write_survives_a_caught_panic_and_a_clean_close",
            "a_store_is_usable_after_a_panic_beside_it",
        ]),
    },
    Property {
        id: "S4",
        says: "After a crash at any operation, whatever became of writes that were not synced (none, all, a prefix, some, \
               torn, garbage), the store is as before the write or as after it; as after it, if `Ok` was returned.",
        method: "Images of the medium after each operation, for redb; kill -9 of a child process, and its calls under \
                 strace, for every store in a file.",
        catches: "`Ok` before the sync; a recovery that takes a part.",
        limits: "kill -9 cannot find a missing sync, and a trace of calls shows that the bytes are there, not that a \
                 recovery takes them. For SQLite and sled there are no images.",
        proof: Tests(&[
            "two_phase_writes_survive_power_loss_also_in_recovery",
            "one_phase_writes_survive_power_loss_also_in_recovery",
            "power_lost_at_any_operation_leaves_a_whole_store",
            "the_survey_finds_a_write_that_was_acknowledged_before_it_was_synced",
            "kill_9_loses_nothing_acknowledged",
            "kill_9_tears_no_batch",
            "killed_at_any_call_tears_no_batch",
            "kill_9_keeps_rows_and_batches_in_step",
        ]),
    },
    Property {
        id: "S5",
        says: "What a store returned `Ok` for survives loss of power.",
        method: "As S4; and reopening after every write. Under strace, each file that was written is synced, and so is \
                 its name, when a write is acknowledged.",
        catches: "A sync at every n-th write only; a medium that does not sync.",
        limits: "There is no deferred durability.",
        proof: Tests(&[
            "write_survives_reopening",
            "acknowledged_is_synced",
            "new_files_are_synced_in_their_directory",
            "seen_is_synced",
            "synchronous_normal_acknowledges_before_the_sync",
            "a_deleted_journal_comes_back",
            "a_flush_is_no_sync",
            "two_phase_writes_survive_power_loss_also_in_recovery",
            "the_survey_finds_a_medium_that_does_not_sync",
            "a_commit_is_flushed_in_full_and_the_log_is_a_write_ahead_log",
        ]),
    },
    Property {
        id: "S6",
        says: "A crash during recovery, also several times, does no more harm than the first one.",
        method: "Images of the medium during recovery, recovered again.",
        catches: "A repair that rolls back a durable commit when it is cut off.",
        limits: "As S4.",
        proof: Tests(&[
            "two_phase_writes_survive_power_loss_also_in_recovery",
            "quick_repair_writes_survive_power_loss_also_in_recovery",
            "reopening_changes_nothing",
            "killed_while_opening_it_opens_again",
            "failed_open_changes_nothing",
        ]),
    },
    Property {
        id: "S7",
        says: "After a sync that failed, no later `Ok` claims that those bytes are durable.",
        method: "A sync that fails once and works again.",
        catches: "Repeating the sync and forgetting the error.",
        limits: "",
        proof: Tests(&[
            "a_failed_sync_is_never_taken_for_a_good_one",
            "failed_sync_is_told",
            "write_survives_reopening",
            "writes_are_ordered",
        ]),
    },
    Property {
        id: "S8",
        says: "A read sees one state: whole batches only, also while a write runs.",
        method: "Reads at every step of a write.",
        catches: "Reads of the latest state key by key; an iterator that is no snapshot.",
        limits: "A read is one call, so there is nothing to promise between two of them.",
        proof: Tests(&["reads_are_never_torn", "reads_keep_request_order"]),
    },
    Property {
        id: "S9",
        says: "No read-modify-write is lost, and each runs once.",
        method: "Many callers that count.",
        catches: "Optimistic writes without a check.",
        limits: "A store has one writer and no read-modify-write of its own; `update` of the manager has.",
        proof: Tests(&["second_owner_is_fenced"]),
    },
    Property {
        id: "S10",
        says: "Inside a joined write, reads see its own puts and deletes. Within a batch the later operation wins.",
        method: "Random batches and joined writes against a sorted map.",
        catches: "A scan that ignores what is pending; the first put that wins.",
        limits: "",
        proof: Tests(&["join_sees_its_own_writes", "later_ops_win", "with_tx_sees_what_it_stages"]),
    },
    Property {
        id: "S11",
        says: "Once `write` returned `Ok`, every new read on any thread sees it.",
        method: "Reads after and beside writes.",
        catches: "A stale cache.",
        limits: "",
        proof: Tests(&["reads_see_last_write"]),
    },
    Property {
        id: "S12",
        says: "Scans are in the order of unsigned bytes, within every kind of bound and up to their limit of entries and bytes; \
               one that is cut off says so. A visit shows what a scan returns. A range that ends before it starts is empty.",
        method: "Keys such as `00`, `00 00`, `ff` and `ff ff`, against a sorted map; visitors that stop, and that panic.",
        catches: "Hash order; signed comparison; an end that is included; a prefix that overflows at `ff`; a limit of bytes that \
                  is ignored; a short scan that says it is all; a visitor that is shown more after it said stop.",
        limits: "There are no reverse scans.",
        proof: Tests(&["scan_is_ordered", "visit_is_a_scan", "a_range_that_ends_before_it_starts_is_empty"]),
    },
    Property {
        id: "S13",
        says: "An empty value is not an absent one.",
        method: "Empty and full values, written, read and deleted.",
        catches: "An empty value that is read as nothing.",
        limits: "There is no empty key: the library never uses one.",
        proof: Tests(&["empty_is_not_absent"]),
    },
    Property {
        id: "S14",
        says: "A key, value or batch that is accepted comes back as it was, around every edge of lengths and pages up to 16 MiB, and \
               at the sizes that the store declares. What is too large for the store is refused before anything begins.",
        method: "Sizes at 0, 1, 511 to 513, 4095 to 4097, 64 KiB, 1 MiB and 16 MiB; keys, values, operations and bytes of a batch at \
                 the declared limit and one above it; replicas over stores that take exactly what they declare.",
        catches: "A value that is cut off; an error that comes with the commit only.",
        limits: "",
        proof: Tests(&[
            "sizes_are_kept",
            "the_largest_commit_fits_what_every_store_takes",
            "what_a_commit_displaces_is_kept_ahead_of_it",
            "what_a_small_store_cannot_hold_is_an_error_of_the_call",
            "a_key_or_value_that_is_too_large_is_rejected_and_the_store_goes_on",
            "a_size_that_sqlite_refuses_is_rejected_before_anything_begins",
        ]),
    },
    Property {
        id: "S15",
        says: "Keys of different models and kinds never run into each other, and a range delete stays inside its range.",
        method: "Neighbouring keys; names that are prefixes of each other.",
        catches: "Prefixes without a length or an end.",
        limits: "",
        proof: Tests(&["delete_range_stays_inside", "models_do_not_run_into_each_other"]),
    },
    Property {
        id: "S16",
        says: "A scan or a read that failed says so. It is never a short success.",
        method: "Every operation of the medium fails in turn while the store reads, or every call that reads.",
        catches: "An error that is skipped, and a scan that goes on behind it.",
        limits: "",
        proof: Tests(&[
            "scan_is_ordered",
            "reads_see_last_write",
            "failed_read_is_told",
            "a_scan_over_a_failing_medium_is_an_error_never_a_short_success",
            "a_point_read_over_a_failing_medium_is_an_error_never_an_absent_key",
        ]),
    },
    Property {
        id: "S17",
        says: "Whoever opens a store a second time is refused, or takes over and fences the first one.",
        method: "A second opener in the same process and in another one.",
        catches: "Two writers that know nothing of each other.",
        limits: "",
        proof: Tests(&[
            "second_owner_is_fenced",
            "another_process_is_fenced",
            "a_second_process_is_refused_and_one_that_ends_without_closing_leaves_the_file_whole",
            "a_second_process_is_refused_and_one_that_ends_without_closing_leaves_the_store_whole",
            "a_second_process_may_read_but_not_write_and_one_that_ends_without_closing_leaves_the_file_whole",
        ]),
    },
    Property {
        id: "S18",
        says: "Opening a store again changes nothing. A file of an unknown version, or of something else, is an error and \
               stays as it is.",
        method: "Openings in a row; files of others.",
        catches: "An opening that rewrites what it does not know.",
        limits: "",
        proof: Tests(&[
            "reopening_changes_nothing",
            "a_foreign_file_is_refused_and_left_as_it_is",
            "a_file_of_another_format_version_is_left_to_that_version",
            "a_store_of_another_version_is_left_to_that_version",
        ]),
    },
    Property {
        id: "S19",
        says: "Space is given back, and a reader blocks no writer.",
        method: "Many overwrites; a reader that stays.",
        catches: "A leak for each aborted write; a log that a reader lets grow for ever.",
        limits: "Each store's own tests; not every store has one for both.",
        proof: Tests(&[
            "reads_see_last_write",
            "a_write_blocks_neither_its_caller_nor_a_read",
            "compaction_shortens_the_file_and_keeps_its_content",
            "the_log_grows_while_somebody_reads_and_shrinks_again_afterwards",
            "memory_does_not_grow_with_what_was_written",
        ]),
    },
    Property {
        id: "S20",
        says: "A future of the store that is dropped leaves the state before or after, and the store goes on.",
        method: "Every future is dropped after each number of polls.",
        catches: "A transaction that stays open in a dropped task.",
        limits: "",
        proof: Tests(&["cancel_is_all_or_nothing", "cancelled_join_is_all_or_nothing"]),
    },
    Property {
        id: "S21",
        says: "A full medium is an error like any other: nothing acknowledged is lost, and reads go on.",
        method: "A medium that is full from each operation on.",
        catches: "A file that is damaged when there is no space.",
        limits: "",
        proof: Tests(&[
            "write_is_atomic",
            "full_medium_is_told",
            "short_write_is_completed_or_told",
            "a_full_disk_is_told_truthfully_and_forgotten_once_there_is_space",
            "a_disk_that_fills_up_loses_nothing_acknowledged",
        ]),
    },
    Property {
        id: "C1",
        says: "Record, log entry, head, clock and what the commit displaces are there together or not at all: `audit` finds \
               nothing wrong in any image after an error, a panic, a cancelled call or a crash.",
        method: "Faults of every kind at every operation; random histories; each kind of row left out of the writes.",
        catches: "A log in a second database; an index that is updated after the commit.",
        limits: "",
        proof: Tests(&[
            "power_lost_at_any_operation_leaves_a_whole_store",
            "every_fault_leaves_rows_and_records_in_agreement",
            "a_commit_without_its_log_entry_is_noticed",
        ]),
    },
    Property {
        id: "C2",
        says: "No reply, event, frame or acknowledgement of a commit comes before the store has said that it is durable.",
        method: "The order of writes and of what is told, with a store that is slow.",
        catches: "An event from inside the transaction, which may run again or fail.",
        limits: "",
        proof: Tests(&["with_tx_is_told_once_it_is_durable"]),
    },
    Property {
        id: "C3",
        says: "Every durable commit reaches every live subscriber, or the subscriber is told that it `Lagged`.",
        method: "A subscriber that takes nothing.",
        catches: "A channel that drops silently.",
        limits: "Subscriptions do not outlive the process: after `Lagged` and after opening, read again what you follow.",
        proof: Tests(&[]),
    },
    Property {
        id: "C4",
        says: "A subscription gets the events of a stream in the order of its commits, each once.",
        method: "Subscribers beside many callers and beside the simulator's faults.",
        catches: "The order of arrival instead of the order of commits; a commit that is told again after a retry.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C5",
        says: "Sequence numbers have no holes, also after commits that failed, changed nothing or were cut off by a crash.",
        method: "Failing, rejected, empty and unknown commits; random histories.",
        catches: "A number that is drawn outside the write: peers then wait for ever for one that does not exist.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C6",
        says: "A commit that arrives twice changes nothing and is told once.",
        method: "Frames that are repeated, at once and later.",
        catches: "A counter that each duplicate moves.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C7",
        says: "Any order of the same commits, and any cut into writes, makes the same records.",
        method: "All orders of a small set, three replicas in every order of delivery, the simulator.",
        catches: "The later arrival that wins; `>=` between equal stamps; a decision that uses the local time.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C8",
        says: "A model's own `merge` gives the same value in every order. What it cannot merge yet (a panic, a newer schema) \
               is kept until it can.",
        method: "Updates, deletes and re-creations in every order; apps that learn a model later.",
        catches: "A sum of floats; the iteration order of a hash map; appending to a list.",
        limits: "The laws of an app's `merge` are the app's to keep: `merge_laws!` checks them.",
        proof: Tests(&["what_cannot_be_merged_yet_is_merged_later"]),
    },
    Property {
        id: "C9",
        says: "A head moves to the next number only. What is missing is asked for at once, and what waits for it is bounded.",
        method: "Frames in the wrong order and with gaps; transfers that are cut off.",
        catches: "`head = max(seq)`; a live commit that moves the watermark past a gap.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C10",
        says: "A projection gets every commit exactly once, in the transaction of the commit.",
        method: "Faults at every operation; rebuilds that are cut off; commits of others.",
        catches: "An effect that comes before the record.",
        limits: "What happens outside the store (a mail, a file) is the app's, from the events.",
        proof: Tests(&["projections_follow_every_commit", "a_rebuild_goes_on_after_a_crash"]),
    },
    Property {
        id: "C11",
        says: "A put that is older than a delete does not bring the record back, also after a restart. Ties end the same \
               everywhere.",
        method: "Updates, deletes and re-creations at once, in every order.",
        catches: "A version that is read from the log, which may be pruned.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C12",
        says: "A write whose outcome nobody knows is `Error::Unknown` to its caller, and reopening shows it whole or not at \
               all. A commit that failed is nowhere.",
        method: "A store that loses track of a write; the simulator.",
        catches: "A retry that counts twice; `Err` for a commit that is there.",
        limits: "There are no retry keys: to put the same value again changes nothing.",
        proof: Tests(&[]),
    },
    Property {
        id: "C13",
        says: "A reader sees a commit whole or not at all, where it was made and at every receiver.",
        method: "Readers in a loop beside writes; two records that must always be equal.",
        catches: "A transaction for each part of a commit.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C14",
        says: "Once a reader saw a version of a record, no later read shows an older one, and a head never falls.",
        method: "Scenarios with a cause that is late; the simulator.",
        catches: "A catch-up that overwrites a local commit.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C15",
        says: "Only its device changes a device-owned record. The decision rests on the commit alone, so it is the same \
               everywhere, and nobody but its author can stop a stream for good, except by showing a second history.",
        method: "Commits that name another device; commits made up in the name of others.",
        catches: "A check in the local call alone; a check of the sender instead of the author.",
        limits: "Without signatures a member is taken at its word. A commit that is refused does not advance its stream: the \
                 next one would rest on what is not here.",
        proof: Tests(&[]),
    },
    Property {
        id: "C16",
        says: "A commit that cannot be taken (too large, of a newer format, refused by the store) stops its own \
               stream and what rests on it, visibly. All others go on, and it goes through once the reason is gone.",
        method: "Limits that differ, stores that refuse, apps of another version.",
        catches: "A commit that is asked for again and again and keeps everything behind it away.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "C17",
        says: "What a commit acknowledged reads back equal, whatever the shape of the type. What could not is refused before \
               any work.",
        method: "Random types and values, with the attributes that serde knows.",
        catches: "Encoding without decoding; skipped fields.",
        limits: "A field with `#[serde(skip)]` in a type inside the model is seen neither by the derive nor in the bytes.",
        proof: Tests(&[
            "a_field_that_is_left_out_is_refused_for_the_values_that_leave_it_out",
            "a_variant_that_would_be_read_as_another_is_refused",
            "what_needs_a_format_that_describes_itself_is_refused",
            "depth_is_bounded_in_both_directions",
        ]),
    },
    Property {
        id: "C18",
        says: "Records go on whatever a projection says. A projection is its records less its debts, which are visible and \
               are paid when they can be.",
        method: "Projections that fail, panic, decode nothing or end the transaction; constraints and locks in SQLite.",
        catches: "An error that rejects a received commit; a projection that is complete with rows missing.",
        limits: "",
        proof: Tests(&[
            "records_go_on_whatever_a_projection_says",
            "a_rebuild_owes_what_a_projection_cannot_take",
            "a_rebuild_that_fails_is_tried_again",
            "a_projection_refuses_one_commit_of_a_round",
            "a_foreign_key_stops_no_stream",
            "a_parent_is_made_anew_and_its_children_stay",
            "a_projection_that_ends_the_transaction_stops_nothing",
        ]),
    },
    Property {
        id: "C19",
        says: "A page never leaves with a broken chain: a damaged row harms its own stream at its own replica alone.",
        method: "Flipped bits in every stored log row, value, record and head, and in the clock; peers that say what they cannot \
                 show; a group whose relay has a damaged log, on each store, until a check has mended it.",
        catches: "A relay that serves rows unchecked, so that receivers see a second history; an author that believes it; a stream \
                  that goes on from a wrong head; a check that takes what has another digest.",
        limits: "Damage that is mended: only what a connected peer has whole, and a log below a damaged row only once that is \
                 mended.",
        proof: Tests(&[
            "every_flipped_bit_of_a_row_is_found",
            "what_is_not_the_row_mends_nothing",
            "every_damaged_value_is_found_and_fetched",
            "a_lost_value_ends_its_own_stream_and_no_other",
            "a_word_that_is_not_shown_accuses_nobody",
            "a_damaged_record_is_made_again",
            "a_damaged_floor_is_put_right",
            "a_damaged_clock_is_put_right",
        ]),
    },
    Property {
        id: "C20",
        says: "A record that cannot be read hides no other one: lists leave it out and count it, with the reason.",
        method: "Records of a newer app in the first, the last and side by side in the middle pages of a list.",
        catches: "A list that ends, or returns nothing of a page, at the first record of a newer schema.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y1",
        says: "Once faults have ended, all members have the same heads and the same records within bounded time.",
        method: "The simulator's peace after its faults.",
        catches: "A retry that is stuck; nothing that makes up for a lost frame.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y2",
        says: "At every moment, the records of a store, with what lies beside them, are what the commits in its log come to.",
        method: "The simulator folds every log at every write; all orders of a small set.",
        catches: "Anything that diverges silently.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y3",
        says: "Nothing is invented: every commit that a replica holds is, to the byte, what its author made durable.",
        method: "The simulator compares logs; histories that are served from records, kept values and relays.",
        catches: "Encoding again what was decoded; a value that is served from a record which has changed.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y4",
        says: "Nothing is lost: what an app was told is committed is everywhere at convergence, if its device comes back.",
        method: "The simulator numbers every value; scenarios with relays, cuts and restarts.",
        catches: "A reply before the write is durable.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y5",
        says: "A snapshot and the log behind it make the same state as the whole log; it is installed at once or not at all, \
               and an interrupted one goes on.",
        method: "The simulator; a crash at each step of an installation.",
        catches: "Heads that are read after the records; a snapshot without tombstones; a part taken for the whole.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y6",
        says: "A delete never comes back, also if a device was away until its tombstone was dropped.",
        method: "Long absences in the simulator.",
        catches: "Tombstones that are dropped after a time.",
        limits: "",
        proof: Tests(&["a_tombstone_waits_for_members_that_its_holders_know"]),
    },
    Property {
        id: "Y7",
        says: "A log is pruned only up to what all members have acknowledged, also those never heard of, or where a snapshot \
               covers it.",
        method: "The simulator, with members that join while others prune.",
        catches: "The minimum over the acknowledgements that are there; an acknowledgement on receipt.",
        limits: "",
        proof: Tests(&["the_last_member_holds_the_floor"]),
    },
    Property {
        id: "Y8",
        says: "What a replica has acknowledged it has, also after a crash.",
        method: "Acknowledgements that are due while the store writes; stores that were put back.",
        catches: "Acknowledging what is in memory.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y9",
        says: "A replica that joins at any moment, through anybody, ends equal to the rest.",
        method: "Joining during writes, faults and other joins.",
        catches: "A joiner that commits before its clock has followed the group's, or that serves what it cannot judge.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y10",
        says: "Loss, duplication, reordering, delay, one-way and flapping partitions change when replicas agree, never on what.",
        method: "The simulator's network; scenarios.",
        catches: "A duplicate that is applied again; a message of an earlier session that counts.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y11",
        says: "Clocks that differ within the bound change nothing. Beyond it, the stream of the wrong clock alone waits, and \
               goes on by itself when time has caught up.",
        method: "Clocks ahead, behind, frozen and stepping, in scenarios and in the simulator.",
        catches: "A whole group that stalls; a stream that another can have held.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y12",
        says: "Later commits of a removed replica are refused everywhere; it returns as a new replica.",
        method: "The simulator, with members that are added and removed at once.",
        catches: "A removed member whose acknowledgement is waited for, or whose records come back.",
        limits: "",
        proof: WhyNot("planned: a member cannot be removed yet"),
    },
    Property {
        id: "Y13",
        says: "What is stored and sent stays readable: golden bytes are fixed, unknown kinds of messages are skipped, unknown \
               models and schemas are kept and relayed.",
        method: "Golden bytes; apps of different versions side by side.",
        catches: "Variants or fields in another order.",
        limits: "There is one version of the protocol so far.",
        proof: Tests(&[
            "golden_keys",
            "golden_rows",
            "the_rows_of_the_page_are_rows_of_a_store",
            "the_frames_of_the_page_are_frames_that_were_sent",
        ]),
    },
    Property {
        id: "Y14",
        says: "Catching up transfers what is missing and little else. A peer that is of no use is left alone, ever longer. \
               An idle network is silent but for hellos.",
        method: "Counters of the network in scenarios and in the simulator; frame by frame.",
        catches: "A storm of echoes; pulls that are repeated at once; blame for a fault of one's own store.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y15",
        says: "A store that was restored from a backup or cloned learns of it from its peers, commits no more, and says so.",
        method: "Old images put back, with every kind of evidence; the simulator.",
        catches: "Numbers that are given a second time, and what was committed under them lost.",
        limits: "It is not healed: open a new store and join. Until a peer is heard, nobody can know.",
        proof: Tests(&[]),
    },
    Property {
        id: "Y16",
        says: "Catching up takes little more bytes and time than the link allows, from 2 kB/s to a local network, also while \
               the author commits.",
        method: "Links with a rate and round trips of up to 15 s, in virtual time; frame by frame; the simulator.",
        catches: "A fixed time for a page; a late page that is no answer; a peer that is asked again while it sends; live \
                  commits that come too early and take the link from a page.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y17",
        says: "The author of a stopped stream, a joiner that waits and a device with a wrong clock are told why, on their own \
               device.",
        method: "Both sides of every reason, frame by frame; clocks that are wrong, disks that are full and stores that were \
                 copied, in scenarios; the simulator.",
        catches: "A stop that only the receiver knows; a word that is lost, late or made up and counts; an end that is never \
                  told; a round trip that is taken for a wrong clock.",
        limits: "An author hears of stops at the peers to which it is connected, and not through others.",
        proof: Tests(&[]),
    },
    Property {
        id: "Y18",
        says: "What a received commit costs does not grow with the members who miss nothing.",
        method: "Benchmarks and counters, from 2 to 256 members.",
        catches: "Sums over peers and streams; everybody acknowledging everything to everybody.",
        limits: "",
        proof: WhyNot("planned: acknowledgements go to every member, and peers are looked through"),
    },
    Property {
        id: "Y19",
        says: "A replica is added on the device that it names itself, on no device of another member unless the app says so, \
               and a wrong device can be put right as long as the replica waits. Of two adds at once the first counts \
               everywhere, in every order; a replica at work on the other device stops committing and says so, and all \
               have what it committed before.",
        method: "Wrong devices, corrections and members' devices, in scenarios and frame by frame; two members apart that \
                 add one replica; all orders of a few member records.",
        catches: "A typing error that shuts a replica out for ever; a joiner that names the laptop's device and overwrites \
                  what the laptop owns; a correction that stops the stream of the one it puts right.",
        limits: "Members who correct one replica at once, each to another device, settle for one of them.",
        proof: Tests(&[]),
    },
    Property {
        id: "Y20",
        says: "The status of a replica says how far every member has acknowledged its stream, also through one other member \
               that meets both, and when each peer was heard last. Nobody is said to have what it does not have durably, \
               and what others say counts for nothing but this.",
        method: "A star whose parts go and come back; frame by frame; the simulator compares every status with the disks.",
        catches: "A word of others that is stored, proves a restore or outlives one; a full mesh in which everybody tells \
                  everybody of everybody; a screen that shows hours later that all is well.",
        limits: "Two members between author and reader are one too many: then nobody relays.",
        proof: Tests(&[]),
    },
    Property {
        id: "Y21",
        says: "Between replicas that agree and hear each other, a commit is everywhere at once and its author hears so; a \
               frame that was lost is asked for with the next one, and a pull that was lost after a pause, at the longest \
               a minute.",
        method: "The simulator's probes of replicas that have converged, with frames and pulls lost on purpose.",
        catches: "Commits that wait for the next hello; a gap that nobody asks for; a pause that grows without end.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y22",
        says: "Two members that hear each other have within two minutes what the other one had, whatever happens to the rest.",
        method: "The simulator compares all pairs whose links and stores are well, while others are cut off.",
        catches: "A puller that waits for one that is silent; a stuck stream that keeps all others waiting.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "Y23",
        says: "A call that waits until a commit is on enough members, or until all that are connected are level, returns with \
               the word or the write that brings the last of it, and never before; with the end of its time it says what \
               is missing where. It waits neither for a member that is away nor for what is committed after it.",
        method: "Whole replicas whose members are cut off, go, come, join and are restored while a call waits; frame by frame.",
        catches: "An answer from commits that were received and are not durable; a wait that never ends beside a writer; \
                  acknowledgements of a restored store that count; calls that were dropped and pile up.",
        limits: "A commit of a member whose message was lost is not known until the member's next hello.",
        proof: Tests(&[]),
    },
    Property {
        id: "B1",
        says: "Every queue has a cap in bytes or items, whatever callers and peers do.",
        method: "Floods, callers that outrun the store, peers that send more than they should.",
        catches: "An unbounded channel; a frame that is kept alive by a small part of it.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "B2",
        says: "A subscriber or a peer that is stuck delays nobody's commit.",
        method: "A subscriber that takes nothing; a peer that stops reading.",
        catches: "A lock that is held while something is sent.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "B3",
        says: "The puller drives: a page is sent only when it was asked for, one at a time, so a peer that stops reading costs \
               its sender no memory.",
        method: "A peer that stops reading in the middle.",
        catches: "A sender that goes on without being asked.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "B4",
        says: "Overload makes callers wait or answers once, and drops nothing silently.",
        method: "A full queue; a flood of frames; streams that stop.",
        catches: "A commit that disappears; an answer for every frame of a flood.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "B5",
        says: "The largest commit that the limits allow fits into one frame, and is applied whole.",
        method: "A commit at its limits, and one beyond them.",
        catches: "A commit that its author may make and no peer can take.",
        limits: "There are no commits in parts: a larger one is refused when it is made.",
        proof: Tests(&[
            "the_largest_commit_fits_into_the_smallest_frame",
            "whatever_is_too_large_is_named_with_its_limit",
        ]),
    },
    Property {
        id: "B6",
        says: "Nothing is spawned, for a peer or for a message: the driver is one task, and a peer gets one answer a round.",
        method: "A flood of frames.",
        catches: "A task for each message.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "X1",
        says: "A call whose future is dropped after any number of polls leaves a whole store, and the same call made again does \
               what it would have done.",
        method: "Every call is dropped after each number of polls.",
        catches: "A guard that the dropped future held.",
        limits: "",
        proof: Tests(&["cancelling_with_tx_leaves_all_or_nothing"]),
    },
    Property {
        id: "X2",
        says: "A cancelled commit is there with its event, or not at all.",
        method: "As X1.",
        catches: "An event that is emitted after the wait that was cancelled.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "X3",
        says: "A driver that is dropped at any moment loses nothing acknowledged. Every call returns with the reason, and the \
               store can be opened again.",
        method: "The driver is dropped after each number of polls, also on threads.",
        catches: "A call that waits for ever.",
        limits: "",
        proof: Tests(&["every_call_returns_when_the_driver_goes_on_memory"]),
    },
    Property {
        id: "X4",
        says: "Work that a blocking store has begun is not cut off when its caller is gone: it ends, and in its place.",
        method: "Writes and joined writes that are dropped while they run.",
        catches: "A state that says that nothing was written, while the thread still writes.",
        limits: "",
        proof: Tests(&[
            "writes_are_ordered",
            "a_dropped_write_runs_whole_and_the_next_one_comes_after_it",
            "a_dropped_join_runs_to_its_end_and_in_its_place",
        ]),
    },
    Property {
        id: "X5",
        says: "A call that could only wait for ever fails: at once inside a closure that the replica runs, within seconds if \
               nobody runs the driver. Nothing of it is done later.",
        method: "Every call inside every kind of closure, and to a driver that is not run, on a clock that is moved by hand.",
        catches: "A commit inside an `update` that waits for that update; a call to a driver that was forgotten.",
        limits: "A closure that waits for another thread, which makes the call, is not found.",
        proof: Tests(&[]),
    },
    Property {
        id: "I1",
        says: "Atomic here: record, log entry, head and clock are there together or not at all, after any error, panic, \
               cancelled call or crash.",
        method: "See C1.",
        catches: "See C1.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I2",
        says: "Atomic there: a reader at any replica sees a commit whole or not at all.",
        method: "See C13.",
        catches: "See C13.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I3",
        says: "No reply, event or frame before the write is durable, and none is lost after it.",
        method: "See C2.",
        catches: "See C2.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I4",
        says: "Streams have no holes and no forks.",
        method: "See C5, C9 and H3.",
        catches: "See C5, C9 and H3.",
        limits: "A fork that a restored store made is found, not undone.",
        proof: Tests(&[]),
    },
    Property {
        id: "I5",
        says: "The stamps of a replica rise strictly, for ever.",
        method: "See H1 and H2.",
        catches: "See H1 and H2.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I6",
        says: "The same commits make the same state: in any order, in any writes, with any duplicates.",
        method: "See C7.",
        catches: "See C7.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I7",
        says: "Causes come before effects: nobody sees a commit before everything that its author had seen.",
        method: "Frames in the wrong order; relays; the simulator follows the causes of every commit.",
        catches: "An order within each stream alone.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I8",
        says: "Deletes stay deleted.",
        method: "See C11.",
        catches: "See C11.",
        limits: "A tombstone stays as long as a member is away that may lack it.",
        proof: Tests(&[]),
    },
    Property {
        id: "I9",
        says: "Pruning strands no member.",
        method: "See Y7.",
        catches: "See Y7.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I10",
        says: "Only the owner changes device-owned records.",
        method: "See C15.",
        catches: "See C15.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I11",
        says: "Memory is bounded by the limits, whatever a peer sends, and no bytes panic or harm a store.",
        method: "Floods; arbitrary and damaged bytes, also behind a checksum that fits.",
        catches: "Memory that is taken for what a length claims.",
        limits: "",
        proof: Tests(&["a_replica_stands_whatever_a_member_sends"]),
    },
    Property {
        id: "I12",
        says: "What a caller was told is committed is there on every member, once the network lets it.",
        method: "See Y4.",
        catches: "See Y4.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I13",
        says: "What was acknowledged reads back as it was put.",
        method: "See C17.",
        catches: "See C17.",
        limits: "",
        proof: Tests(&[]),
    },
    Property {
        id: "I14",
        says: "No derived table, no single value and no damaged row stops what does not rest on it.",
        method: "See C18 and C19.",
        catches: "See C18 and C19.",
        limits: "Damaged rows: see C19.",
        proof: Tests(&[
            "a_foreign_key_stops_no_stream",
            "a_value_that_cannot_be_decoded_is_left_out_and_counted",
        ]),
    },
    Property {
        id: "I15",
        says: "Whoever can mend a stop is told of it.",
        method: "See Y17.",
        catches: "See Y17.",
        limits: "",
        proof: Tests(&[]),
    },
];
