//! One page, which answers a pull: its commits are [picked](super::pick) first, then their [values](super::values) are
//! found.
//!
//! Owns: the stage of the page, and whether a read for it failed. Holds always: a page that has begun is sent, even if
//! it is empty, since the puller waits for it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::events::DamagedPart;
use crate::ids::ReplicaId;
use crate::stored::log;

use super::super::context::Context;
use super::super::damages::Damages;
use super::super::io::{Answer, Query};
use super::super::ledger::Ledger;
use super::super::wire::{CommitParts, CommitsWriter, PageHead, Reach};
use super::Ask;
use super::pick::{Edge, Picked, Picker};
use super::values::{Care, Chosen, Located, Values};
use super::weight::{Scales, Weighed, Weight};

/// A page that is being put together.
#[derive(Debug)]
pub(in crate::engine) struct Page {
    to: ReplicaId,
    id: u32,
    /// This replica, and the highest of its commits with a kept value.
    own_kept: (ReplicaId, u64),
    /// How closely the values are looked at.
    care: Care,
    stage: Stage,
    /// The scales for the log behind the page, if a snapshot may be advised instead.
    scales: Option<Scales>,
    /// Where the page ends, once its commits are picked.
    end: Option<Edge>,
    /// Whether the store could not be read. An empty page is sent then: the puller need not wait for its timeout.
    failed: bool,
}

/// How far a page is.
#[derive(Debug)]
enum Stage {
    Picking(Picker),
    /// The values of the picked commits are looked for. The head of the page is known.
    Finding(Values, Picked),
}

/// A page that is ready.
#[derive(Debug)]
pub(in crate::engine) struct Finished {
    pub(in crate::engine) to: ReplicaId,
    /// The pull that it answers.
    pub(in crate::engine) id: u32,
    pub(in crate::engine) frame: Bytes,
    /// Where the page ends; `None` if commits that were picked are not in it.
    pub(in crate::engine) end: Option<Edge>,
    /// The streams of which the puller has another history, each with its place.
    pub(in crate::engine) forked: Vec<(ReplicaId, u64)>,
    /// The streams that end for the puller since they are damaged here: the place, and whether its row or a value of it
    /// is damaged.
    pub(in crate::engine) damaged: Vec<(ReplicaId, u64, DamagedPart)>,
    pub(in crate::engine) more: bool,
    pub(in crate::engine) weighed: Weighed,
    /// Whether the page has a commit of another replica than this one.
    pub(in crate::engine) relayed: bool,
}

impl Page {
    /// Begins the page that answers the pull `id`. Nothing of the stream `hidden` is served. A snapshot may be advised if
    /// one `is_served`, of records of this `weight`, as far as that is known.
    pub(in crate::engine) fn new(
        to: ReplicaId,
        Ask { id, begin, budget }: Ask,
        hidden: Option<ReplicaId>,
        (is_served, weight): (bool, Option<Weight>),
        (ledger, damages, context): (&Ledger, &Damages, &Context),
    ) -> Self {
        // A pull of one commit has no budget; one that leaves streams out could not take their records.
        let may_weigh = is_served && budget > 0 && !begin.leaves_out_others(to);
        let scales = may_weigh.then(|| Scales::new(weight, context.limits.page_bytes_max, ledger));
        let own_kept = (context.me(), ledger.kept_up_to());
        let stage = Stage::Picking(Picker::new(begin, budget, hidden, ledger, damages, context));
        let care = if context.rules.served_rows_are_checked { Care::Values } else { Care::Nothing };
        Self { to, id, own_kept, care, stage, scales, end: None, failed: false }
    }

    /// The next read; `None` once the page is complete.
    pub(in crate::engine) fn step(&mut self) -> Option<Query> {
        if self.failed {
            return None;
        }
        if let Stage::Picking(picker) = &mut self.stage {
            if let Some(query) = picker.step() {
                return Some(query);
            }
            self.end = Some(picker.end());
            let mut picked = picker.finish();
            if let Some(scales) = self.scales.as_mut().filter(|_| picked.more) {
                scales.put(&picked.missing, picked.commits.len(), picked.bytes);
            }
            let values = Values::new(std::mem::take(&mut picked.commits), self.own_kept, self.care);
            self.stage = Stage::Finding(values, picked);
        }
        if let Some(range) = self.scales.as_ref().and_then(Scales::step) {
            return Some(Query::Count(range.clone()));
        }
        match &mut self.stage {
            Stage::Finding(values, _) => values.step(),
            Stage::Picking(_) => None,
        }
    }

    /// Takes the answer to the read.
    pub(in crate::engine) fn take(&mut self, answer: Answer) {
        match (&mut self.stage, answer) {
            (Stage::Finding(..), Answer::Count(rows, bytes)) => {
                if let Some(scales) = &mut self.scales {
                    scales.take(rows, bytes);
                }
            }
            (Stage::Picking(picker), Answer::Page(page)) => picker.take(page),
            (Stage::Picking(_), answer) => debug_assert!(false, "{answer:?} while rows are read"),
            (Stage::Finding(values, _), answer) => values.take(answer),
        }
    }

    /// Takes note that the store could not be read.
    pub(in crate::engine) fn fail(&mut self) {
        self.failed = true;
    }

    /// The page as it is sent, without the stream `hidden`, which may be another one than when the page began.
    pub(in crate::engine) fn finish(self, hidden: Option<ReplicaId>, context: &Context) -> Finished {
        let Self { to, id, mut stage, scales, end, failed, .. } = self;
        let (mut chosen, lost, picked) = match &mut stage {
            Stage::Picking(picker) => (Vec::new(), Vec::new(), picker.finish()),
            Stage::Finding(values, picked) => {
                let (chosen, lost) = if failed { Default::default() } else { values.finish() };
                (chosen, lost, std::mem::take(picked))
            }
        };
        let Picked { bytes, more, pruned, too_long, forked, damaged, .. } = picked;
        let more = more && !failed;
        let weighed = scales.as_ref().map(Scales::finish).unwrap_or_default();
        let reach = match (pruned, weighed.longer && more) {
            (true, _) => Reach::Pruned,
            (false, true) => Reach::Longer,
            (false, false) => Reach::Whole,
        };
        let end = end.filter(|_| lost.is_empty() && !failed);
        let rows = damaged.into_iter().map(|(stream, seq)| (stream, seq, DamagedPart::Row));
        let mut damaged: BTreeMap<_, _> = rows.map(|(stream, seq, part)| (stream, (seq, part))).collect();
        // A value stands before the damaged row: the rows behind that one were not picked.
        damaged.extend(lost.into_iter().map(|(stream, seq)| (stream, (seq, DamagedPart::Value))));
        let damaged = damaged.into_iter().map(|(stream, (seq, part))| (stream, seq, part)).collect();
        chosen.retain(|chosen| Some(chosen.row.stream) != hidden);
        let head = PageHead { id, more, reach, too_long };
        let mut page = CommitsWriter::page(context.group(), context.me(), &head, bytes);
        let relayed = chosen.iter().any(|chosen| chosen.row.stream != context.me());
        let mut values = Vec::new();
        for Chosen { row, values: located } in &chosen {
            let Ok((previous, entry)) = log::split_row(&row.row) else { break };
            values.clear();
            for Located { bytes, at } in located.iter().flatten() {
                values.extend_from_slice(bytes.get(*at..).unwrap_or_default());
            }
            let previous = &previous;
            page.push(&CommitParts { stream: row.stream, seq: row.seq, previous, entry, values: &values });
        }
        Finished { to, id, frame: page.finish(), end, forked, damaged, more, weighed, relayed }
    }
}
