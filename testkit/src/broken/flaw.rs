//! The table of flaws, each with the property that names it.

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

            /// The name of the property that names this flaw, and so must catch it. Others may catch it too.
            #[must_use]
            pub const fn named_by(self) -> &'static str {
                match self {
                    $($(Self::$flaw)|+ => stringify!($property),)+
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
        /// A cache of values read that forgets puts and deletes, but not range deletes.
        StaleCache,
        /// A cache of absent keys that survives a put.
        StaleAbsence,
        /// The first read after a write finds what was there before.
        PublishesLate,
        /// A key that cannot be read is absent.
        UnreadableIsAbsent,
    }
    reads_are_never_torn {
        /// Each operation of a batch is a write of its own.
        AppliesOpByOp,
        /// A batch is applied in two steps, between which no future gives way: only other threads see it.
        AppliesInTwoSteps,
        /// Keys are read one after the other, from different states.
        ReadsKeyByKey,
        /// Pages of a scan are read one after the other, from different states.
        ScansPageByPage,
    }
    reads_keep_request_order {
        /// Keys are asked for sorted, and answered so.
        SortsKeys,
        /// Neighbours that are the same key are asked for and answered once, the rest padded with absent ones.
        DedupsKeys,
    }
    scan_is_ordered {
        /// The order of a hash table.
        HashOrder,
        /// Bytes compared as signed numbers.
        SignedOrder,
        /// Short keys before long ones.
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
        /// One entry more than the limit.
        ScanLimitIsOneMore,
        /// A limit of zero is none.
        ScanLimitZeroIsNone,
        /// A scan that meets an error returns what it had.
        ScanStopsAtError,
    }
    later_ops_win {
        /// Of two puts of a key in one batch, the first stays.
        FirstPutWins,
        /// The range deletes of a batch come before its other operations.
        RangeDeletesFirst,
        /// The deletes of a batch come after its other operations.
        DeletesLast,
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
        /// Keys beyond the first page stay.
        RangeDeleteStopsAtPage,
    }
    write_is_atomic {
        /// An error halfway leaves the first half, and an unknown outcome.
        ErrorKeepsPrefix,
        /// Until it is reopened, a store that cannot tell shows the first half.
        UnknownShowsPrefix,
        /// A panic halfway leaves the first half.
        PanicKeepsPrefix,
        /// After a panic the store can never be opened again.
        PanicLocksOut,
    }
    write_is_durable {
        /// The last write is still in memory when it returns.
        LosesLastBatch,
        /// A sync that fails is taken for one that worked.
        FailedSyncIsForgotten,
    }
    writes_are_ordered {
        /// The last write reaches the disk, the one before it does not.
        LeavesHole,
        /// The last two writes reach the disk in the wrong order.
        SwapsLastBatches,
    }
    rejected_leaves_no_trace {
        /// A rejected batch leaves its first half.
        RejectedKeepsPrefix,
        /// A rejected batch goes along with the next write.
        RejectedIsSweptUp,
        /// After a rejection the store rejects everything.
        RejectedStops,
        /// An outcome that nobody knows is reported as a rejection.
        UnknownSaysRejected,
    }
    second_owner_is_fenced {
        /// Whoever writes owns the store.
        TwoOwnersWrite,
        /// A fenced write says so, but is applied.
        FencedIsApplied,
        /// A fenced write is not applied, but returns `Ok`.
        FencedSaysOk,
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
    }
    empty_is_not_absent {
        /// An empty value reads as absent.
        EmptyReadsAbsent,
        /// Putting an empty value deletes.
        EmptyPutDeletes,
        /// What is put under the empty key is lost.
        LosesEmptyKey,
    }
    sizes_are_kept {
        /// Values are cut at 64 KiB.
        CutsValues,
        /// Keys are cut at 255 bytes.
        CutsKeys,
        /// A key that is too large has an unknown outcome.
        OversizeIsUnknown,
        /// Operations beyond the first thousand of a batch are lost.
        CutsBatches,
    }
    reopening_changes_nothing {
        /// Opening drops empty values.
        OpeningDropsEmptyValues,
        /// Opening leaves a key of the store's own.
        OpeningAddsKey,
        /// An opening that fails starts afresh.
        FailedOpeningErases,
    }
    behaves_like_a_sorted_map {
        /// Deleting an absent key deletes the one after it.
        DeleteTakesNeighbour,
        /// Deleting leaves an empty value.
        DeleteLeavesEmpty,
        /// Every sixteenth write loses the last key.
        CompactionLosesKey,
    }
}
