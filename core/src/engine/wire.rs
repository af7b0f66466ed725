//! Frames: what replicas say to each other, as bytes.
//!
//! A transport frame holds one or more messages: magic, protocol version, kind, length, group and checksum, then a body
//! of that length in postcard. The checksum is there because a damaged digest would otherwise look like a stream with
//! two histories, which stops it. A kind that is not known is skipped by its length, so later versions can add kinds. Bodies are
//! structs whose fields only ever grow at the end of a new kind; golden bytes in the tests hold them.
//!
//! Bytes come from anybody. Nothing is taken from a length or a count before it was checked against what is there and
//! against its cap, nothing here nests, and no element is without bytes. Commits follow each other to the end of a
//! body without a count, each with its entry as its author wrote it and its values in one piece, which are cut where
//! the entry says how long each is.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, ReplicaId};
use crate::stored::{Digest, Point};

/// The first bytes of every message.
const MAGIC: [u8; 4] = *b"SYNL";
/// The version of the protocol. A higher one is another protocol: what can be added to this one is a kind.
pub(super) const VERSION: u16 = 1;
/// Magic, version, kind, length, group, checksum.
pub(super) const HEADER_LEN: usize = 4 + 2 + 1 + 4 + 16 + CHECKSUM_LEN;
/// The first bytes of the hash of everything else in the message.
const CHECKSUM_LEN: usize = 8;

const HELLO: u8 = 1;
const STRANGER: u8 = 2;
const PULL: u8 = 3;
const PAGE: u8 = 4;
const LIVE: u8 = 5;
const ACK: u8 = 6;
const REGRESSED: u8 = 7;

/// The most streams that a message may name. The members of a group are fewer.
pub(super) const STREAMS_MAX: usize = 4096;

/// What one replica says to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    Hello(Hello),
    /// The one who said hello is no member here.
    Stranger,
    Pull(Pull),
    /// What answers a pull.
    Page(PageHead, Vec<WireCommit>),
    /// What was just committed.
    Live(Vec<WireCommit>),
    Ack(Heads),
    /// The receiver once acknowledged more of this stream than it has now.
    Regressed(WireHead),
}

/// Said when a peer comes up, when a new session of it says hello, and now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Drawn at every opening of a store.
    pub(super) session: u64,
    /// Whether the sender knows that it was restored from a backup or cloned, so that nothing it acknowledges counts.
    pub(super) restored: bool,
    pub(super) heads: Heads,
}

/// Asks for the commits behind `heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pull {
    /// Names the page that answers it.
    pub(super) id: u32,
    /// How many bytes of commits the page may have; a single commit always fits.
    pub(super) budget: u32,
    /// The longest frame that the puller takes.
    pub(super) frame_bytes: u32,
    pub(super) heads: Heads,
    /// Streams of which nothing is wanted, and so nothing that rests on it.
    pub(super) excluded: Capped<ReplicaId, STREAMS_MAX>,
}

/// What a page says before its commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PageHead {
    pub(super) id: u32,
    /// Whether there was more than fitted.
    pub(super) more: bool,
    /// Whether a log here begins behind what the puller has, so that the rest needs a snapshot.
    pub(super) pruned: bool,
    /// A commit that is longer than the puller takes, so that nothing of its stream comes.
    pub(super) too_long: Option<TooLong>,
}

/// A commit that does not fit into the frames of the one who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TooLong {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    /// What it takes on its way, at most.
    pub(super) bytes: u64,
}

/// What a page takes beside its commits, at most.
pub(super) const PAGE_BYTES: usize = HEADER_LEN + 64;

pub(super) type Heads = Capped<WireHead, STREAMS_MAX>;

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WireHead {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    pub(super) digest: Digest,
}

impl WireHead {
    pub(super) const fn point(&self) -> Point {
        Point { seq: self.seq, digest: self.digest }
    }
}

/// A commit on its way. Its bytes share the memory of their frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WireCommit {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    /// The digest of the stream before it.
    pub(super) previous: Digest,
    /// The log entry, as its author wrote it.
    pub(super) entry: Bytes,
    /// The values of its puts, one after the other.
    pub(super) values: Bytes,
}

