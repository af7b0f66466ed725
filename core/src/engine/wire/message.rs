//! Messages between replicas, in postcard.
//!
//! A body is a struct whose fields never change; an addition is a new kind.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::commits::Packed;
use super::frame::{MessageWriter, Messages, WireError};
use super::snapshot::{Rows, SnapshotHead, SnapshotPull};
use super::stopped::Stopped;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::stored::{Digest, Point};

pub(crate) const HELLO: u8 = 1;
pub(crate) const STRANGER: u8 = 2;
pub(crate) const PULL: u8 = 3;
pub(crate) const PAGE: u8 = 4;
pub(crate) const LIVE: u8 = 5;
pub(crate) const ACK: u8 = 6;
pub(crate) const REGRESSED: u8 = 7;
pub(crate) const STOPPED: u8 = 8;
pub(crate) const OTHER_GROUP: u8 = 9;
pub(crate) const RELAYED: u8 = 10;
pub(crate) const COMING: u8 = 11;
pub(crate) const PULL_ON: u8 = 12;
pub(crate) const DAMAGED: u8 = 13;
pub(crate) const SHOW: u8 = 14;
pub(crate) const SHOWN: u8 = 15;
/// A replica that is further behind than the logs reach asks for a page of records, and gets one.
pub(crate) const SNAPSHOT_PULL: u8 = 16;
pub(crate) const SNAPSHOT_PAGE: u8 = 17;
/// Reserved for what is shown and never stored, such as the place of a cursor.
pub(crate) const EPHEMERAL: u8 = 24;

/// The features of this version beyond those of every version: one bit for each, none so far.
///
/// A later version says with a bit that it can be asked for something. So a bit that is not known here is left.
pub(crate) const FEATURES: u32 = 0;

/// The most streams that a message may name. The members of a group are fewer.
pub(crate) const STREAMS_MAX: usize = 4096;

/// A message from one replica to another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Hello(Hello),
    /// The receiver, which said hello, is no member here.
    Stranger,
    Pull(Pull),
    /// The answer to a pull.
    Page(PageHead, Packed),
    /// Commits that were just made.
    Live(Packed),
    Ack(Heads),
    /// The receiver once acknowledged more of this stream than it has now.
    Regressed(WireHead),
    /// The sender takes no more of the receiver's stream.
    Stopped(Stopped),
    /// The receiver, which said hello, is of another group than the sender.
    OtherGroup,
    /// How far others have acknowledged the receiver's stream, as it has changed.
    Relayed(Words),
    /// A page is coming behind this message.
    Coming(Coming),
    PullOn(PullOn),
    /// The sender cannot serve these streams from these commits on, since its log is damaged there.
    Damaged(Capped<WirePlace, STREAMS_MAX>),
    /// The receiver is to show a row of its log.
    Show(Show),
    /// The answer to a [`Message::Show`].
    Shown(Shown),
    SnapshotPull(SnapshotPull),
    /// The answer to a snapshot pull.
    SnapshotPage(SnapshotHead, Rows),
}

/// Sent when a peer comes up, when a new session of it says hello, and now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Drawn at every opening of a store.
    pub(crate) session: u64,
    /// The features of the sender; see [`FEATURES`].
    pub(crate) features: u32,
    /// Whether the sender knows that it was restored from a backup or cloned, so that nothing it acknowledges counts.
    pub(crate) restored: bool,
    pub(crate) clock: WireClock,
    /// The device of a sender that waits to be added to the group.
    pub(crate) knocks: Option<DeviceId>,
    /// The members that the sender does not hear itself. It wants to be told how far they have acknowledged its stream.
    pub(crate) unheard: Capped<ReplicaId, STREAMS_MAX>,
    /// How far others have acknowledged the receiver's stream: all that it asked for.
    pub(crate) relayed: Words,
    pub(crate) heads: Heads,
}

/// What a hello says of time: how far apart two wall clocks stand, and that the hello is none of long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireClock {
    /// The wall clock of the sender, in milliseconds since 1970; `None` if it fails.
    pub(crate) wall: Option<u64>,
    /// The timer of the sender. It means nothing to the receiver, whose next hello names it.
    pub(crate) sent: u64,
    /// The timer of the receiver in the last hello of it that the sender heard on this connection.
    pub(crate) heard: Option<u64>,
}

/// Asks for the commits behind `heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pull {
    /// Names the page that answers it.
    pub(crate) id: u32,
    /// How many bytes of commits the page may have; a single commit always fits.
    pub(crate) budget: u32,
    /// The longest frame that the puller takes.
    pub(crate) frame_bytes: u32,
    pub(crate) heads: Heads,
    /// The streams of which no commit is wanted, and so none that rests on them.
    pub(crate) excluded: Capped<ReplicaId, STREAMS_MAX>,
}

/// Sent just ahead of a long page: the puller learns that its peer answers, and how long it has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Coming {
    /// The pull that the page answers.
    pub(crate) id: u32,
    /// The bytes of the frame of the page.
    pub(crate) bytes: u32,
}

