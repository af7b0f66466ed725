//! Checks the limits against each other: a commit that one limit lets through must have room under all others.

use std::ops::RangeInclusive;

use tokio::sync::Semaphore;

use super::{
    CAUSE_FRAME_BYTES, CHANGE_FRAME_BYTES, CHANGE_QUEUE_BYTES, COMMIT_FRAME_BYTES, ENTRY_CHANGE_BYTES,
    Limits, MEMBER_HELLO_BYTES,
};
use crate::engine::STREAMS_MAX;
use crate::error::OpenError;
use crate::syncable::MODEL_BYTES_MAX;

/// Log entries hold the length of an id in 16 bits.
const ID_BYTES_MOST: usize = u16::MAX as usize;
/// Frames hold lengths in 32 bits.
const ENTRY_BYTES_MOST: usize = u32::MAX as usize;
/// The channel of events reserves memory for all its places when the store is opened.
const EVENT_COMMITS_MOST: usize = 1 << 20;
/// Frames hold lengths in 32 bits.
const FRAME_BYTES_MOST: usize = u32::MAX as usize;
/// A semaphore counts the bytes of the queue, and a caller takes at most a `u32` of it.
const QUEUE_BYTES_MOST: usize =
    if Semaphore::MAX_PERMITS < u32::MAX as usize { Semaphore::MAX_PERMITS } else { u32::MAX as usize };

impl Limits {
    /// Checks every limit against its bounds. The two limits in milliseconds have none.
    ///
    /// The bounds of a limit follow from limits that are checked before it. So no sum below can overflow, and the
    /// error names a limit that the app can correct: the bounds that it states are never empty.
    ///
    /// # Errors
    /// [`OpenError::Limits`] of the first limit that is out of its bounds.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        check("id_bytes_max", self.id_bytes_max, 1..=ID_BYTES_MOST, "")?;
        check("members_max", self.members_max, 1..=STREAMS_MAX, "")?;
        check(
            "entry_bytes_max",
            self.entry_bytes_max,
            ENTRY_CHANGE_BYTES + MODEL_BYTES_MAX + self.id_bytes_max..=ENTRY_BYTES_MOST,
            ", so that a log entry can name a record of the longest id",
        )?;
        check(
            "commit_bytes_max",
            self.commit_bytes_max,
            1..=self.commit_bytes_upper(),
            ", so that a queue and a frame can hold a commit of one change",
        )?;
        check(
            "value_bytes_max",
            self.value_bytes_max,
            1..=self.value_bytes_upper(),
            ", so that `commit_bytes_max` and a frame can hold a record",
        )?;
        check(
            "commit_changes_max",
            self.commit_changes_max,
            1..=self.commit_changes_upper(),
            ", so that a queue and a frame can hold a commit of `commit_bytes_max`",
        )?;
        check(
            "queue_bytes_max",
            self.queue_bytes_max,
            self.queue_bytes_least()..=QUEUE_BYTES_MOST,
            &format!("; the least is `commit_bytes_max` + `commit_changes_max` * {CHANGE_QUEUE_BYTES}"),
        )?;
        check(
            "frame_bytes_max",
            self.frame_bytes_max,
            self.frame_bytes_least()..=FRAME_BYTES_MOST,
            &format!(
                "; the least is `commit_bytes_max`, or `id_bytes_max` + `value_bytes_max` if that is more, \
                 + `commit_changes_max` * {CHANGE_FRAME_BYTES} + `members_max` * {CAUSE_FRAME_BYTES} \
                 + {COMMIT_FRAME_BYTES}, so that a frame can hold a commit; and `members_max` * \
                 {MEMBER_HELLO_BYTES} + {COMMIT_FRAME_BYTES}, so that it can hold a hello"
            ),
        )?;
        check(
            "page_bytes_max",
            self.page_bytes_max,
            1..=self.frame_bytes_max,
            ", which is `frame_bytes_max`",
        )?;
        check("round_commits_max", self.round_commits_max, 1..=usize::MAX, "")?;
        check("event_commits_max", self.event_commits_max, 1..=EVENT_COMMITS_MOST, "")
    }

    /// The most that `commit_bytes_max` may be, so that the largest queue and the longest frame have room for a
    /// change.
    const fn commit_bytes_upper(&self) -> usize {
        let frame = FRAME_BYTES_MOST - self.frame_bytes_around() - CHANGE_FRAME_BYTES;
        let queue = QUEUE_BYTES_MOST - CHANGE_QUEUE_BYTES;
        if frame < queue { frame } else { queue }
    }

    /// The most that `value_bytes_max` may be, so that a commit and a frame have room for a record with the longest
    /// id.
    const fn value_bytes_upper(&self) -> usize {
        let frame = FRAME_BYTES_MOST - self.frame_bytes_around() - CHANGE_FRAME_BYTES - self.id_bytes_max;
        if frame < self.commit_bytes_max { frame } else { self.commit_bytes_max }
    }

    /// The most that `commit_changes_max` may be, so that a queue and a frame have room for the largest commit.
    const fn commit_changes_upper(&self) -> usize {
        let frame = FRAME_BYTES_MOST - self.frame_bytes_around() - self.commit_bytes_most();
        let queue = QUEUE_BYTES_MOST - self.commit_bytes_max;
        let (frame, queue) = (frame / CHANGE_FRAME_BYTES, queue / CHANGE_QUEUE_BYTES);
        if frame < queue { frame } else { queue }
    }
}