#[derive(Serialize, Deserialize)]
struct CommitBody<'a> {
    stream: ReplicaId,
    seq: u64,
    previous: Digest,
    #[serde(with = "serde_bytes")]
    entry: &'a [u8],
    #[serde(with = "serde_bytes")]
    values: &'a [u8],
}

/// At most `MAX` elements. What claims more is refused before anything is taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Capped<T, const MAX: usize>(pub(super) Vec<T>);

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

/// Why bytes are no frame of this group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("it is longer than `Limits::frame_bytes_max`")]
    TooLong,
    #[error("it does not begin as a frame does")]
    Magic,
    #[error("it is of version {0} of the protocol, this is version {VERSION}; update the app")]
    Version(u16),
    #[error("it ends before it should")]
    CutShort,
    #[error("it is of group {0}")]
    Group(GroupId),
    #[error("it was damaged on its way")]
    Checksum,
    #[error("its content is damaged: {0}")]
    Body(&'static str),
}

/// Writes one message.
pub(super) struct MessageWriter(Vec<u8>);

impl MessageWriter {
    fn new(kind: u8, group: GroupId, room: usize) -> Self {
        let mut out = Vec::with_capacity(HEADER_LEN + room);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(group.as_bytes());
        out.extend_from_slice(&[0; CHECKSUM_LEN]);
        Self(out)
    }

    pub(super) fn live(group: GroupId) -> Self {
        Self::new(LIVE, group, 512)
    }

    pub(super) fn page(group: GroupId, head: &PageHead, room: usize) -> Self {
        Self::new(PAGE, group, room + PAGE_BYTES).with(head)
    }

    /// Appends a part of the body.
    fn with(self, part: &impl Serialize) -> Self {
        let Self(out) = self;
        // The types are ours and hold nothing that could fail to encode, and memory is all it takes.
        Self(postcard::to_extend(part, out).unwrap_or_default())
    }

    pub(super) fn push(&mut self, commit: &CommitParts<'_>) {
        let CommitParts { stream, seq, previous, entry, values } = *commit;
        let body = CommitBody { stream, seq, previous: *previous, entry, values };
        *self = Self(std::mem::take(&mut self.0)).with(&body);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(self) -> Bytes {
        let Self(mut out) = self;
        let len = u32::try_from(out.len().saturating_sub(HEADER_LEN)).unwrap_or(u32::MAX);
        if let Some(room) = out.get_mut(7..11) {
            room.copy_from_slice(&len.to_be_bytes());
        }
        let head_len = HEADER_LEN.min(out.len());
        let (head, body) = out.split_at_mut(head_len);
        if let Some((fields, room)) = head.split_last_chunk_mut::<CHECKSUM_LEN>() {
            *room = checksum(fields, body);
        }
        out.into()
    }
}

fn checksum(fields: &[u8], body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(fields);
    hasher.update(body);
    let mut sum = [0; CHECKSUM_LEN];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

impl fmt::Debug for MessageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageWriter({} bytes)", self.len())
    }
}

/// A commit as it is written into a message.
#[derive(Clone, Copy)]
pub(super) struct CommitParts<'a> {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    pub(super) previous: &'a Digest,
    pub(super) entry: &'a [u8],
    pub(super) values: &'a [u8],
}

pub(super) fn hello(group: GroupId, hello: &Hello) -> Bytes {
    MessageWriter::new(HELLO, group, 64 + hello.heads.0.len() * 64).with(hello).finish()
}

pub(super) fn stranger(group: GroupId) -> Bytes {
    MessageWriter::new(STRANGER, group, 0).finish()
}

pub(super) fn pull(group: GroupId, pull: &Pull) -> Bytes {
    MessageWriter::new(PULL, group, 64 + pull.heads.0.len() * 64).with(pull).finish()
}

pub(super) fn ack(group: GroupId, heads: &Heads) -> Bytes {
    MessageWriter::new(ACK, group, heads.0.len() * 64).with(heads).finish()
}

pub(super) fn regressed(group: GroupId, head: &WireHead) -> Bytes {
    MessageWriter::new(REGRESSED, group, 64).with(head).finish()
}