/// Asks for the commits behind those of another page, which may not have come yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullOn {
    /// Names the page that answers it.
    pub(crate) id: u32,
    /// The pull of the page that it goes on from.
    pub(crate) behind: u32,
    /// As in a [`Pull`].
    pub(crate) budget: u32,
}

/// The head of a page, before its commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PageHead {
    pub(crate) id: u32,
    /// Whether there were more commits than fit.
    pub(crate) more: bool,
    pub(crate) reach: Reach,
    /// A commit that is longer than the puller takes, so that nothing of its stream comes.
    pub(crate) too_long: Option<TooLong>,
}

/// Whether the log of a page's sender is the way to what the puller lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reach {
    /// The log has all of it, as far as the sender has.
    #[default]
    Whole,
    /// The log of a stream begins behind what the puller has: the rest needs a snapshot.
    Pruned,
    /// All records are much shorter than the log: a snapshot takes less.
    Longer,
}

/// A commit that does not fit into the frames of its puller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TooLong {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    /// The bytes that the commit takes in a frame, at most.
    pub(crate) bytes: u64,
}

pub(crate) type Words = Capped<Relayed, STREAMS_MAX>;

/// How far a member has acknowledged the receiver's stream, as the sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relayed {
    pub(crate) member: ReplicaId,
    pub(crate) seq: u64,
    /// Whether the member's store was restored, so that no acknowledgement of it counts.
    pub(crate) restored: bool,
}

/// A commit of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WirePlace {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
}

/// Asks for a row of the receiver's log, whose history differs from the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Show {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    /// Whether the receiver is to check its chain from there to its head.
    pub(crate) checked: bool,
}

/// Shows a row of the sender's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    /// The head of the stream at the sender, up to which the chain behind the row was checked; 0 if it was not.
    pub(crate) head: u64,
    /// The row; `None` if the sender does not have it, or if its log is damaged there.
    pub(crate) row: Option<WireRow>,
}

/// A log row: the digest before the commit, and the log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRow {
    pub(crate) previous: Digest,
    #[serde(with = "serde_bytes")]
    pub(crate) entry: Vec<u8>,
}

pub(crate) type Heads = Capped<WireHead, STREAMS_MAX>;

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireHead {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) digest: Digest,
}

impl WireHead {
    pub(crate) const fn point(&self) -> Point {
        Point { seq: self.seq, digest: self.digest }
    }
}

/// At most `MAX` elements. A higher count is refused before memory is taken for its elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Capped<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Capped<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                // Memory grows with the bytes that are read, never with what the count claims.
                let mut taken = Vec::new();
                if elements.size_hint().is_some_and(|count| count > MAX) {
                    return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                }
                while let Some(element) = elements.next_element()? {
                    taken.push(element);
                }
                Ok(Capped(taken))
            }
        }
        deserializer.deserialize_seq(Elements(std::marker::PhantomData))
    }
}

pub(crate) fn hello(group: GroupId, hello: &Hello) -> Bytes {
    let elements = hello.heads.0.len() + hello.unheard.0.len() + hello.relayed.0.len();
    MessageWriter::new(HELLO, group, 96 + elements * 64).with(hello).finish()
}

pub(crate) fn stranger(group: GroupId) -> Bytes {
    MessageWriter::new(STRANGER, group, 0).finish()
}

pub(crate) fn pull(group: GroupId, pull: &Pull) -> Bytes {
    MessageWriter::new(PULL, group, 64 + pull.heads.0.len() * 64).with(pull).finish()
}

pub(crate) fn coming(group: GroupId, coming: &Coming) -> Bytes {
    MessageWriter::new(COMING, group, 16).with(coming).finish()
}

pub(crate) fn pull_on(group: GroupId, pull: &PullOn) -> Bytes {
    MessageWriter::new(PULL_ON, group, 16).with(pull).finish()
}

pub(crate) fn ack(group: GroupId, heads: &Heads) -> Bytes {
    MessageWriter::new(ACK, group, heads.0.len() * 64).with(heads).finish()
}

pub(crate) fn regressed(group: GroupId, head: &WireHead) -> Bytes {
    MessageWriter::new(REGRESSED, group, 64).with(head).finish()
}

pub(crate) fn stopped(group: GroupId, stopped: &Stopped) -> Bytes {
    MessageWriter::new(STOPPED, group, 64).with(stopped).finish()
}

/// Tells a replica of `group` that the sender is of another one. The frame names the receiver's group, so that it says
/// nothing of the sender's.
pub(crate) fn other_group(group: GroupId) -> Bytes {
    MessageWriter::new(OTHER_GROUP, group, 0).finish()
}

pub(crate) fn relayed(group: GroupId, words: &Words) -> Bytes {
    MessageWriter::new(RELAYED, group, words.0.len() * 32).with(words).finish()
}

