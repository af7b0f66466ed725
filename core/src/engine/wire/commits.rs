//! Commits in a message. What the receiver can rebuild does not travel; it is rebuilt before anything is judged.
//!
//! A body has a table of **runs** and then the commits, to its end and without a count. A run is some consecutive commits
//! of one stream by one device. The table says where the run begins, which digest its stream has before it, and the
//! beginning of the digest after it. A commit is the number of its run and its [entry](super::entry), with its values.
//!
//! The receiver rebuilds each entry, which gives the digests of its values, and chains the entries from the digest before
//! the run. If the digest after the run is another one than the table says, the run is not as its sender has it, and none
//! of it is taken. In a page the digest before a run stands in full, so that another history is seen by it. In a live
//! message there are eight bytes of it, and it is the receiver's own: if these differ, or the commit is not the next one,
//! the receiver cannot read the run, and pulls.
//!
//! An entry that is not made as those of this version stands as it is: its stream stops where it is judged, and the rest
//! of the message does not suffer.
use bytes::Bytes;

use super::entry::{self, NamesRead, NamesWritten, Streams};
use super::frame::{HEADER_LEN, MessageWriter, WireError};
use super::message::{LIVE, PAGE, PageHead, STREAMS_MAX};
use super::numbers::{Numbers, OUT_OF_RANGE, put_number, unread};
use super::squeeze::{squeeze, unsqueeze};
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::stored::log::{DigestCheck, chain, digest_check};
use crate::stored::{Digest, Reader};

/// The bytes of a page beside its commits, at most.
const PAGE_BYTES: usize = HEADER_LEN + 64;
/// The bytes that a commit counts for beside its entry and its values: more than it has in its table and in front of it.
const COMMIT_BYTES: usize = 112;

/// Flag of a run: its stream is that of the sender, and is not named. A sender may name itself all the same: such a frame
/// means the same whoever passes it on.
const OF_SENDER: u8 = 1;
/// Flag of a run: its device is named.
const DEVICE: u8 = 2;

/// The longest commit that a page has room for, if the page goes to a replica that takes frames of so many bytes.
pub(crate) const fn commit_max(frame_bytes_max: usize) -> usize {
    frame_bytes_max.saturating_sub(PAGE_BYTES)
}

/// The bytes that a commit counts for against the limits of a frame: those that it has once it is rebuilt. So a short
/// frame never becomes more than a frame may have.
pub(crate) const fn commit_bytes(entry: usize, values: usize) -> usize {
    entry.saturating_add(values).saturating_add(COMMIT_BYTES)
}

/// A commit as it was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireCommit {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    /// The digest of its stream before the commit.
    pub(crate) previous: Digest,
    /// The log entry, as its author wrote it.
    pub(crate) entry: Bytes,
    /// The values of its puts, one after the other. They share the memory of their frame.
    pub(crate) values: Bytes,
}

/// A commit as it is written into a message.
#[derive(Clone, Copy)]
pub(crate) struct CommitParts<'a> {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) previous: &'a Digest,
    pub(crate) entry: &'a [u8],
    pub(crate) values: &'a [u8],
}

// --- writing ---------------------------------------------------------------------------------------------------------

/// Writes a message of commits, one by one.
#[derive(Debug)]
pub(crate) struct CommitsWriter {
    head: MessageWriter,
    /// Whether the digests before runs stand in full, and the device of every run.
    full: bool,
    sender: ReplicaId,
    runs: Vec<RunWritten>,
    streams: Streams,
    names: NamesWritten,
    last_ms: u64,
    commits: Vec<u8>,
    rebuilt: usize,
}

#[derive(Debug)]
struct RunWritten {
    stream: ReplicaId,
    device: [u8; 16],
    first: u64,
    next: u64,
    before: Digest,
    after: Digest,
}

impl CommitsWriter {
    /// A live message of `sender`.
    pub(crate) fn live(group: GroupId, sender: ReplicaId) -> Self {
        Self::new(MessageWriter::new(LIVE, group, 512), false, sender, 512)
    }