/// A message of any kind and body, for tests that make up what no replica sends.
#[cfg(any(test, feature = "internals-for-tests"))]
pub(crate) fn sealed(group: GroupId, kind: u8, body: &[u8]) -> Bytes {
    let mut message = MessageWriter::new(kind, group, body.len());
    message.0.extend_from_slice(body);
    message.finish()
}

/// Whether the first message of `frame` is a hello of `group`. Its body is not read.
pub(super) fn is_hello(frame: &Bytes, group: GroupId, frame_bytes_max: usize) -> Result<bool, WireError> {
    let mut messages = Messages::new(frame.clone(), Some(group), frame_bytes_max)?;
    messages.split().map(|(kind, _)| kind == HELLO)
}

/// Reads all messages of `frame`, whatever group it is of; says how many there are. For fuzzing.
#[cfg(feature = "internals-for-tests")]
pub(crate) fn count_messages(frame: &[u8]) -> usize {
    let messages = Messages::new(Bytes::copy_from_slice(frame), None, usize::MAX);
    messages.map_or(0, |messages| messages.filter(Result::is_ok).count())
}

/// Reads the messages of a frame one by one.
#[derive(Debug)]
pub(super) struct Messages {
    rest: Bytes,
    group: Option<GroupId>,
}

impl Messages {
    /// The messages of `frame`, all of which must be of `group`, if one is given.
    pub(super) fn new(
        frame: Bytes,
        group: Option<GroupId>,
        frame_bytes_max: usize,
    ) -> Result<Self, WireError> {
        if frame.len() > frame_bytes_max {
            return Err(WireError::TooLong);
        }
        Ok(Self { rest: frame, group })
    }

    /// Takes the next message off the frame: its kind and its body.
    fn split(&mut self) -> Result<(u8, Bytes), WireError> {
        let bytes = self.rest.as_ref();
        let (magic, bytes) = bytes.split_first_chunk::<4>().ok_or(WireError::CutShort)?;
        let (version, bytes) = bytes.split_first_chunk::<2>().ok_or(WireError::CutShort)?;
        let (kind, bytes) = bytes.split_first().ok_or(WireError::CutShort)?;
        let (len, bytes) = bytes.split_first_chunk::<4>().ok_or(WireError::CutShort)?;
        let (group, bytes) = bytes.split_first_chunk::<16>().ok_or(WireError::CutShort)?;
        let (sum, body) = bytes.split_first_chunk::<CHECKSUM_LEN>().ok_or(WireError::CutShort)?;
        if *magic != MAGIC {
            return Err(WireError::Magic);
        }
        let version = u16::from_be_bytes(*version);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let group = GroupId::from_bytes(*group);
        if self.group.is_some_and(|ours| ours != group) {
            return Err(WireError::Group(group));
        }
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| WireError::CutShort)?;
        let body = body.get(..len).ok_or(WireError::CutShort)?;
        let fields = self.rest.get(..HEADER_LEN - CHECKSUM_LEN).unwrap_or_default();
        if checksum(fields, body) != *sum {
            return Err(WireError::Checksum);
        }
        let kind = *kind;
        let mut body = self.rest.split_off(HEADER_LEN);
        self.rest = body.split_off(len);
        Ok((kind, body))
    }

    fn message(&mut self) -> Result<Option<Message>, WireError> {
        let (kind, mut body) = self.split()?;
        Ok(match kind {
            HELLO => Some(Message::Hello(whole(&body)?)),
            STRANGER if body.is_empty() => Some(Message::Stranger),
            STRANGER => return Err(LEFT_OVER),
            PULL => Some(Message::Pull(whole(&body)?)),
            PAGE => {
                let (head, rest) = postcard::take_from_bytes(&body).map_err(damaged)?;
                let commits = body.len() - rest.len();
                Some(Message::Page(head, commits_of(&body.split_off(commits))?))
            }
            LIVE => Some(Message::Live(commits_of(&body)?)),
            ACK => Some(Message::Ack(whole(&body)?)),
            REGRESSED => Some(Message::Regressed(whole(&body)?)),
            _ => None,
        })
    }
}