pub(crate) fn damaged_places(group: GroupId, places: &Capped<WirePlace, STREAMS_MAX>) -> Bytes {
    MessageWriter::new(DAMAGED, group, places.0.len() * 32).with(places).finish()
}

pub(crate) fn show(group: GroupId, show: &Show) -> Bytes {
    MessageWriter::new(SHOW, group, 32).with(show).finish()
}

pub(crate) fn shown(group: GroupId, shown: &Shown) -> Bytes {
    let entry = shown.row.as_ref().map_or(0, |row| row.entry.len());
    MessageWriter::new(SHOWN, group, 96 + entry).with(shown).finish()
}

/// The first message of `frame` if it is a hello, with the group that it names, whichever that is.
pub(crate) fn greeting(frame: &Bytes, frame_bytes_max: usize) -> Result<Option<(GroupId, Hello)>, WireError> {
    let mut messages = Messages::new(frame.clone(), None, frame_bytes_max)?;
    let (kind, group, body) = messages.split()?;
    match group {
        Some(group) if kind == HELLO => Ok(Some((group, whole(&body)?))),
        _ => Ok(None),
    }
}

/// Reads all messages of `frame`, whatever group it is of; says how many there are. For fuzzing.
#[cfg(feature = "internals-for-tests")]
pub(crate) fn count_messages(frame: &[u8]) -> usize {
    let messages = Messages::new(Bytes::copy_from_slice(frame), None, usize::MAX);
    messages.map_or(0, |messages| messages.filter(Result::is_ok).count())
}

/// The kinds and bodies of the messages of `frame`, up to the first that is damaged. For fuzzing.
#[cfg(feature = "internals-for-tests")]
pub(crate) fn split(frame: &[u8]) -> Vec<(u8, Bytes)> {
    let messages = Messages::new(Bytes::copy_from_slice(frame), None, usize::MAX);
    let parts = messages.map(|mut messages| std::iter::from_fn(move || messages.split().ok()));
    parts.into_iter().flatten().map(|(kind, _, body)| (kind, body)).collect()
}

impl Messages {
    fn message(&mut self) -> Result<Option<Message>, WireError> {
        let (kind, _, mut body) = self.split()?;
        Ok(match kind {
            HELLO => Some(Message::Hello(whole(&body)?)),
            STRANGER if body.is_empty() => Some(Message::Stranger),
            STRANGER => return Err(LEFT_OVER),
            PULL => Some(Message::Pull(whole(&body)?)),
            PAGE => {
                let (head, rest) = postcard::take_from_bytes(&body).map_err(damaged)?;
                let commits = body.len() - rest.len();
                let packed = Packed::read_page(&body.split_off(commits), self.room)?;
                self.room = self.room.saturating_sub(packed.bytes());
                Some(Message::Page(head, packed))
            }
            LIVE => Some(Message::Live(Packed::read_live(&body)?)),
            ACK => Some(Message::Ack(whole(&body)?)),
            REGRESSED => Some(Message::Regressed(whole(&body)?)),
            STOPPED => Some(Message::Stopped(whole(&body)?)),
            OTHER_GROUP if body.is_empty() => Some(Message::OtherGroup),
            OTHER_GROUP => return Err(LEFT_OVER),
            RELAYED => Some(Message::Relayed(whole(&body)?)),
            COMING => Some(Message::Coming(whole(&body)?)),
            PULL_ON => Some(Message::PullOn(whole(&body)?)),
            DAMAGED => Some(Message::Damaged(whole(&body)?)),
            SHOW => Some(Message::Show(whole(&body)?)),
            SHOWN => Some(Message::Shown(whole(&body)?)),
            SNAPSHOT_PULL => Some(Message::SnapshotPull(whole(&body)?)),
            SNAPSHOT_PAGE => {
                let (head, rest) = postcard::take_from_bytes(&body).map_err(damaged)?;
                let at = body.len() - rest.len();
                let rows = Rows::read(&body.split_off(at), self.room)?;
                self.room = self.room.saturating_sub(rows.bytes());
                Some(Message::SnapshotPage(head, rows))
            }
            // Kinds that no version sends yet are skipped like those that are not known.
            EPHEMERAL => None,
            _ => None,
        })
    }
}

/// Yields the messages of known kinds. After an error there are no more.
impl Iterator for Messages {
    type Item = Result<Message, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.message() {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                Err(error) => {
                    self.rest.clear();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

const LEFT_OVER: WireError = WireError::Body("bytes are left over");

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` passes")]
pub(crate) fn damaged(error: postcard::Error) -> WireError {
    match error {
        postcard::Error::DeserializeUnexpectedEnd => WireError::Body("it ends before it should"),
        postcard::Error::SerdeDeCustom => WireError::Body("it has more elements than it may"),
        _ => WireError::Body("a field is out of range"),
    }
}

/// Reads all of `body`.
fn whole<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(damaged)?;
    if rest.is_empty() { Ok(value) } else { Err(LEFT_OVER) }
}
