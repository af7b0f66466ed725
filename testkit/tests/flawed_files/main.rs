//! Goal: the lists of child processes find the flaws that they are for. Method: each flawed store on files must fail the
//! property that is named with it, with a sentence that says what is wrong. The store without a flaw passes them all:
//! `file_store.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use store::{Flaw, Flawed};
use syncline_testkit::child::Opener;
use syncline_testkit::{FileStore, strace_test};

/// One test for each flaw: `the_flaw: the property that must fail, and words of the sentence with which it does`. The
/// macro in brackets makes a test of a function.
macro_rules! caught {
    ([$test:ident] $($flaw:ident: $list:ident::$property:ident, $says:literal;)*) => {$(
        $test! {
            #[allow(non_snake_case, reason = "the test has the name of the flaw")]
            fn $flaw() {
                let test = concat!(module_path!(), "::", stringify!($flaw));
                let opener = Opener::new(test, |path| Flawed::open(path, Flaw::$flaw)).patience(patience(Flaw::$flaw));
                caught(&opener, stringify!($property), $says, syncline_testkit::$list::$property);
            }
        }
    )*};
}

macro_rules! plain_test {
    ($($function:tt)*) => {
        #[test]
        $($function)*
    };
}

/// Short for the stores that hang; longer for the others than any write of theirs takes.
fn patience(flaw: Flaw) -> Duration {
    let hangs = [Flaw::LockWaits, Flaw::HangsAfterAnError].contains(&flaw);
    Duration::from_secs(if hangs { 8 } else { 120 })
}

fn caught(opener: &Opener<Flawed>, property: &str, says: &str, check: fn(&Opener<Flawed>)) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(opener))) else {
        panic!("the flaw passes {property}");
    };
    let text = panic.downcast_ref::<String>().expect("a property fails with a text");
    assert!(text.starts_with(property) && text.contains(says), "{text}");
}

mod kills {
    use super::*;

    caught! {
        [plain_test]
        SplitsLargeBatches: crash::kill_9_tears_no_batch, "part of a batch is there";
        AcknowledgesBeforeWriting: crash::kill_9_loses_nothing_acknowledged, "acknowledged batches are lost";
        LosesTheLastBatchAtOpening: crash::kill_9_loses_nothing_acknowledged, "acknowledged batches are lost";
        CutsAWholePageAtOpening: crash::kill_9_loses_nothing_acknowledged, "acknowledged batches are lost";
        RewritesTheLogInPlaceAtOpening: crash::killed_while_opening_it_opens_again, "acknowledged batches are lost";
        LockOutlivesItsOwner: crash::killed_while_opening_it_opens_again, "cannot be opened";
        NoLock: crash::another_process_is_fenced, "two processes have opened the store";
        RefusalRemovesTheLock: crash::another_process_is_fenced, "was refused, and let in when it tried again";
        RefusalReleasesTheLock: crash::another_process_is_fenced, "and then another process was let in";
        HalfARecordStaysAtOpening: crash::kill_9_tears_no_batch, "acknowledged batches are lost";
        LockStaysAfterClosing: crash::another_process_is_fenced, "has closed the store, and the next process is refused";
        LockWaits: crash::another_process_is_fenced, "the second opener has waited for 8s";
    }
}

/// Goal: a store that is taken over is as good as one that refuses. Method: one that counts its openers.
#[test]
fn an_owner_may_be_fenced_by_the_next() {
    let opener = Opener::new(concat!(module_path!(), "::an_owner_may_be_fenced_by_the_next"), |path| {
        Flawed::open(path, Flaw::TakesOver)
    });
    syncline_testkit::crash::another_process_is_fenced(&opener);
}

mod power {
    use super::*;

    strace_test! {
        /// Goal: what a store says it does without is taken from it. Method: a store that claims so of its log.
        fn a_file_that_is_needed_is_missed() {
            let test = concat!(module_path!(), "::a_file_that_is_needed_is_missed");
            let opener = Opener::new(test, |path| FileStore::open(path)).without(["log"]);
            let check = AssertUnwindSafe(|| syncline_testkit::power::acknowledged_is_synced(&opener));
            let panic = catch_unwind(check).expect_err("its log is needed");
            let text = panic.downcast_ref::<String>().unwrap();
            assert!(text.contains("nothing was synced") || text.contains("without the files [\"log\"]"), "{text}");
        }
    }

    caught! {
        [strace_test]
        NoSync: power::acknowledged_is_synced, "batch 1 was acknowledged, and `store/log` was not synced after";
        SyncsNowAndThen: power::acknowledged_is_synced, "`store/log` was not synced after write";
        SyncsAnotherFile: power::acknowledged_is_synced, "`store/log` was not synced after write";
        SyncsAfterAcknowledging: power::acknowledged_is_synced, "`store/log` was not synced after write";
        RenamedFileIsNotSynced: power::acknowledged_is_synced, "batch 8 was acknowledged, and `store/log`";
        NewFileIsNotSyncedInItsDirectory: power::new_files_are_synced_in_their_directory, "the directory";
        RenamedFileIsNotSyncedInItsDirectory: power::new_files_are_synced_in_their_directory, "after rename";
        VisibleBeforeDurable: power::seen_is_synced, "a reader has seen batch";
    }
}

mod faults {
    use super::*;

    caught! {
        [strace_test]
        WriteErrorIsSwallowed: io_faults::failed_write_is_told, "lost";
        SyncErrorIsSwallowed: io_faults::failed_sync_is_told, "a sync of `store/log` had failed";
        RetriesAFailedSync: io_faults::failed_sync_is_told, "a sync of `store/log` had failed";
        RejectsWhatIsThereAtReopening: io_faults::failed_sync_is_told, "was rejected, and is there";
        GoesOnAfterUnknown: io_faults::failed_write_is_told, "had ended with Unknown";
        HangsAfterAnError: io_faults::failed_sync_is_told, "the store hangs: it was to write batch";
        AbortsAtAnError: io_faults::full_medium_is_told, "the process ended by itself when it was to write batch";
        ShortWriteIsTakenForWhole: io_faults::short_write_is_completed_or_told, "lost";
        HalfARecordStays: io_faults::short_write_is_completed_or_told, "lost";
        RenameErrorIsSwallowed: io_faults::failed_change_of_a_name_or_a_length_is_told, "lost";
        SplitsLargeBatches: io_faults::killed_at_any_call_tears_no_batch, "part of a batch is there";
        TooLargeAtAnError: io_faults::failed_write_is_told, "ended with TooLarge";
        FencedAtAnError: io_faults::failed_write_is_told, "ended with Fenced";
        ReadErrorIsTheEnd: io_faults::failed_read_is_told, "lost";
        CreatesAnEmptyLogIfItCannotOpenIt: io_faults::failed_open_changes_nothing, "lost";
    }
}