/// Those of a kind that is known. Nothing follows an error.
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
fn damaged(error: postcard::Error) -> WireError {
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

/// Reads the commits that fill `bytes`.
fn commits_of(bytes: &Bytes) -> Result<Vec<WireCommit>, WireError> {
    let mut commits = Vec::new();
    let mut rest = bytes.as_ref();
    while !rest.is_empty() {
        let (body, behind) = postcard::take_from_bytes::<CommitBody<'_>>(rest).map_err(damaged)?;
        let CommitBody { stream, seq, previous, entry, values } = body;
        let (entry, values) = (bytes.slice_ref(entry), bytes.slice_ref(values));
        commits.push(WireCommit { stream, seq, previous, entry, values });
        rest = behind;
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    //! Goal: Y13, what is written stays readable, and no bytes do harm. Method: golden bytes, cuts, flips and
    //! counts by hand, random bytes.

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const GROUP: GroupId = GroupId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
    const FRAME_MAX: usize = 1 << 20;

    fn replica(n: u128) -> ReplicaId {
        ReplicaId(Uuid::from_u128(n))
    }

    fn head(n: u128) -> WireHead {
        WireHead { stream: replica(n), seq: 300, digest: [0xaa; 32] }
    }

    fn parts<'a>(entry: &'a [u8], values: &'a [u8]) -> CommitParts<'a> {
        CommitParts { stream: replica(3), seq: 5, previous: &[0xbb; 32], entry, values }
    }

    /// One message of every kind, with what is said.
    fn examples() -> Vec<(Message, Bytes)> {
        let heads = Capped(vec![head(1), head(2)]);
        let hello_ = Hello { session: 7, restored: true, heads: heads.clone() };
        let pull_ = Pull {
            id: 9,
            budget: 1 << 20,
            frame_bytes: 300,
            heads: heads.clone(),
            excluded: Capped(vec![replica(4)]),
        };
        let too_long = Some(TooLong { stream: replica(2), seq: 6, bytes: 300 });
        let page_head = PageHead { id: 9, more: true, pruned: false, too_long };
        let mut page = MessageWriter::page(GROUP, &page_head, 10);
        let mut live = MessageWriter::live(GROUP);
        page.push(&parts(b"entry", b"values"));
        page.push(&parts(b"other", b""));
        live.push(&parts(b"entry", b"values"));
        let commit = |entry: &'static [u8], values: &'static [u8]| WireCommit {
            stream: replica(3),
            seq: 5,
            previous: [0xbb; 32],
            entry: entry.into(),
            values: values.into(),
        };
        let (first, second) = (commit(b"entry", b"values"), commit(b"other", b""));
        vec![
            (Message::Hello(hello_.clone()), hello(GROUP, &hello_)),
            (Message::Stranger, stranger(GROUP)),
            (Message::Pull(pull_.clone()), pull(GROUP, &pull_)),
            (Message::Page(page_head, vec![first, second]), page.finish()),
            (Message::Live(vec![commit(b"entry", b"values")]), live.finish()),
            (Message::Ack(heads.clone()), ack(GROUP, &heads)),
            (Message::Regressed(head(1)), regressed(GROUP, &head(1))),
        ]
    }

    fn read(bytes: &[u8]) -> Vec<Result<Message, WireError>> {
        Messages::new(Bytes::copy_from_slice(bytes), Some(GROUP), FRAME_MAX).unwrap().collect()
    }

    #[test]
    fn y13_golden_bytes() {
        let header = |kind: u8, len: u8| {
            let mut bytes = b"SYNL\0\x01".to_vec();
            bytes.extend([kind, 0, 0, 0, len]);
            bytes.extend(1..=16);
            bytes
        };
        let head = |n: u128| [&[16][..], &n.to_be_bytes(), &[0xac, 2], &[0xaa; 32]].concat();
        let heads = [&[2][..], &head(1), &head(2)].concat();
        let commit = |rest: &[u8]| [&[16][..], &3u128.to_be_bytes(), &[5], &[0xbb; 32], rest].concat();
        let bodies = [
            (HELLO, [&[7, 1][..], &heads].concat()),
            (STRANGER, vec![]),
            (PULL, [&[9, 0x80, 0x80, 0x40, 0xac, 2][..], &heads, &[1, 16], &4u128.to_be_bytes()].concat()),
            (
                PAGE,
                [
                    &[9, 1, 0, 1, 16][..],
                    &2u128.to_be_bytes(),
                    &[6, 0xac, 2],
                    &commit(b"\x05entry\x06values"),
                    &commit(b"\x05other\x00"),
                ]
                .concat(),
            ),
            (LIVE, commit(b"\x05entry\x06values")),
            (ACK, heads.clone()),
            (REGRESSED, head(1)),
        ];
        for ((message, bytes), (kind, body)) in examples().into_iter().zip(bodies) {
            let fields = header(kind, u8::try_from(body.len()).unwrap());
            let sum = &blake3::hash(&[&fields[..], &body].concat()).as_bytes()[..8].to_vec();
            let golden = [&fields[..], sum, &body].concat();
            assert_eq!(bytes, golden, "{message:?}");
            assert_eq!(read(&golden), [Ok(message)]);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for (message, bytes) in examples() {
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut bytes = bytes.to_vec();
                    bytes[at] ^= 1 << bit;
                    assert!(matches!(read(&bytes)[..], [Err(_)]), "{message:?}: bit {bit} of byte {at}");
                }
            }
        }
    }

    /// `bytes` with a length and a checksum that fit.
    fn sealed(bytes: &[u8]) -> Bytes {
        MessageWriter(bytes.to_vec()).finish()
    }

    #[test]
    fn y13_unknown_kinds_are_skipped_by_their_length() {
        let unknown = MessageWriter(MessageWriter::new(99, GROUP, 0).0).with(&[1u8, 2, 3]).finish();
        let frame = [&unknown[..], &stranger(GROUP), &unknown].concat();
        assert_eq!(read(&frame), [Ok(Message::Stranger)]);
    }

    #[test]
    fn frames_of_others_are_named() {
        let (_, hello) = examples().remove(0);
        let mut version = hello.to_vec();
        version[5] = 2;
        assert_eq!(read(&version), [Err(WireError::Version(2))]);
        let other = GroupId(Uuid::nil());
        assert_eq!(read(&stranger(other)), [Err(WireError::Group(other))]);
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), [Err(WireError::Magic)]);
        assert!(matches!(Messages::new(hello, Some(GROUP), 10), Err(WireError::TooLong)));
    }

    #[test]
    fn every_cut_is_noticed() {
        for (message, bytes) in examples() {
            for len in 1..bytes.len() {
                assert!(matches!(read(&bytes[..len])[..], [Err(_)]), "{message:?} cut to {len}");
            }
            // Also if the length was made to fit.
            for cut in 1..bytes.len() - HEADER_LEN {
                let read = read(&sealed(&bytes[..bytes.len() - cut]));
                // A page or a live message may end between two commits.
                let whole = matches!(&read[..], [Ok(Message::Page(..) | Message::Live(_))]);
                assert!(whole || matches!(read[..], [Err(WireError::Body(_))]), "{read:?}");
            }
        }
    }

    #[test]
    fn counts_beyond_their_caps_take_no_memory() {
        // 2^35 - 1 streams, in a message of a few bytes.
        let mut ack = MessageWriter::new(ACK, GROUP, 0);
        ack.0.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(read(&ack.finish())[..], [Err(WireError::Body(_))]));
        // One more than there may be, all of them there.
        let heads = Capped((0..=STREAMS_MAX).map(|n| head(n as u128)).collect());
        assert!(matches!(read(&super::ack(GROUP, &heads))[..], [Err(WireError::Body(_))]));
        // An entry that claims more bytes than follow.
        let mut live = MessageWriter::live(GROUP);
        live.push(&parts(b"", b""));
        let mut bytes = live.finish().to_vec();
        let entry = bytes.len() - 2;
        bytes.splice(entry.., [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(matches!(read(&sealed(&bytes))[..], [Err(WireError::Body(_))]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(which in 0..7usize, cut in 0..400usize, at in 0..400usize, byte: u8, garbage: Vec<u8>) {
            let (_, bytes) = examples().remove(which);
            let mut bytes = bytes.to_vec();
            bytes.truncate(cut);
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
            read(&bytes);
            read(&garbage);
            // Behind the checksum too.
            if bytes.len() >= HEADER_LEN {
                read(&sealed(&bytes));
            }
            read(&sealed(&[&stranger(GROUP)[..], &garbage].concat()));
        }
    }
}