fn check(
    name: &'static str,
    value: usize,
    allowed: RangeInclusive<usize>,
    why: &str,
) -> Result<(), OpenError> {
    debug_assert!(!allowed.is_empty(), "{name} can never be right: {allowed:?}");
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    let rule =
        if most == usize::MAX { format!("at least {least}") } else { format!("from {least} to {most}") };
    Err(OpenError::Limits { name, value, rule: rule + why })
}

#[cfg(test)]
mod tests {
    //! Goal: every limit takes exactly the values within its bounds, and says which those are. Method: both edges of
    //! each limit by hand, then random limits against the conditions that the bounds are made from.

    use proptest::prelude::*;

    use super::*;

    type Field = fn(&mut Limits) -> &mut usize;

    const U32_MAX: usize = u32::MAX as usize;

    /// Limits that leave each one under test as much room as they can.
    fn roomy() -> Limits {
        Limits {
            id_bytes_max: 1,
            value_bytes_max: 1,
            commit_changes_max: 1,
            commit_bytes_max: 1,
            queue_bytes_max: U32_MAX,
            frame_bytes_max: U32_MAX,
            page_bytes_max: 1,
            members_max: 1,
            ..Limits::default()
        }
    }

    /// Tries each limit beside others that leave it room, and beside others that bound it.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn every_limit_takes_exactly_what_is_within_its_bounds() {
        let default = Limits::default();
        let edges: [(&str, Field, Limits, usize, usize); 17] = [
            ("id_bytes_max", |l| &mut l.id_bytes_max, default.clone(), 1, 65_535),
            ("members_max", |l| &mut l.members_max, default.clone(), 1, 4096),
            ("entry_bytes_max", |l| &mut l.entry_bytes_max, default.clone(), 66 + 64 + 1024, U32_MAX),
            // A frame has less room for a change than the queue: more bytes are around the change.
            ("commit_bytes_max", |l| &mut l.commit_bytes_max, roomy(), 1, U32_MAX - 136 - 40 - 512),
            ("value_bytes_max", |l| &mut l.value_bytes_max, default.clone(), 1, 8 << 20),
            (
                "value_bytes_max",
                |l| &mut l.value_bytes_max,
                Limits { commit_bytes_max: U32_MAX - 136 - 40 - 512, id_bytes_max: 1000, ..roomy() },
                1,
                U32_MAX - 136 - 40 - 512 - 1000,
            ),
            ("commit_changes_max", |l| &mut l.commit_changes_max, roomy(), 1, (U32_MAX - 1) / 256),
            // With few changes the frame is full before the queue is.
            (
                "commit_changes_max",
                |l| &mut l.commit_changes_max,
                Limits { commit_bytes_max: U32_MAX - 552 - 136 * 3 - 100, ..roomy() },
                1,
                3,
            ),
            ("queue_bytes_max", |l| &mut l.queue_bytes_max, roomy(), 1 + 256, U32_MAX),
            (
                "queue_bytes_max",
                |l| &mut l.queue_bytes_max,
                default.clone(),
                (8 << 20) + 10_000 * 256,
                U32_MAX,
            ),
            // A record of the longest id and the largest value, which together are above `commit_bytes_max`.
            ("frame_bytes_max", |l| &mut l.frame_bytes_max, roomy(), 1 + 1 + 136 + 40 + 512, U32_MAX),
            // A hello of many members is longer than the longest commit.
            (
                "frame_bytes_max",
                |l| &mut l.frame_bytes_max,
                Limits { members_max: 256, ..roomy() },
                256 * 128 + 512,
                U32_MAX,
            ),
            (
                "frame_bytes_max",
                |l| &mut l.frame_bytes_max,
                default.clone(),
                (8 << 20) + 10_000 * 136 + 256 * 40 + 512,
                U32_MAX,
            ),
            ("page_bytes_max", |l| &mut l.page_bytes_max, default.clone(), 1, 32 << 20),
            ("page_bytes_max", |l| &mut l.page_bytes_max, roomy(), 1, U32_MAX),
            ("round_commits_max", |l| &mut l.round_commits_max, default.clone(), 1, usize::MAX),
            ("event_commits_max", |l| &mut l.event_commits_max, default, 1, 1 << 20),
        ];
        for (name, field, base, least, most) in edges {
            let at = |value: usize| {
                let mut limits = base.clone();
                *field(&mut limits) = value;
                limits.check()
            };
            at(least).unwrap_or_else(|error| panic!("{name} at its least: {error}"));
            at(most).unwrap_or_else(|error| panic!("{name} at its most: {error}"));
            let beyond = [Some((least - 1, least)), most.checked_add(1).map(|beyond| (beyond, most))];
            for (beyond, bound) in beyond.into_iter().flatten() {
                let message = at(beyond).expect_err(name).to_string();
                assert!(message.starts_with(&format!("{name} = {beyond} cannot be: ")), "{message}");
                let numbers: Vec<_> = message.split(|c: char| !c.is_ascii_digit()).collect();
                assert!(numbers.contains(&bound.to_string().as_str()), "{bound} in {message}");
            }
        }
    }

    #[test]
    fn the_default_is_within_its_bounds() {
        Limits::default().check().unwrap();
    }

    #[test]
    fn a_message_says_what_the_bound_is_made_of() {
        let limits = Limits { frame_bytes_max: 1000, ..Limits::default() };
        assert_eq!(
            limits.check().unwrap_err().to_string(),
            "frame_bytes_max = 1000 cannot be: from 9759360 to 4294967295; the least is `commit_bytes_max`, or \
             `id_bytes_max` + `value_bytes_max` if that is more, + `commit_changes_max` * 136 + `members_max` * 40 \
             + 512, so that a frame can hold a commit; and `members_max` * 128 + 512, so that it can hold a hello"
        );
    }

    fn any_size() -> impl Strategy<Value = usize> {
        let around = |edge: usize| (0..3_usize).prop_map(move |by| edge.saturating_sub(1).saturating_add(by));
        let edges = prop_oneof![Just(1), Just(65_535), Just(U32_MAX), Just(usize::MAX), Just(1 << 20)];
        prop_oneof![4 => 0..20_usize, 4 => 0..100_000_usize, 2 => 0..=U32_MAX, 1 => edges.prop_flat_map(around)]
    }

    prop_compose! {
        /// Draws limits whose queue and frame are often as short as they may be, or one byte shorter.
        fn any_limits()(
            id_bytes_max in any_size(),
            value_bytes_max in any_size(),
            commit_changes_max in any_size(),
            commit_bytes_max in any_size(),
            queue_bytes_max in any_size(),
            frame_bytes_max in any_size(),
            page_bytes_max in any_size(),
            members_max in any_size(),
            entry_bytes_max in prop_oneof![1 => any_size(), 9 => Just(1 << 20)],
            [queue, frame] in [prop::option::of(0..2_usize), prop::option::of(0..2_usize)],
        ) -> Limits {
            let limits = Limits {
                id_bytes_max,
                value_bytes_max,
                commit_changes_max,
                commit_bytes_max,
                queue_bytes_max,
                frame_bytes_max,
                page_bytes_max,
                members_max,
                entry_bytes_max,
                ..Limits::default()
            };
            Limits {
                queue_bytes_max: queue.map_or(queue_bytes_max, |by| limits.queue_bytes_least().saturating_sub(by)),
                frame_bytes_max: frame.map_or(frame_bytes_max, |by| limits.frame_bytes_least().saturating_sub(by)),
                ..limits
            }
        }
    }

    proptest! {
        /// The order of the bounds is there for the error to name the right limit; the verdict must not depend on it.
        #[test]
        fn limits_pass_that_contradict_neither_each_other_nor_what_a_store_holds(limits in any_limits()) {
            let wide = |size: usize| size as u128;
            let commit = wide(limits.commit_bytes_max).max(wide(limits.id_bytes_max) + wide(limits.value_bytes_max));
            let frame = commit + wide(limits.commit_changes_max) * 136 + wide(limits.members_max) * 40 + 512;
            let frame = frame.max(wide(limits.members_max) * 128 + 512);
            let queue = wide(limits.commit_bytes_max) + wide(limits.commit_changes_max) * 256;
            let fits = (1..=65_535).contains(&limits.id_bytes_max)
                && (66 + 64 + wide(limits.id_bytes_max)..=wide(U32_MAX)).contains(&wide(limits.entry_bytes_max))
                && (1..=4096).contains(&limits.members_max)
                && (1..=limits.commit_bytes_max).contains(&limits.value_bytes_max)
                && limits.commit_changes_max > 0
                && (queue..=wide(QUEUE_BYTES_MOST)).contains(&wide(limits.queue_bytes_max))
                && (frame..=wide(FRAME_BYTES_MOST)).contains(&wide(limits.frame_bytes_max))
                && (1..=limits.frame_bytes_max).contains(&limits.page_bytes_max);
            prop_assert_eq!(limits.check().is_ok(), fits, "{:?}", limits.check());
        }
    }
}
