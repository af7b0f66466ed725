//! Goal: Y13, messages stay readable, and no bytes do harm. Method: golden bytes, cuts, flips and counts by hand,
//! random bytes.

use proptest::prelude::*;
use uuid::Uuid;

use bytes::Bytes;

use super::commits::*;
use super::frame::*;
use super::message::*;
use super::stopped::Stopped;
use crate::clock::WallMs;
use crate::events::StreamStop;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};

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

/// One message of every kind, each with its bytes.
fn examples() -> Vec<(Message, Bytes)> {
    let heads = Capped(vec![head(1), head(2)]);
    let clock = WireClock { wall: Some(300), sent: 5, heard: Some(6) };
    let stop =
        StreamStop::Held { seq: 300, stamp: Hlc::from_time_bytes([0, 0, 0, 0, 0, 0, 1, 44], replica(1)) };
    let held = Stopped::new(&stop, None);
    let stop = StreamStop::Refused { seq: 2, reason: "no".into() };
    let refused = Stopped::new(&stop, WallMs::new(300).ok());
    let word = Relayed { member: replica(8), seq: 300, restored: true };
    let hello_ = Hello {
        session: 7,
        features: 300,
        restored: true,
        clock,
        knocks: None,
        unheard: Capped(vec![replica(8)]),
        relayed: Capped(vec![word]),
        heads: heads.clone(),
    };
    let knock = Hello {
        knocks: Some(DeviceId(Uuid::from_u128(6))),
        unheard: Capped(Vec::new()),
        relayed: Capped(Vec::new()),
        heads: Capped(Vec::new()),
        ..hello_.clone()
    };
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
    let places = Capped(vec![WirePlace { stream: replica(8), seq: 300 }]);
    let show_ = Show { stream: replica(8), seq: 300, checked: true };
    let row = WireRow { previous: [0xbb; 32], entry: b"entry".to_vec() };
    let shown_ = Shown { stream: replica(8), seq: 300, head: 301, row: Some(row) };
    let (first, second) = (commit(b"entry", b"values"), commit(b"other", b""));
    vec![
        (Message::Hello(hello_.clone()), hello(GROUP, &hello_)),
        (Message::Stranger, stranger(GROUP)),
        (Message::Pull(pull_.clone()), pull(GROUP, &pull_)),
        (Message::Page(page_head, vec![first, second]), page.finish()),
        (Message::Live(vec![commit(b"entry", b"values")]), live.finish()),
        (Message::Ack(heads.clone()), ack(GROUP, &heads)),
        (Message::Regressed(head(1)), regressed(GROUP, &head(1))),
        (Message::Stopped(held.clone()), stopped(GROUP, &held)),
        (Message::Stopped(refused.clone()), stopped(GROUP, &refused)),
        (Message::OtherGroup, other_group(GROUP)),
        (Message::Relayed(Capped(vec![word])), relayed(GROUP, &Capped(vec![word]))),
        (Message::Hello(knock.clone()), hello(GROUP, &knock)),
        (Message::Damaged(places.clone()), damaged_places(GROUP, &places)),
        (Message::Show(show_), show(GROUP, &show_)),
        (Message::Shown(shown_.clone()), shown(GROUP, &shown_)),
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
    let words = [&[1, 16][..], &8u128.to_be_bytes(), &[0xac, 2, 1]].concat();
    let commit = |rest: &[u8]| [&[16][..], &3u128.to_be_bytes(), &[5], &[0xbb; 32], rest].concat();
    let bodies = [
        (
            HELLO,
            [&[7, 0xac, 2, 1, 1, 0xac, 2, 5, 1, 6, 0, 1, 16][..], &8u128.to_be_bytes(), &words, &heads]
                .concat(),
        ),
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
        (STOPPED, vec![0xac, 2, 1, 1, 0xac, 2, 0, 0]),
        (STOPPED, vec![2, 3, 0, 1, 0xac, 2, 2, b'n', b'o']),
        (OTHER_GROUP, vec![]),
        (RELAYED, words.clone()),
        (
            HELLO,
            [&[7, 0xac, 2, 1, 1, 0xac, 2, 5, 1, 6, 1, 16][..], &6u128.to_be_bytes(), &[0, 0, 0]].concat(),
        ),
        (DAMAGED, [&[1, 16][..], &8u128.to_be_bytes(), &[0xac, 2]].concat()),
        (SHOW, [&[16][..], &8u128.to_be_bytes(), &[0xac, 2, 1]].concat()),
        (
            SHOWN,
            [&[16][..], &8u128.to_be_bytes(), &[0xac, 2, 0xad, 2, 1], &[0xbb; 32], b"\x05entry"].concat(),
        ),
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
        // A cut is noticed also if the length was made to fit.
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
    let mut claims = MessageWriter::new(ACK, GROUP, 0);
    claims.0.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(matches!(read(&claims.finish())[..], [Err(WireError::Body(_))]));
    // One head more than there may be, all of them there.
    let heads = Capped((0..=STREAMS_MAX).map(|n| head(n as u128)).collect());
    assert!(matches!(read(&ack(GROUP, &heads))[..], [Err(WireError::Body(_))]));
    // An entry that claims more bytes than are left.
    let mut live = MessageWriter::live(GROUP);
    live.push(&parts(b"", b""));
    let mut bytes = live.finish().to_vec();
    let entry = bytes.len() - 2;
    bytes.splice(entry.., [0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(matches!(read(&sealed(&bytes))[..], [Err(WireError::Body(_))]));
}

proptest! {
    #[test]
    fn no_bytes_panic(which in 0..15usize, cut in 0..400usize, at in 0..400usize, byte: u8, garbage: Vec<u8>) {
        let (_, bytes) = examples().remove(which);
        let mut bytes = bytes.to_vec();
        bytes.truncate(cut);
        if let Some(old) = bytes.get_mut(at) {
            *old = byte;
        }
        read(&bytes);
        read(&garbage);
        // Random bytes behind a checksum that fits do no harm either.
        if bytes.len() >= HEADER_LEN {
            read(&sealed(&bytes));
        }
        read(&sealed(&[&stranger(GROUP)[..], &garbage].concat()));
    }
}