    /// A page of `sender` with about `room` bytes of commits.
    pub(crate) fn page(group: GroupId, sender: ReplicaId, head: &PageHead, room: usize) -> Self {
        Self::new(MessageWriter::new(PAGE, group, PAGE_BYTES).with(head), true, sender, room)
    }

    fn new(head: MessageWriter, full: bool, sender: ReplicaId, room: usize) -> Self {
        Self {
            head,
            full,
            sender,
            runs: Vec::new(),
            streams: Streams::default(),
            names: NamesWritten::new(),
            last_ms: 0,
            commits: Vec::with_capacity(room),
            rebuilt: 0,
        }
    }

    pub(crate) fn push(&mut self, commit: &CommitParts<'_>) {
        let CommitParts { stream, seq, previous, entry, values } = *commit;
        self.rebuilt = self.rebuilt.saturating_add(commit_bytes(entry.len(), values.len()));
        let device = entry::device_of(entry);
        let run = self.runs.iter().rposition(|run| run.stream == stream).filter(|at| {
            self.runs.get(*at).is_some_and(|run| {
                run.next == seq && run.after == *previous && device.is_none_or(|device| device == run.device)
            })
        });
        let at = run.unwrap_or_else(|| {
            let device = device.unwrap_or_default();
            self.runs.push(RunWritten {
                stream,
                device,
                first: seq,
                next: seq,
                before: *previous,
                after: *previous,
            });
            let at = self.runs.len() - 1;
            self.streams.name(stream, at as u64);
            at
        });
        if let Some(run) = self.runs.get_mut(at) {
            run.next = run.next.saturating_add(1);
            run.after = chain(previous, entry);
        }
        put_number(&mut self.commits, at as u64);
        let begin = self.commits.len();
        let packed =
            entry::pack(&mut self.commits, entry, values, &mut self.names, &mut self.last_ms, &self.streams);
        if packed.is_none() {
            self.commits.truncate(begin);
            put_number(&mut self.commits, 0);
            for part in [entry, values] {
                put_number(&mut self.commits, part.len() as u64);
                self.commits.extend_from_slice(part);
            }
        }
    }

    /// The bytes that the commits count for against the limit of a frame.
    pub(crate) fn rebuilt(&self) -> usize {
        self.rebuilt
    }

    pub(crate) fn finish(self) -> Bytes {
        let Self { mut head, full, sender, runs, commits, .. } = self;
        let mut body = Vec::with_capacity(runs.len() * 96 + commits.len() + 8);
        let out = &mut body;
        put_number(out, runs.len() as u64);
        for RunWritten { stream, device, first, before, after, .. } in runs {
            let of_sender = stream == sender;
            let named = full || !of_sender;
            out.push(if of_sender { OF_SENDER } else { 0 } | if named { DEVICE } else { 0 });
            if !of_sender {
                out.extend_from_slice(stream.as_bytes());
            }
            if named {
                out.extend_from_slice(&device);
            }
            put_number(out, first);
            out.extend_from_slice(if full { &before } else { before.get(..8).unwrap_or_default() });
            out.extend_from_slice(&digest_check(&after));
        }
        out.extend_from_slice(&commits);
        let block = if full { squeeze(&body) } else { None };
        if full {
            put_number(&mut head.out, block.as_ref().map_or(0, |_| body.len() as u64));
        }
        head.out.extend_from_slice(block.as_ref().unwrap_or(&body));
        head.finish()
    }
}

// --- reading ---------------------------------------------------------------------------------------------------------

/// The commits of a message, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    runs: Vec<Run>,
    commits: Bytes,
}

/// A run of commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The stream; `None` for that of the sender.
    stream: Option<ReplicaId>,
    pub(crate) device: Option<DeviceId>,
    /// The sequence number of its first commit.
    pub(crate) first: u64,
    pub(crate) before: Before,
    after: DigestCheck,
}

/// The digest before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Full(Digest),
    Check(DigestCheck),
}

/// A commit of a message, as the receiver could rebuild it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rebuilt {
    Commit(WireCommit),
    /// The receiver lacks what the commit is rebuilt from.
    Unreadable(ReplicaId, u64),
    /// The run of the commit is not as its sender says.
    Damaged(ReplicaId, u64),
}

