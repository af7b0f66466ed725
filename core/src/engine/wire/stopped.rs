//! The word of a peer that it takes no more of the receiver's stream: at which commit, and why.
//!
//! The reason is a number and words, and neither decides anything at the receiver. So a later version can add a reason:
//! a number that is not known here is a refusal in the words that came with it.

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::clock::WallMs;
use crate::events::StreamStop;
use crate::hlc::Hlc;
use crate::ids::ReplicaId;

const HELD: u8 = 1;
const NOT_STORED: u8 = 2;
const REFUSED: u8 = 3;
const FORKED: u8 = 4;

/// The most bytes of words that a message has.
pub(crate) const WORDS_BYTES_MAX: usize = 256;

/// Tells the author of a stream that the sender takes no more of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// The commit at which the stream stops.
    pub(crate) seq: u64,
    /// The number of the reason.
    pub(crate) why: u8,
    /// Time and counter of the stamp that the sender holds, as eight bytes.
    pub(crate) stamp: Option<u64>,
    /// The wall clock of the sender, in milliseconds since 1970; `None` if it fails.
    pub(crate) wall: Option<u64>,
    /// The error or the rule, in words for a person.
    pub(crate) words: Words,
}

/// Words for a person, [`WORDS_BYTES_MAX`] bytes at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Words(String);

impl Words {
    /// As many of the words as a message may have.
    fn cut(words: &str) -> Self {
        let ends = words.char_indices().map(|(at, char)| at + char.len_utf8());
        let len = ends.take_while(|end| *end <= WORDS_BYTES_MAX).last().unwrap_or(0);
        Self(words.get(..len).unwrap_or_default().into())
    }

    /// The words without characters that could move the cursor of the one who prints them.
    fn printable(&self) -> String {
        self.0.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Borrow the words from the frame first: a length beyond the cap takes no memory.
        let words = <&'de str>::deserialize(deserializer)?;
        if words.len() > WORDS_BYTES_MAX {
            return Err(D::Error::custom("it has more words than it may"));
        }
        Ok(Self(words.into()))
    }
}

impl Stopped {
    /// The message about a stop here, where the wall clock shows `wall`.
    pub(crate) fn new(stop: &StreamStop, wall: Option<WallMs>) -> Self {
        let (why, stamp, words) = match stop {
            StreamStop::Held { stamp, .. } => (HELD, Some(u64::from_be_bytes(stamp.time_bytes())), ""),
            StreamStop::NotStored { error, .. } => (NOT_STORED, None, error.as_str()),
            StreamStop::Refused { reason, .. } => (REFUSED, None, reason.as_str()),
            StreamStop::Forked { .. } => (FORKED, None, ""),
        };
        Self { seq: stop.seq(), why, stamp, wall: wall.map(WallMs::get), words: Words::cut(words) }
    }

    /// The stop of the stream of `author` at the sender.
    pub(crate) fn stop(&self, author: ReplicaId) -> StreamStop {
        let seq = self.seq;
        match (self.why, self.stamp) {
            (HELD, Some(time)) => {
                StreamStop::Held { seq, stamp: Hlc::from_time_bytes(time.to_be_bytes(), author) }
            }
            (NOT_STORED, _) => StreamStop::NotStored { seq, error: self.words.printable() },
            (FORKED, _) => StreamStop::Forked { seq },
            _ => StreamStop::Refused { seq, reason: self.words.printable() },
        }
    }

    /// The wall clock of the sender; `None` if it fails, or shows what no clock can show.
    pub(crate) fn clock(&self) -> Option<WallMs> {
        self.wall.and_then(|ms| WallMs::new(ms).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{B, stamp};
    use super::*;

    fn refused(reason: &str) -> StreamStop {
        StreamStop::Refused { seq: 7, reason: reason.into() }
    }

    #[test]
    fn the_author_learns_each_reason_as_it_is_at_the_peer() {
        let stops = [
            StreamStop::Held { seq: 7, stamp: stamp(4_000_000, B) },
            StreamStop::NotStored { seq: 7, error: "the disk is full".into() },
            refused("it is too long"),
            StreamStop::Forked { seq: 7 },
        ];
        for stop in stops {
            let told = Stopped::new(&stop, WallMs::new(9).ok());
            assert_eq!((told.stop(B), told.clock()), (stop, WallMs::new(9).ok()));
        }
    }

    #[test]
    fn a_reason_that_is_not_known_is_a_refusal_in_its_own_words() {
        let told = Stopped { why: 99, ..Stopped::new(&refused("the moon is full"), None) };
        assert_eq!(told.stop(B), refused("the moon is full"));
        let held = StreamStop::Held { seq: 7, stamp: stamp(1, B) };
        let without_stamp = Stopped { stamp: None, ..Stopped::new(&held, None) };
        assert_eq!(without_stamp.stop(B), refused(""));
    }

    #[test]
    fn words_are_cut_between_characters_and_print_as_one_line() {
        for (words, len) in [("x".repeat(300), 256), ("é".repeat(200), 256), ("€".repeat(100), 255)] {
            let told = Stopped::new(&refused(&words), None).stop(B);
            assert_eq!(told, refused(&words[..len]));
        }
        assert_eq!(Stopped::new(&refused("a\n\u{1b}[2Jb"), None).stop(B), refused("a  [2Jb"));
    }

    /// Bytes of a peer: whatever they claim, they are read within the cap or refused.
    #[test]
    fn more_words_than_a_message_may_have_are_refused() {
        let told = |words: String| Stopped { words: Words(words), ..Stopped::new(&refused(""), None) };
        for (len, taken) in [(256, true), (257, false), (100_000, false)] {
            let bytes = postcard::to_allocvec(&told("x".repeat(len))).unwrap();
            assert_eq!(postcard::from_bytes::<Stopped>(&bytes).is_ok(), taken, "{len}");
        }
        let no_words = [7, 3, 0, 0, 2, 0xff, 0xfe];
        assert!(postcard::from_bytes::<Stopped>(&no_words).is_err(), "not UTF-8");
    }

    #[test]
    fn a_clock_that_cannot_be_is_none() {
        let told = Stopped { wall: Some(u64::MAX), ..Stopped::new(&refused(""), None) };
        assert_eq!(told.clock(), None);
    }
}
