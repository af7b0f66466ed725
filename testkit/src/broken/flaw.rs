//! The tables of flaws, each flaw under the property that has to catch it.

macro_rules! flaws {
    (
        $(#[doc = $what:literal])+
        $name:ident
        $($property:ident { $($(#[doc = $doc:literal])+ $flaw:ident,)+ })+
    ) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($($(#[doc = $doc])+ $flaw,)+)+
        }

        impl $name {
            /// All flaws.
            pub const ALL: &[Self] = &[$($(Self::$flaw,)+)+];

            /// The name of the property that must catch this flaw. Others may catch it too.
            #[must_use]
            pub const fn named_by(self) -> &'static str {
                match self {
                    $($(Self::$flaw)|+ => stringify!($property),)+
                }
            }

            /// The fault in words.
            #[must_use]
            pub fn what(self) -> String {
                match self {
                    $($(Self::$flaw => [$($doc),+].concat().trim().to_owned(),)+)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self, f)
            }
        }
    };
}

pub(super) use flaws;

flaws! {
    /// What is wrong with a [`Broken`](super::Broken) store. Most were found in shipped systems.
    Flaw

    reads_see_last_write {
        /// A cache of values that were read drops what a put or a delete changes, but not what a range delete does.
        StaleCache,
        /// A cache of absent keys keeps a key that is put.
        StaleAbsence,
        /// The first read after a write finds the state before it.
        PublishesLate,
        /// A key that cannot be read is returned as absent.
        UnreadableIsAbsent,
        /// A read of keys waits for the write that is under way.
        ReadWaitsForWrite,
        /// A scan waits for the write that is under way.
        ScanWaitsForWrite,
        /// A scan like the one before is answered from memory, unless a put came in between.
        CachesTheLastScan,
        /// Of more than a hundred keys those that cannot be read are returned as absent.
        UnreadableOfManyIsAbsent,
        /// More than eight reads at a time fail.
        FewReadersAtATime,
        /// A thread that has read keeps a slot of a reader for good, and there are 126 of them.
        ReaderSlotPerThread,
    }
    reads_are_never_torn {
        /// Each operation of a batch is a write of its own.
        AppliesOpByOp,
        /// A batch is applied in two steps. No future gives way between them, so only other threads can see the first.
        AppliesInTwoSteps,
        /// Keys are read one after the other, from different states.
        ReadsKeyByKey,
        /// Pages of a scan are read one after the other, from different states.
        ScansPageByPage,
        /// A scan is made of pages of a thousand entries, from different states.
        ScansLargePages,
        /// A visit is made of pages of a thousand entries, from different states.
        VisitsLargePages,
        /// More than a hundred keys are read in pieces, from different states.
        ReadsInPieces,
        /// A batch of more than 10 operations is split into several.
        SplitsAt10,
        /// A batch of more than 13 operations is split into several.
        SplitsAt13,
        /// A batch of more than 14 operations is split into several.
        SplitsAt14,
        /// A batch of more than 100 operations is split into several.
        SplitsAt100,
        /// A batch of more than a thousand operations is split into several.
        SplitsAt1000,
        /// A batch of more than 10,000 operations is split into several.
        SplitsAt10000,
        /// A batch of more than 1 MiB is split into several.
        SplitsAtMib,
        /// A batch of more than 16 MiB is split into several.
        SplitsAt16Mib,
        /// A write of more than a thousand operations gives way when it has applied half of them.
        LargeWriteGivesWay,
        /// More than a thousand keys are read in pieces, from different states.
        ReadsInLargePieces,
        /// A scan is made of pages of a MiB, from different states.
        ScansPagesOfAMib,
        /// A scan is made of pages of 16 MiB, from different states.
        ScansPagesOf16Mib,
    }
    reads_keep_request_order {
        /// Keys are sorted before they are read, and the values are returned in that order.
        SortsKeys,
        /// A key that is asked for twice in a row is read and returned once, and the answer is padded with absent ones.
        DedupsKeys,
        /// More than a hundred keys are sorted before they are read, and the values are returned in that order.
        SortsManyKeys,
    }
    scan_is_ordered {
        /// Entries come in the order of a hash table.
        HashOrder,
        /// Keys are compared as signed bytes.
        SignedOrder,
        /// Short keys come before long ones.
        LengthOrder,
        /// The end is part of the range.
        ScanTakesEnd,
        /// The start is not part of the range.
        ScanSkipsStart,
        /// A range whose end lies before its start has no end.
        BackwardScanIsOpen,
        /// A range without an end stops before the keys that begin with 0xFF.
        OpenScanStopsEarly,
        /// The limit is ignored.
        ScanIgnoresLimit,
        /// A scan returns one entry more than the limit.
        ScanLimitIsOneMore,
        /// A limit of zero is taken for no limit.
        ScanLimitZeroIsNone,
        /// The limit of bytes is ignored.
        ScanIgnoresBytes,
        /// A scan whose first entry is longer than the limit of bytes returns nothing.
        ScanOfLongEntryIsEmpty,
        /// A scan that the limit cuts off says that there is no more.
        ShortScanSaysEnd,
        /// A scan that meets an error returns the entries that it has read before.
        ScanStopsAtError,
        /// A scan that meets an error finds nothing.
        UnreadableScanIsEmpty,
        /// A range without an end is taken for one that ends at a long run of 0xFF.
        OpenScanEndsAtLongRun,
        /// The bounds of a scan are cut at 64 bytes.
        ScanCutsBoundsAt64,
        /// The bounds of a scan are cut at 255 bytes.
        ScanCutsBoundsAt255,
        /// The bounds of a scan are cut at 1,000 bytes.
        ScanCutsBoundsAt1000,
        /// Keys and bounds are compared by their first 64 bytes.
        ScanComparesPrefixes,
        /// Keys of eight bytes are compared as numbers, the low byte first.
        IntegerOrder,
        /// Keys that differ in the case of a letter are one.
        IgnoresCase,
        /// Keys that differ in spaces at their end are one.
        IgnoresTrailingSpaces,
        /// Keys that are the same number in digits are one.
        ComparesNumbers,
        /// A scan that the limit of entries cuts off says that there is no more.
        CountedScanSaysEnd,
        /// The limit of entries is cut to 32 bits.
        ScanLimitIsCutTo32Bits,
        /// The last entry of a page of a thousand comes again with the next page.
        ScanRepeatsAtPage,
        /// The first entry behind a page of a thousand is left out.
        ScanSkipsAtPage,
        /// A scan that meets an error behind its first hundred entries returns those.
        ScanStopsAtLaterError,
    }
    visit_is_a_scan {
        /// A visit shows the beginning of each value.
        VisitCutsValues,
        /// A visit has no limit.
        VisitIgnoresLimit,
        /// A visitor that says stop is shown the next entry.
        VisitGoesOn,
        /// A visit that was stopped says that there is no more.
        StoppedVisitSaysEnd,
        /// A visit that the limit cuts off says that there is no more.
        VisitSaysEnd,
        /// A panic of the visitor leaves the lock behind.
        VisitorPanicKeepsLock,
        /// A visit that meets an error ends as if there were no more.
        VisitStopsAtError,
        /// A visit without an end is taken for one that ends at a long run of 0xFF.
        OpenVisitEndsAtLongRun,
        /// The bounds of a visit are cut at 255 bytes.
        VisitCutsBoundsAt255,
        /// Keys and bounds of a visit are compared by their first 64 bytes.
        VisitComparesPrefixes,
        /// A visit that found nothing says that there is more.
        VisitAlwaysSaysMore,
        /// A visit whose first entry is longer than the limit of bytes shows nothing.
        VisitOfLongEntryIsEmpty,
        /// The last entry of a page of a thousand is shown again with the next page.
        VisitRepeatsAtPage,
        /// A visit that meets an error behind its first hundred entries ends as if there were no more.
        VisitStopsAtLaterError,
    }
    later_ops_win {
        /// Of two puts of a key in one batch, the first one counts.
        FirstPutWins,
        /// The range deletes of a batch are applied before its other operations.
        RangeDeletesFirst,
        /// The deletes of a batch are applied after its other operations.
        DeletesLast,
        /// The range deletes of a batch of more than a thousand operations are applied before its other operations.
        LargeRangeDeletesFirst,
        /// Of two puts of a key in a batch of more than a thousand operations, the first one counts.
        LargeFirstPutWins,
    }
    delete_range_stays_inside {
        /// The end is part of the range.
        RangeDeleteTakesEnd,
        /// The start is not part of the range.
        RangeDeleteSkipsStart,
        /// A range without an end is empty.
        OpenRangeDeleteIsEmpty,
        /// A range whose end lies before its start is turned round.
        BackwardRangeDeleteTurns,
        /// A range delete deletes the keys of its first page only.
        RangeDeleteStopsAtPage,
        /// A range without an end is taken for one that ends at a long run of 0xFF.
        OpenRangeDeleteEndsAtLongRun,
        /// The bounds are cut at 64 bytes.
        RangeDeleteCutsBoundsAt64,
        /// The bounds are cut at 255 bytes.
        RangeDeleteCutsBoundsAt255,
        /// The bounds are cut at 1,000 bytes.
        RangeDeleteCutsBoundsAt1000,
        /// Keys and bounds are compared by their first 64 bytes.
        RangeDeleteComparesPrefixes,
        /// A range delete deletes ten thousand keys at most.
        RangeDeleteStopsAt10000,
        /// A range delete that cannot read behind the first hundred keys deletes those.
        RangeDeleteStopsAtLaterError,
        /// The key of a delete is cut at 255 bytes.
        DeleteCutsKeyAt255,
    }
    write_is_atomic {
        /// An error halfway leaves the first half, and an unknown outcome.
        ErrorKeepsPrefix,
        /// After an unknown outcome, scans show the first half of the batch until the store is reopened.
        UnknownShowsPrefix,
        /// A panic halfway leaves the first half.
        PanicKeepsPrefix,
        /// After a panic the store can never be opened again.
        PanicLocksOut,
        /// A range delete that cannot read its range is left out.
        RangeDeleteSwallowsError,
        /// A write of more than a thousand operations that is dropped leaves its first half.
        LargeCancelKeepsPrefix,
        /// A write with an unknown outcome that the next opening finds is undone by the one after.
        UnknownIsUndoneLater,
    }
    write_survives_reopening {
        /// The last write is still in memory when it returns.
        LosesLastBatch,
        /// A sync that fails is taken for one that worked.
        FailedSyncIsForgotten,
        /// A batch without puts is still in memory when it returns.
        LosesLastDeletes,
    }
    writes_are_ordered {
        /// The last write reaches the disk, the one before it does not.
        LeavesHole,
        /// The last two writes reach the disk in the wrong order.
        SwapsLastBatches,
        /// After an unknown outcome the store accepts writes.
        GoesOnAfterUnknown,
    }
    rejected_leaves_no_trace {
        /// A rejected batch leaves its first half.
        RejectedKeepsPrefix,
        /// A rejected batch is applied with the next write.
        RejectedIsSweptUp,
        /// A rejected batch is applied when the store is opened, unless a write came in between.
        RejectedIsReplayed,
        /// The same, for a batch that is too large.
        TooLargeIsReplayed,
        /// After a rejection the store rejects everything.
        RejectedStops,
        /// An unknown outcome is reported as a rejection.
        UnknownSaysRejected,
        /// New keys of a batch that was not applied are found by reads of keys, but not by scans.
        RejectedShowsInGets,
    }
    second_owner_is_fenced {
        /// A write takes the store over, so that two owners can write.
        TwoOwnersWrite,
        /// A fenced write returns `Fenced`, but is applied.
        FencedIsApplied,
        /// A fenced write is not applied, but returns `Ok`.
        FencedSaysOk,
        /// A second opener waits until the first one is dropped.
        SecondOpenerWaits,
        /// A second opener that is refused releases the lock, so that the third is not.
        RefusalReleasesLock,
        /// Two openers at the same time both find the store free, and take it.
        RaceLetsBothIn,
        /// An owner that was fenced frees the place of the next one when it is dropped.
        FencedDropFreesThePlace,
    }
    cancel_is_all_or_nothing {
        /// A dropped write leaves its first half.
        CancelKeepsPrefix,
        /// A dropped write keeps the lock.
        CancelKeepsLock,
        /// A dropped read keeps the lock.
        CancelledReadKeepsLock,
        /// A dropped write is applied after the one that follows it.
        CancelledLandsLate,
        /// After a dropped write the store can never be opened again.
        CancelLocksOut,
        /// A dropped visit keeps the lock.
        CancelledVisitKeepsLock,
        /// The hundredth dropped write keeps the lock.
        HundredthCancelKeepsLock,
    }
    empty_is_not_absent {
        /// An empty value reads as absent.
        EmptyReadsAbsent,
        /// Putting an empty value deletes.
        EmptyPutDeletes,
    }
    sizes_are_kept {
        /// Values are cut at 64 KiB.
        CutsValues,
        /// Keys are cut at 255 bytes.
        CutsKeys,
        /// A key that is too large has an unknown outcome.
        OversizeIsUnknown,
        /// A key that is too large is rejected, as if it could be written later.
        OversizeMaySucceedLater,
        /// Operations beyond the first thousand of a batch are lost.
        CutsBatches,
        /// Operations beyond the first 60,000 of a batch are lost.
        CutsHugeBatches,
        /// A batch of more than 60,000 operations is refused.
        RefusesManyOps,
        /// A batch of more than 60 MiB is refused.
        RefusesManyBytes,
        /// A key is refused that is as long as the store declares, though not one that is shorter.
        RefusesTheLongestKey,
        /// A value is refused that is as large as the store declares, though not one that is smaller.
        RefusesTheLargestValue,
        /// A read of more than a thousand keys finds nothing for those beyond.
        CutsReads,
        /// Values of exactly 8 KiB lose their last byte.
        CutsValuesOf8Kib,
        /// Values of exactly 4,076 bytes, a page without its head, lose their last byte.
        CutsValuesOfAPage,
        /// Opening drops values of more than a MiB.
        OpeningDropsLargeValues,
        /// Opening drops the keys behind the first 50,000.
        OpeningDropsManyKeys,
    }
    reopening_changes_nothing {
        /// Opening drops empty values.
        OpeningDropsEmptyValues,
        /// Opening leaves a key that the store has put for itself.
        OpeningAddsKey,
        /// An opening that fails deletes everything.
        FailedOpeningErases,
        /// The twentieth opening fails.
        TwentiethOpeningFails,
        /// The twentieth opening loses the last key.
        TwentiethOpeningLosesKey,
        /// The first read after an opening finds nothing, if it is one of keys.
        FirstGetFindsNothing,
        /// Stores at two places have one cache of values.
        PlacesShareACache,
    }
    behaves_like_a_sorted_map {
        /// Deleting an absent key deletes the one after it.
        DeleteTakesNeighbour,
        /// Deleting leaves an empty value.
        DeleteLeavesEmpty,
        /// Every sixteenth write loses the last key.
        CompactionLosesKey,
        /// Every thousandth put is lost.
        ThousandthPutIsLost,
        /// The thousandth write is applied, and said to be rejected.
        ThousandthWriteSaysRejected,
        /// The thousandth write is not applied, and said to be Ok.
        ThousandthWriteSaysOk,
        /// The thousandth read finds nothing.
        ThousandthReadFindsNothing,
    }
}

flaws! {
    /// What is wrong with the joined writes of a [`BrokenJoins`](super::BrokenJoins) store.
    JoinFlaw

    join_is_atomic {
        /// The rows of the app are committed first, the batch after them.
        CommitsRowsFirst,
        /// A commit that fails leaves the rows of the app.
        FailedCommitKeepsRows,
        /// Only the batch is committed.
        LosesRows,
    }
    join_survives_reopening {
        /// The last join is still in memory when it returns.
        LosesLastJoin,
        /// A sync that fails is taken for one that worked.
        FailedSyncIsForgotten,
        /// The last join is durable with its rows, but without its batch.
        LosesLastBatch,
    }
    join_sees_its_own_writes {
        /// A job reads the store instead of its transaction.
        ReadsOutside,
        /// A batch that a job applies is visible outside at once, and taken back if the job fails.
        ShowsEarly,
        /// A job reads the state after the last join, without the writes since.
        ReadsLastJoin,
    }
    join_error_leaves_no_trace {
        /// A job that failed leaves its rows.
        ErrorKeepsRows,
        /// A job that failed leaves its batch.
        ErrorKeepsBatch,
        /// The job failed and is undone, but the join returns `Ok`.
        ErrorIsSwallowed,
        /// The join returns another error than the job did.
        ErrorIsReplaced,
        /// A join whose job failed returns that its outcome is unknown.
        ErrorIsUnknown,
        /// A job that panicked is not rolled back.
        PanicKeepsAll,
        /// After a panic the store rejects everything.
        PanicStops,
        /// The panic of a job leaves the join.
        PanicGoesThrough,
        /// The rows of a job that failed are committed with the next join.
        ErrorIsSweptUp,
    }
    join_undoes_a_part {
        /// A part that failed leaves its rows.
        PartKeepsRows,
        /// A part that failed leaves its batch.
        PartKeepsBatch,
        /// With a part that failed, everything before it is undone.
        PartUndoesAll,
        /// A part that failed is said to be done.
        PartIsSwallowed,
        /// A part that succeeded is undone.
        PartIsLost,
        /// The end of an inner part ends the outer one, which can be undone no more.
        InnerPartEndsOuter,
    }
    join_runs_its_job_once {
        /// The job is dropped, and the join returns `Ok`.
        NeverRuns,
        /// The job runs in the next join.
        RunsLate,
    }
    join_cannot_be_ended_from_inside {
        /// A transaction that was ended is undone, but the join returns `Ok`.
        EndedSaysOk,
        /// Everything that the job did after the end is committed.
        EndedKeepsRest,
        /// The join returns that the transaction was ended, but the rows of the app are kept.
        EndedKeepsRows,
        /// A join whose transaction was ended is rejected, but with another error.
        EndedIsRejected,
        /// If the job returns an error, the join returns that instead of the end.
        EndedTellsOtherError,
        /// A join whose transaction was ended returns that its outcome is unknown.
        EndedIsUnknown,
    }
    joins_and_writes_are_ordered {
        /// The batch of a join is applied after the write that follows it.
        LandsAfterNextWrite,
        /// A write directly after a join is lost for the keys that the join has put too.
        JoinWinsOverWrite,
    }
    cancelled_join_is_all_or_nothing {
        /// A dropped join leaves its rows.
        CancelKeepsRows,
        /// A dropped join leaves its batch.
        CancelKeepsBatch,
        /// A dropped join keeps the lock.
        CancelKeepsLock,
        /// A dropped join is applied after the write that follows it.
        CancelledLandsLate,
    }
}