impl Packed {
    /// Reads the table of the commits of a page, which fill `body`, perhaps compressed.
    pub(super) fn read_page(body: &Bytes, room: usize) -> Result<Self, WireError> {
        let mut rest = unread(body);
        match rest.fitting()? {
            0 => Self::read(&body.slice_ref(rest.rest()), true),
            len => Self::read(&unsqueeze(rest.rest(), len, room)?.into(), true),
        }
    }

    /// Reads the table of the commits of a live message, which fill `body`.
    pub(super) fn read_live(body: &Bytes) -> Result<Self, WireError> {
        Self::read(body, false)
    }

    fn read(body: &Bytes, full: bool) -> Result<Self, WireError> {
        let mut rest = unread(body);
        let count: usize = rest.fitting()?;
        if count > STREAMS_MAX {
            return Err(WireError::Body("it has more elements than it may"));
        }
        let mut runs = Vec::new();
        for _ in 0..count {
            let flags = rest.byte()?;
            if flags & !(OF_SENDER | DEVICE) != 0 || flags & DEVICE == 0 && (full || flags & OF_SENDER == 0) {
                return Err(OUT_OF_RANGE);
            }
            let stream =
                (flags & OF_SENDER == 0).then(|| rest.array()).transpose()?.map(ReplicaId::from_bytes);
            let device = (flags & DEVICE != 0).then(|| rest.array()).transpose()?.map(DeviceId::from_bytes);
            let first = rest.number()?;
            let before = if full { Before::Full(rest.array()?) } else { Before::Check(rest.array()?) };
            runs.push(Run { stream, device, first, before, after: rest.array()? });
        }
        Ok(Self { runs, commits: body.slice_ref(rest.rest()) })
    }

    /// The bytes in memory that its commits share.
    pub(crate) fn bytes(&self) -> usize {
        self.commits.len()
    }

    /// Rebuilds the commits that `sender` sent. `base` gives the device of a run, and the digest of its stream before it;
    /// `None` if this cannot be known here. A run whose end is `checked` must have the digest that its sender says.
    pub(crate) fn rebuild(
        &self,
        sender: ReplicaId,
        frame_bytes_max: usize,
        checked: bool,
        base: impl Fn(&Run, ReplicaId) -> Option<(DeviceId, Digest)>,
    ) -> Result<Vec<Rebuilt>, WireError> {
        let mut reader = Rebuilder {
            runs: Vec::new(),
            streams: Streams::default(),
            names: NamesRead::default(),
            last_ms: 0,
        };
        let mut rest = unread(&self.commits);
        let mut all = Vec::new();
        let mut room = frame_bytes_max;
        while rest.remaining() > 0 {
            let at: usize = rest.fitting()?;
            if at == reader.runs.len() {
                let run = self.runs.get(at).ok_or(OUT_OF_RANGE)?;
                let stream = run.stream.unwrap_or(sender);
                if reader.continues(run, stream) {
                    return Err(WireError::Body("it has a run that could be shorter"));
                }
                reader.streams.name(stream, at as u64);
                reader.runs.push(RunRead {
                    stream,
                    device: run.device,
                    next: run.first,
                    base: base(run, stream),
                    damaged: false,
                });
            }
            let (commit, bytes) = reader.commit(at, &mut rest, room, &self.commits)?;
            room = room.checked_sub(bytes).ok_or(WireError::TooLong)?;
            all.push((at, commit));
        }
        if reader.runs.len() < self.runs.len() {
            return Err(WireError::Body("it has a run without commits"));
        }
        for (run, read) in self.runs.iter().zip(&mut reader.runs) {
            read.damaged = checked && read.base.is_some_and(|(_, after)| digest_check(&after) != run.after);
        }
        let judged = all.into_iter().map(|(at, commit)| match commit {
            Rebuilt::Commit(commit) if reader.runs.get(at).is_some_and(|run| run.damaged) => {
                Rebuilt::Damaged(commit.stream, commit.seq)
            }
            other => other,
        });
        Ok(judged.collect())
    }
}

/// The state in which a message is read.
struct Rebuilder<'a> {
    runs: Vec<RunRead>,
    streams: Streams,
    names: NamesRead<'a>,
    last_ms: u64,
}

/// A run, as far as it was read.
struct RunRead {
    stream: ReplicaId,
    device: Option<DeviceId>,
    next: u64,
    /// The device, and the digest of the stream as far as it was read; `None` if the run cannot be rebuilt.
    base: Option<(DeviceId, Digest)>,
    damaged: bool,
}

impl<'a> Rebuilder<'a> {
    /// Whether a run goes on where the last one of its stream ends, so that both are one.
    fn continues(&self, run: &Run, stream: ReplicaId) -> bool {
        let Some(last) = self.runs.iter().rfind(|last| last.stream == stream) else { return false };
        let after = last.base.map(|(_, digest)| digest);
        let same = match run.before {
            Before::Full(digest) => after == Some(digest),
            Before::Check(check) => after.is_some_and(|after| digest_check(&after) == check),
        };
        same && last.next == run.first && last.device == run.device
    }

    /// Reads the next commit, which is of the run `at`; returns it and the bytes that it counts for.
    fn commit(
        &mut self,
        at: usize,
        rest: &mut Reader<'a>,
        room: usize,
        body: &Bytes,
    ) -> Result<(Rebuilt, usize), WireError> {
        let run = self.runs.get_mut(at).ok_or(OUT_OF_RANGE)?;
        let (stream, seq) = (run.stream, run.next);
        run.next = seq.checked_add(1).ok_or(OUT_OF_RANGE)?;
        let device = run.base.map_or([0; 16], |(device, _)| *device.as_bytes());
        let count = rest.number()?;
        let (entry, values) = match count.checked_sub(1) {
            Some(count) => {
                let (names, last_ms) = (&mut self.names, &mut self.last_ms);
                let mut unpacked = entry::unpack(rest, count, device, names, last_ms, &self.streams, room)?;
                if run.base.is_some() {
                    unpacked.fill_digests()?;
                }
                (unpacked.entry, unpacked.values)
            }
            None => {
                let len = rest.fitting()?;
                let entry = rest.slice(len)?;
                let len = rest.fitting()?;
                let values = rest.slice(len)?;
                if commit_bytes(entry.len(), values.len()) > room {
                    return Err(WireError::TooLong);
                }
                let mut out = Vec::new();
                let packed =
                    entry::pack(&mut out, entry, values, &mut NamesWritten::new(), &mut 0, &self.streams);
                // A commit is written in one way: as it is only if it cannot be packed.
                if packed.is_some() {
                    return Err(WireError::Body("it has a commit as it is that could be shorter"));
                }
                (entry.to_vec(), values)
            }
        };
        let bytes = commit_bytes(entry.len(), values.len());
        if bytes > room {
            return Err(WireError::TooLong);
        }
        let Some((_, digest)) = &mut run.base else { return Ok((Rebuilt::Unreadable(stream, seq), bytes)) };
        let previous = std::mem::replace(digest, chain(digest, &entry));
        let values = if values.is_empty() { Bytes::new() } else { body.slice_ref(values) };
        Ok((Rebuilt::Commit(WireCommit { stream, seq, previous, entry: entry.into(), values }), bytes))
    }
}

#[cfg(test)]
impl Packed {
    /// The commits that `sender` sent, for a test that knows what they are. In a live message, the device of the sender and
    /// most of the digest before a run are made up.
    pub(crate) fn whole(&self, sender: ReplicaId) -> Vec<WireCommit> {
        let base = |run: &Run, _| {
            let digest = match run.before {
                Before::Full(digest) => digest,
                Before::Check(check) => [check; 4].concat().try_into().unwrap(),
            };
            Some((run.device.unwrap_or(DeviceId::from_bytes([0; 16])), digest))
        };
        let full = self.runs.iter().all(|run| matches!(run.before, Before::Full(_)));
        let all = self.rebuild(sender, usize::MAX, full, base).unwrap().into_iter();
        all.map(|commit| match commit {
            Rebuilt::Commit(commit) => commit,
            other => panic!("{other:?}"),
        })
        .collect()
    }
}
