//! Goal: Y13, messages stay readable, and no bytes do harm. Method: golden bytes, cuts, flips and counts by hand,
//! random bytes.

use proptest::prelude::*;
use uuid::Uuid;

use bytes::Bytes;

use super::super::made::{Author, B, C, GROUP as GROUP_OF_MADE, ME, device, note, stamp};
use super::commits::*;
use super::frame::*;
use super::message::*;
use super::numbers::put_number;
use super::snapshot::*;
use super::stopped::Stopped;
use crate::clock::WallMs;
use crate::events::RecordKey;
use crate::events::StreamStop;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::stored::log::{DELETE, chain, chain_start};
use crate::stored::{Digest, Head};

const GROUP: GroupId = GroupId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
const FRAME_MAX: usize = 1 << 20;

fn replica(n: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(n))
}

fn head(n: u128) -> WireHead {
    WireHead { stream: replica(n), seq: 300, digest: [0xaa; 32] }
}

/// The streams of the examples, and a live message and a page with commits of them.
fn commits() -> (Author, Bytes, Bytes, PageHead) {
    let (mut b, mut c) = (Author::new(B), Author::new(C));
    let of_c = c.commit(&[], vec![(note(7), None, None), (note(8), Some(b"eight".to_vec()), None)]);
    let epoch = stamp(1_000, C);
    let set = RecordKey::from_parts("set", None, b"s");
    let first = b.commit(&[(C, 1)], vec![(note(1), Some(b"hi".to_vec()), None)]);
    b.wall += 1_000;
    let second =
        b.commit(&[(C, 1), (ME, 300)], vec![(set, Some(vec![9; 130]), Some(epoch)), (note(2), None, None)]);
    let mut live = CommitsWriter::live(GROUP, B);
    live.push(&first.parts(&first.joined()));
    let too_long = Some(TooLong { stream: replica(2), seq: 6, bytes: 300 });
    let head = PageHead { id: 9, more: true, reach: Reach::Whole, too_long };
    let mut page = CommitsWriter::page(GROUP, C, &head, 10);
    for made in [&of_c, &first, &second] {
        page.push(&made.parts(&made.joined()));
    }
    (b, live.finish(), page.finish(), head)
}

fn packed(frame: &[u8]) -> Packed {
    match read(frame).remove(0).unwrap() {
        Message::Live(packed) | Message::Page(_, packed) => packed,
        other => panic!("{other:?}"),
    }
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
    let coming_ = Coming { id: 9, bytes: 300 };
    let on = PullOn { id: 10, behind: 9, budget: 300 };
    let places = Capped(vec![WirePlace { stream: replica(8), seq: 300 }]);
    let show_ = Show { stream: replica(8), seq: 300, checked: true };
    let row = WireRow { previous: [0xbb; 32], entry: Author::new(B).note(1, "shown").raw().to_vec() };
    let shown_ = Shown { stream: replica(8), seq: 300, head: 301, row: Some(row) };
    let (_, live, page, page_head) = commits();
    let pull_rows = SnapshotPull { id: 9, budget: 1 << 20, frame_bytes: 300, after: b"key".to_vec() };
    let first = WireStamped::of(replica(1), &Head { seq: 300, ..Head::start(GROUP, replica(1)) });
    let rows_head = SnapshotHead {
        id: 9,
        refusal: None,
        before: Capped(vec![first]),
        heads: Capped(vec![first]),
        forgotten: Capped(vec![WireForgotten::of("set", Hlc::from_time_bytes([0; 8], replica(1)))]),
        of: Some((3, 300)),
        more: true,
    };
    let refused_rows = SnapshotHead {
        refusal: Some(SnapshotRefusal::Damaged),
        before: Capped(Vec::new()),
        forgotten: Capped(Vec::new()),
        of: None,
        more: false,
        ..rows_head.clone()
    };
    let mut rows = RowsWriter::default();
    rows.push(b"key", b"value");
    let rows_page = rows.finish(GROUP, &rows_head);
    let no_rows = RowsWriter::default().finish(GROUP, &refused_rows);
    let rows_in = |page: &Bytes| match read(page).remove(0) {
        Ok(Message::SnapshotPage(_, rows)) => rows,
        other => panic!("{other:?} has no rows"),
    };
    vec![
        (Message::Hello(hello_.clone()), hello(GROUP, &hello_)),
        (Message::Stranger, stranger(GROUP)),
        (Message::Pull(pull_.clone()), pull(GROUP, &pull_)),
        (Message::Page(page_head, packed(&page)), page),
        (Message::Live(packed(&live)), live),
        (Message::Ack(heads.clone()), ack(GROUP, &heads)),
        (Message::Regressed(head(1)), regressed(GROUP, &head(1))),
        (Message::Stopped(held.clone()), stopped(GROUP, &held)),
        (Message::Stopped(refused.clone()), stopped(GROUP, &refused)),
        (Message::OtherGroup, other_group(GROUP)),
        (Message::Relayed(Capped(vec![word])), relayed(GROUP, &Capped(vec![word]))),
        (Message::Hello(knock.clone()), hello(GROUP, &knock)),
        (Message::Coming(coming_), coming(GROUP, &coming_)),
        (Message::PullOn(on), pull_on(GROUP, &on)),
        (Message::Damaged(places.clone()), damaged_places(GROUP, &places)),
        (Message::Show(show_), show(GROUP, &show_)),
        (Message::Shown(shown_.clone()), shown(GROUP, &shown_)),
        (Message::SnapshotPull(pull_rows.clone()), snapshot_pull(GROUP, &pull_rows)),
        (Message::SnapshotPage(rows_head, rows_in(&rows_page)), rows_page),
        (Message::SnapshotPage(refused_rows, rows_in(&no_rows)), no_rows),
    ]
}

fn read(bytes: &[u8]) -> Vec<Result<Message, WireError>> {
    Messages::new(Bytes::copy_from_slice(bytes), Some(GROUP), FRAME_MAX).unwrap().collect()
}

#[test]
fn y13_golden_bytes() {
    let (b, ..) = commits();
    let c = Author::new(C);
    let header =
        |kind: u8, len: usize| [&b"SYNL\0\x01"[..], &[kind, 0, 0, 0, u8::try_from(len).unwrap()]].concat();
    let head = |n: u128| [&[16][..], &n.to_be_bytes(), &[0xac, 2], &[0xaa; 32]].concat();
    let heads = [&[2][..], &head(1), &head(2)].concat();
    let words = [&[1, 16][..], &8u128.to_be_bytes(), &[0xac, 2, 1]].concat();
    let starts = [B, C].map(|stream| chain_start(GROUP_OF_MADE, stream));
    let first = {
        let first = Author::new(B).commit(&[(C, 1)], vec![(note(1), Some(b"hi".to_vec()), None)]);
        chain(&first.previous(), first.raw())
    };
    // A stamp of 1,000 ms, which is 2,000 with its sign in the lowest bit. The cause of B is C's first commit.
    let of_b = [&[2, 0xd0, 0x0f, 0, 1][..]].concat();
    let change = [&[0, 0, 4][..], b"note", &[1, 1, 1, 2], b"hi"].concat();
    let live = [
        &[1, 1, 1][..],
        &starts[0][..8],
        &first[..8],
        &[0],
        &of_b,
        &[0],
        C.as_bytes(),
        &[1],
        &[0; 8],
        &change,
    ]
    .concat();
    let (after_b, after_c) = (
        b.head.digest,
        c.clone().commit(&[], vec![(note(7), None, None), (note(8), Some(b"eight".to_vec()), None)]),
    );
    let after_c = chain(&after_c.previous(), after_c.raw());
    let page = [
        &[9, 1, 0, 1, 16][..],
        &2u128.to_be_bytes(),
        &[6, 0xac, 2],
        // Not compressed. Two runs: C's, who sends the page, and B's.
        &[0, 2, 3],
        device(C).as_bytes(),
        &[1],
        &starts[1],
        &after_c[..8],
        &[2],
        B.as_bytes(),
        device(B).as_bytes(),
        &[1],
        &starts[0],
        &after_b[..8],
        // C's commit of two changes: a delete, and a put of the same model.
        &[0, 3, 0xd0, 0x0f, 0, 0, 1, 0, 4],
        b"note",
        &[1, 7, 16, 1, 8, 1, 5],
        b"eight",
        // B's first commit, at the same millisecond, after the run 0.
        &[1, 2, 0, 0, 1, 1, 1],
        &[0; 8],
        &[0, 1, 1, 1, 1, 2],
        b"hi",
        // B's second commit, 1,001 ms later, after the run 0 and a stream that has no run here.
        &[1, 3, 0xd2, 0x0f, 0, 2, 1, 1],
        &[0; 8],
        &[0],
        ME.as_bytes(),
        &[0xac, 2],
        &[0; 8],
        &[12, 0, 3],
        b"set",
        &[1, b's'],
        &stamp(1_000, C).to_bytes(),
        &[1, 0x82, 1],
        &[1, 1, 1, 2],
        &[9; 130],
    ]
    .concat();
    let shown = Author::new(B).note(1, "shown");
    let entry: &[u8] = shown.raw();
    let bodies = [
        (
            HELLO,
            [&[7, 0xac, 2, 1, 1, 0xac, 2, 5, 1, 6, 0, 1, 16][..], &8u128.to_be_bytes(), &words, &heads]
                .concat(),
        ),
        (STRANGER, vec![]),
        (PULL, [&[9, 0x80, 0x80, 0x40, 0xac, 2][..], &heads, &[1, 16], &4u128.to_be_bytes()].concat()),
        (PAGE, page),
        (LIVE, live),
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
        (COMING, vec![9, 0xac, 2]),
        (PULL_ON, vec![10, 9, 0xac, 2]),
        (DAMAGED, [&[1, 16][..], &8u128.to_be_bytes(), &[0xac, 2]].concat()),
        (SHOW, [&[16][..], &8u128.to_be_bytes(), &[0xac, 2, 1]].concat()),
        (
            SHOWN,
            [&[16][..], &8u128.to_be_bytes(), &[0xac, 2, 0xad, 2, 1], &[0xbb; 32], &[78], entry].concat(),
        ),
    ];
    for ((message, bytes), (kind, body)) in examples().into_iter().zip(bodies) {
        let fields = match kind {
            PAGE => [&header(kind, 0)[..9], &u16::try_from(body.len()).unwrap().to_be_bytes()].concat(),
            _ => header(kind, body.len()),
        };
        let group: Vec<u8> = (1..=16).collect();
        let sum = &blake3::hash(&[&group[..], &fields, &body].concat()).as_bytes()[..8].to_vec();
        let named: &[u8] = if [HELLO, STRANGER, OTHER_GROUP].contains(&kind) { &group } else { &[] };
        let golden = [&fields[..], named, sum, &body].concat();
        assert_eq!(bytes, golden, "{message:?}");
        assert_eq!(read(&golden), [Ok(message)]);
    }
}

/// Y13: what a version of today sends is read by every later one.
#[test]
fn y13_messages_are_those_of_the_vectors() {
    const NAMES: [&str; 20] = [
        "hello",
        "stranger",
        "pull",
        "page",
        "live",
        "ack",
        "regressed",
        "stopped_held",
        "stopped_refused",
        "other_group",
        "relayed",
        "hello_of_a_joiner",
        "coming",
        "pull_on",
        "damaged",
        "show",
        "shown",
        "snapshot_pull",
        "snapshot_page",
        "snapshot_page_refused",
    ];
    let examples = examples();
    assert_eq!(examples.len(), NAMES.len());
    let (mut b, head) =
        (Author::new(B), PageHead { id: 1, more: false, reach: Reach::Whole, too_long: None });
    let alike: Vec<_> = (0..30).map(|n| b.note(n, &"all work and no play ".repeat(3))).collect();
    let mut compressed = CommitsWriter::page(GROUP, C, &head, 0);
    alike.iter().for_each(|made| compressed.push(&made.parts(&made.joined())));
    let mut later = CommitsWriter::live(GROUP, B);
    let start = chain_start(GROUP_OF_MADE, B);
    let commit = CommitParts { stream: B, seq: 1, previous: &start, entry: b"\x02later", values: b"value" };
    later.push(&commit);
    let mut written: Vec<_> =
        NAMES.iter().zip(&examples).map(|(name, (_, bytes))| (*name, bytes.to_vec())).collect();
    written.push(("page_compressed", compressed.finish().to_vec()));
    written.push(("live_of_a_later_entry", later.finish().to_vec()));
    written.push(("of_a_kind_that_is_not_known", sealed(GROUP, 200, b"later").to_vec()));
    let vectors = crate::vectors::compare("messages.txt", &written);
    for (name, (message, _)) in NAMES.iter().zip(examples) {
        assert_eq!(read(&vectors[*name]), [Ok(message)], "{name}");
    }
    let expected: Vec<_> = alike.iter().map(|made| Rebuilt::Commit(made.wire())).collect();
    assert_eq!(rebuilt(&vectors["page_compressed"], C, &[]), expected);
    let later = rebuilt(&vectors["live_of_a_later_entry"], B, &[]);
    assert!(
        matches!(&later[..], [Rebuilt::Commit(commit)] if &commit.entry[..] == b"\x02later"),
        "{later:?}"
    );
    assert_eq!(read(&vectors["of_a_kind_that_is_not_known"]), []);
    crate::vectors::list("messages-fields.txt", &vectors, &fields_of_messages());
}

/// The fields of the messages, for those who read no Rust. A number is a varint unless the frame has it.
fn fields_of_messages() -> Vec<(&'static str, String)> {
    let frame = "4 magic: \"SYNL\"; 2 version of the protocol; 1 kind; 4 length of the body";
    let sum = "8 checksum";
    let of_group = |fields: &str| format!("{frame}; 16 group; {sum}{fields}");
    let of = |fields: &str| format!("{frame}; {sum}; {fields}");
    let head = "17 length and stream; 2 up to commit 300; 32 digest there";
    let heads = format!("1 two heads; {head}; {head}");
    let words = "1 one relayed word; 17 length and stream of a member; 2 it has acknowledged 300 commits; 1 it was restored";
    let clocks = "1 session: 7; 2 features: 300; 1 restored: yes; 3 wall clock: 300; 1 timer: 5; 2 timer of the receiver: 6";
    let run = "32 digest before the run; 8 beginning of the digest after it";
    let live = "1 one run; 1 flags: the sender's own stream; 1 first commit: 1; 8 beginning of the digest before the run; 8 beginning of the digest after it; 1 a commit of run 0";
    let cause_of_c = "1 up to commit 1; 8 beginning of its digest: zeros";
    let page = [
        "1 number of the pull: 9; 1 more: yes; 1 its log is whole; 1 a commit is too long",
        "17 its length and stream; 1 its number: 6; 2 its bytes: 300; 1 not compressed; 1 two runs",
        "1 flags: the sender's own stream, the device is named; 16 device; 1 first commit: 1",
        run,
        "1 flags: the device is named; 16 stream; 16 device; 1 first commit: 1",
        run,
        "1 a commit of run 0; 1 two changes; 2 milliseconds: 1,000; 1 counter; 1 no causes",
        "1 flags: it deletes; 1 a new model; 1 length of its name; 4 \"note\"; 1 length of the id; 1 id: 7",
        "1 flags: it puts, the model before; 1 length of the id; 1 id: 8; 1 schema: 1; 1 length of the value; 5 value: \"eight\"",
        "1 a commit of run 1; 1 one change; 1 milliseconds: the same; 1 counter; 1 one cause; 1 cause: the stream of run 0",
        cause_of_c,
        "1 flags: it puts; 1 the first model that was named; 1 length of the id; 1 id: 1; 1 schema: 1; 1 length of the value; 2 value: \"hi\"",
        "1 a commit of run 1; 1 two changes; 2 milliseconds: 1,001 more; 1 counter; 1 two causes; 1 cause: the stream of run 0",
        cause_of_c,
        "1 cause: a stream without a run; 16 stream; 2 up to commit 300; 8 beginning of its digest: zeros",
        "1 flags: it puts, own merge, an epoch follows; 1 a new model; 1 length of its name; 3 \"set\"; 1 length of the id; 1 id: \"s\"",
        "24 epoch; 1 schema: 1; 2 length of the value: 130",
        "1 flags: it deletes; 1 the first model that was named; 1 length of the id; 1 id: 2; 130 value of the first change",
    ];
    let live_of_b = [
        live,
        "1 one change; 2 milliseconds: 1,000; 1 counter; 1 one cause; 1 cause: a stream without a run; 16 stream",
        cause_of_c,
        "1 flags: it puts; 1 a new model; 1 length of its name; 4 \"note\"; 1 length of the id; 1 id: 1; 1 schema: 1; 1 length of the value; 2 value: \"hi\"",
    ];
    let stamped = "17 length and stream; 2 up to commit 300; 8 time of its stamp; 32 digest there";
    let one = format!("1 one head; {stamped}");
    let rows = [
        "1 number of the pull: 9; 1 it is not refused",
        &one,
        &one,
        "1 one forgotten stamp; 1 length of the model's name; 3 \"set\"; 8 time of the stamp; 17 length and replica of the stamp",
        "1 the sender has counted; 1 rows: 3; 2 bytes: 300; 1 more: yes; 1 one row; 1 not compressed",
        "1 length of a key; 3 key: \"key\"; 1 length of its value; 5 value: \"value\"",
    ];
    let shown = [
        "17 length and stream; 2 commit 300; 2 the chain was checked up to commit 301; 1 the row is here",
        "32 digest before it; 1 length of the entry: 78; 1 format; 16 device; 8 time; 2 no causes; 4 one change",
        "1 flags: it puts; 1 length of the model's name; 4 \"note\"; 2 length of the id; 1 id: 1",
        "2 schema: 1; 4 length of the value: 5; 32 digest of the value",
    ];
    vec![
        (
            "hello",
            of_group(&format!(
                "; {clocks}; 1 no joiner; 1 one member is not heard; 17 length and stream; {words}; {heads}"
            )),
        ),
        ("stranger", of_group("")),
        (
            "pull",
            of(&format!(
                "1 number of the pull: 9; 3 budget: 1,048,576; 2 longest frame: 300; {heads}; 1 one excluded stream; 17 length and stream"
            )),
        ),
        ("page", of(&page.join(";"))),
        ("live", of(&live_of_b.join(";"))),
        ("ack", of(&heads)),
        ("regressed", of(head)),
        ("stopped_held", of("2 at commit 300; 1 reason: held; 3 stamp: 300; 1 no wall clock; 1 no text")),
        (
            "stopped_refused",
            of(
                "1 at commit 2; 1 reason: refused; 1 no stamp; 3 wall clock: 300; 1 length of the text; 2 text: \"no\"",
            ),
        ),
        ("other_group", of_group("")),
        ("relayed", of(words)),
        (
            "hello_of_a_joiner",
            of_group(&format!(
                "; {clocks}; 18 a joiner, length and device; 1 all are heard; 1 no relayed words; 1 no heads"
            )),
        ),
        ("coming", of("1 number of the pull: 9; 2 bytes of the frame of the page: 300")),
        ("pull_on", of("1 number of the pull: 10; 1 it goes on from pull 9; 2 budget: 300")),
        ("damaged", of("1 one place; 17 length and stream; 2 from commit 300 on")),
        ("show", of("17 length and stream; 2 commit 300; 1 check the chain behind it: yes")),
        ("shown", of(&shown.join(";"))),
        (
            "snapshot_pull",
            of(
                "1 number of the pull: 9; 3 budget: 1 MiB; 2 longest frame: 300; 1 length of the last key; 3 last key: \"key\"",
            ),
        ),
        ("snapshot_page", of(&rows.join(";"))),
        (
            "snapshot_page_refused",
            of(&format!(
                "1 number of the pull: 9; 1 it is refused; 1 a row is damaged; 1 no heads before; 1 one head; {stamped}; 1 none forgotten; 1 not counted; 1 more: no; 1 no row; 1 not compressed"
            )),
        ),
        (
            "page_compressed",
            of(
                "1 number of the pull: 1; 1 more: no; 1 its log is whole; 1 none is too long; 2 length without compression: 2,301; 255 LZ4 block of runs and commits",
            ),
        ),
        (
            "live_of_a_later_entry",
            of(&format!(
                "{live}; 1 it stands as it is; 1 length of the entry; 6 entry; 1 length of the values; 5 values: \"value\""
            )),
        ),
        ("of_a_kind_that_is_not_known", of("5 body, which is skipped")),
    ]
}

/// A page of values that repeat themselves is less than half as long on its way, and the same at its end. A live message
/// is never compressed.
#[test]
fn pages_are_compressed_where_that_makes_them_shorter() {
    let mut b = Author::new(B);
    let text =
        |n: u8| format!("{{\"title\":\"note {n}\",\"done\":false,\"tags\":[\"home\",\"later\"]}}").repeat(3);
    let made: Vec<_> = (0..100).map(|n| b.note(n, &text(n))).collect();
    let head = PageHead { id: 1, more: false, reach: Reach::Whole, too_long: None };
    let (mut page, mut live) = (CommitsWriter::page(GROUP, C, &head, 0), CommitsWriter::live(GROUP, C));
    for made in &made {
        page.push(&made.parts(&made.joined()));
        live.push(&made.parts(&made.joined()));
    }
    let values: usize = made.iter().map(|made| made.joined().len()).sum();
    let (page, live) = (page.finish(), live.finish());
    assert!(2 * page.len() < values && live.len() > values, "{} and {} of {values}", page.len(), live.len());
    let expected: Vec<_> = made.iter().map(|made| Rebuilt::Commit(made.wire())).collect();
    assert_eq!((rebuilt(&page, C, &[]), rebuilt(&live, C, &[])), (expected.clone(), expected));
    // The rebuilt commits are bounded as a frame is.
    let read = |most| Messages::new(page.clone(), Some(GROUP), most).unwrap().next().unwrap();
    assert!(read(FRAME_MAX).is_ok());
    assert_eq!(read(page.len()), Err(WireError::TooLong));
}

/// The features of a later version, and kinds that are only reserved, harm nobody.
#[test]
fn what_only_a_later_version_knows_is_left() {
    for kind in [EPHEMERAL, 99] {
        assert_eq!(read(&sealed(GROUP, kind, b"later")), []);
    }
    let (message, _) = examples().remove(0);
    let Message::Hello(said) = message else { panic!("a hello") };
    let later = Hello { features: u32::MAX, ..said };
    assert_eq!(read(&hello(GROUP, &later)), [Ok(Message::Hello(later))]);
}

// --- commits ---------------------------------------------------------------------------------------------------------

/// The commits of a frame, rebuilt by a receiver that knows the digests before all streams but for those of `unknown`.
fn rebuilt(frame: &[u8], sender: ReplicaId, unknown: &[ReplicaId]) -> Vec<Rebuilt> {
    let base = |_: &Run, stream| {
        let start = chain_start(GROUP_OF_MADE, stream);
        (!unknown.contains(&stream)).then(|| (device(stream), start))
    };
    packed(frame).rebuild(sender, FRAME_MAX, true, base).unwrap()
}

#[test]
fn commits_are_rebuilt_as_their_authors_made_them() {
    let (_, live, page, _) = commits();
    let (mut b, mut c) = (Author::new(B), Author::new(C));
    let of_c = c.commit(&[], vec![(note(7), None, None), (note(8), Some(b"eight".to_vec()), None)]);
    let first = b.commit(&[(C, 1)], vec![(note(1), Some(b"hi".to_vec()), None)]);
    assert_eq!(rebuilt(&live, B, &[]), [Rebuilt::Commit(first.wire())]);
    let all = rebuilt(&page, C, &[]);
    assert_eq!(all[..2], [Rebuilt::Commit(of_c.wire()), Rebuilt::Commit(first.wire())]);
    // A run whose beginning is not known here is passed over, and the others are read.
    assert_eq!(rebuilt(&live, B, &[B]), [Rebuilt::Unreadable(B, 1)]);
    let some = rebuilt(&page, C, &[B]);
    assert_eq!(some, [Rebuilt::Commit(of_c.wire()), Rebuilt::Unreadable(B, 1), Rebuilt::Unreadable(B, 2)]);
    // Another sender is another stream, which begins with another digest.
    assert_eq!(rebuilt(&live, ME, &[ME]), [Rebuilt::Unreadable(ME, 1)]);
    assert_eq!(rebuilt(&live, ME, &[]), [Rebuilt::Damaged(ME, 1)]);
}

/// A relay may change anything in a commit: the digest after its run is another one.
#[test]
fn a_run_that_was_changed_is_damaged_and_the_others_are_not() {
    let (_, _, page, head) = commits();
    let intact = packed(&page);
    let commits = rebuilt(&page, C, &[]);
    let start = page.len() - 130;
    for at in [start, page.len() - 1] {
        let mut bytes = page.to_vec();
        bytes[at] ^= 1;
        let rebuilt = rebuilt(&again_sealed(&bytes), C, &[]);
        let damaged = [commits[0].clone(), Rebuilt::Damaged(B, 1), Rebuilt::Damaged(B, 2)];
        assert_eq!(rebuilt, damaged);
    }
    let unchecked = intact.rebuild(C, FRAME_MAX, false, |_, _| Some((device(B), [1; 32]))).unwrap();
    assert!(unchecked.iter().all(|commit| matches!(commit, Rebuilt::Commit(_))), "{head:?}");
}

/// An entry that this version cannot read stands as it is: it stops its own stream, where it is judged.
#[test]
fn an_entry_of_a_later_version_travels_as_it_is() {
    let mut b = Author::new(B);
    let good = b.note(1, "one");
    let mut later = good.raw().to_vec();
    later[0] = 2;
    let previous = good.previous();
    for (entry, values) in
        [(&later[..], &b"one"[..]), (b"", b""), (good.raw(), b"two!"), (&good.raw()[..40], b"one")]
    {
        let mut live = CommitsWriter::live(GROUP, C);
        let mut push = |entry: &[u8], values: &[u8], seq, previous: &Digest| {
            live.push(&CommitParts { stream: B, seq, previous, entry, values });
        };
        push(entry, values, 1, &previous);
        push(good.raw(), b"one", 2, &chain(&previous, entry));
        let frame = live.finish();
        let device = super::entry::device_of(entry).map_or([0; 16], |device| device);
        let base = |run: &Run, _| {
            Some((run.device.unwrap(), if run.first == 1 { previous } else { chain(&previous, entry) }))
        };
        let commits = packed(&frame).rebuild(C, FRAME_MAX, true, base).unwrap();
        let [Rebuilt::Commit(first), Rebuilt::Commit(second)] = &commits[..] else { panic!("{commits:?}") };
        assert_eq!((&first.entry[..], &first.values[..]), (entry, values), "{device:?}");
        assert_eq!((&second.entry[..], &second.values[..]), (good.raw(), &b"one"[..]));
    }
}

/// A short frame must not become a long one: what is rebuilt counts.
#[test]
fn what_is_rebuilt_is_no_longer_than_a_frame_may_be() {
    let mut b = Author::new(B);
    let many = (0..100).map(|id| (note(id), None, None)).collect();
    let made = [b.commit(&[], many), b.note(1, "one")];
    let mut live = CommitsWriter::live(GROUP, B);
    made.iter().for_each(|made| live.push(&made.parts(&made.joined())));
    let (counted, frame) = (live.rebuilt(), live.finish());
    assert!(frame.len() < counted, "{} bytes become {counted}", frame.len());
    let start = chain_start(GROUP_OF_MADE, B);
    let rebuild =
        |most| packed(&frame).rebuild(B, most, true, |_, _| Some((device(B), start))).map(|all| all.len());
    assert_eq!((rebuild(counted), rebuild(counted - 1)), (Ok(2), Err(WireError::TooLong)));
    let unread = |most| packed(&frame).rebuild(B, most, true, |_, _| None).map(|all| all.len());
    assert_eq!(
        (unread(counted), unread(counted - 1)),
        (Ok(2), Err(WireError::TooLong)),
        "the same for whoever reads it"
    );
}

#[test]
fn a_table_is_written_in_one_way() {
    let start = chain_start(GROUP_OF_MADE, B);
    let mut b = Author::new(B);
    let (one, two) = (b.note(1, "one"), b.note(1, "two"));
    let mut whole = CommitsWriter::page(
        GROUP,
        C,
        &PageHead { id: 1, more: false, reach: Reach::Whole, too_long: None },
        0,
    );
    [&one, &two].into_iter().for_each(|made| whole.push(&made.parts(&made.joined())));
    let body = |runs: &[&[u8]], commits: &[&[u8]]| {
        [&[1, 0, 0, 0, 0, u8::try_from(runs.len()).unwrap()][..], &runs.concat(), &commits.concat()].concat()
    };
    let run = |flags: u8, first: u8, before: &Digest, after: &Digest| {
        let stream: &[u8] = if flags & 1 == 0 { B.as_bytes() } else { &[] };
        let device = device(B);
        let device: &[u8] = if flags & 2 == 0 { &[] } else { device.as_bytes() };
        [&[flags], stream, device, &[first], before, &after[..8]].concat()
    };
    let middle = chain(&start, one.raw());
    let (all, before, behind) =
        (run(2, 1, &start, &b.head.digest), run(2, 1, &start, &middle), run(2, 2, &middle, &b.head.digest));
    let first = [&[0, 2, 0xd0, 0x0f, 0, 0, 0, 0, 4][..], b"note", &[1, 1, 1, 3], b"one"].concat();
    let second = |run: u8| [&[run, 2, 2, 0, 0, 0, 1, 1, 1, 1, 3][..], b"two"].concat();
    let named = [&[0, 2, 2, 0, 0, 0, 0, 4][..], b"note", &[1, 1, 1, 3], b"two"].concat();
    let judged = |body: Vec<u8>, sender| {
        let frame = sealed(GROUP, PAGE, &body);
        let message = Messages::new(frame, Some(GROUP), FRAME_MAX).unwrap().next().unwrap();
        let packed = match message {
            Ok(Message::Page(_, packed)) => packed,
            other => return format!("{other:?}"),
        };
        let base = |run: &Run, _| match run.before {
            Before::Full(digest) => Some((run.device?, digest)),
            Before::Check(_) => None,
        };
        format!("{:?}", packed.rebuild(sender, FRAME_MAX, true, base).map(|all| all.len()))
    };
    assert_eq!(sealed(GROUP, PAGE, &body(&[&all], &[&first, &second(0)])), whole.finish());
    let cases = [
        ("as it is", body(&[&all], &[&first, &second(0)]), C, "Ok(2)"),
        ("nothing at all", body(&[], &[]), C, "Ok(0)"),
        ("two runs for one", body(&[&before, &behind], &[&first, &second(1)]), C, "could be shorter"),
        ("the sender by its name", body(&[&all], &[&first, &second(0)]), B, "Ok(2)"),
        ("a run without commits", body(&[&all, &all], &[&first, &second(0)]), C, "without commits"),
        ("a run that is not there", body(&[&all], &[&first, &second(1)]), C, "out of range"),
        ("a name twice", body(&[&all], &[&first, &named]), C, "names a model twice"),
        ("no device", body(&[&run(0, 1, &start, &middle)], &[&first]), C, "out of range"),
        ("a flag that is not known", body(&[&run(6, 1, &start, &middle)], &[&first]), C, "out of range"),
        ("a cut", body(&[&all], &[&first, &second(0)[..13]]), C, "ends before it should"),
    ];
    for (case, body, sender, says) in cases {
        let found = judged(body, sender);
        assert!(found.contains(says), "{case}: {found}");
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

/// A message with its kind and what stands behind its checksum, with a length and a checksum that fit.
fn again_sealed(bytes: &[u8]) -> Bytes {
    let kind = bytes.get(6).copied().unwrap_or(99);
    let body_at = HEADER_LEN + if [HELLO, STRANGER, OTHER_GROUP].contains(&kind) { 16 } else { 0 };
    sealed(GROUP, kind, bytes.get(body_at..).unwrap_or_default())
}

#[test]
fn y13_unknown_kinds_are_skipped_by_their_length() {
    let unknown = MessageWriter::new(99, GROUP, 0).with(&[1u8, 2, 3]).finish();
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
        for cut in 1..bytes.len().saturating_sub(HEADER_LEN + 16) {
            let read = read(&again_sealed(&bytes[..bytes.len() - cut]));
            // The commits of a page or a live message are read when they are rebuilt.
            let whole = match &read[..] {
                [Ok(Message::Page(_, packed) | Message::Live(packed))] => {
                    let start = |stream| Some((device(stream), chain_start(GROUP_OF_MADE, stream)));
                    let sender = if matches!(&message, Message::Live(_)) { B } else { C };
                    let rebuilt = packed.rebuild(sender, FRAME_MAX, true, |_, stream| start(stream));
                    rebuilt
                        .map_or(true, |all| all.iter().any(|commit| matches!(commit, Rebuilt::Damaged(..))))
                }
                _ => false,
            };
            assert!(whole || matches!(read[..], [Err(WireError::Body(_))]), "{read:?}");
        }
    }
}

#[test]
fn counts_beyond_their_caps_take_no_memory() {
    // 2^35 - 1 streams, in a message of a few bytes.
    let mut claims = MessageWriter::new(ACK, GROUP, 0);
    claims.out.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(matches!(read(&claims.finish())[..], [Err(WireError::Body(_))]));
    // One head more than there may be, all of them there.
    let heads = Capped((0..=STREAMS_MAX).map(|n| head(n as u128)).collect());
    assert!(matches!(read(&ack(GROUP, &heads))[..], [Err(WireError::Body(_))]));
    // A run more than there may be, and changes that are not there.
    let many = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(read(&sealed(GROUP, LIVE, &many))[..], [Err(WireError::Body(_))]));
    let table = [&[1, 1, 1][..], &[0; 16]].concat();
    for commit in [&[0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0][..], &[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let frame = sealed(GROUP, LIVE, &[&table[..], commit].concat());
        let rebuilt = packed(&frame).rebuild(B, FRAME_MAX, true, |_, _| None);
        assert!(matches!(rebuilt, Err(WireError::Body(_))), "{rebuilt:?}");
    }
}

/// A write: the id of a record, its value unless it is deleted, and the number of its model.
type AnyWrite = (u8, Option<Vec<u8>>, u8);

/// Any commits of two authors, each of some writes.
fn any_commits() -> impl Strategy<Value = Vec<(bool, u64, Vec<AnyWrite>)>> {
    let write = (0..20_u8, prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..6_u8);
    prop::collection::vec((any::<bool>(), 0..5_u64, prop::collection::vec(write, 0..4)), 0..12)
}

proptest! {
    #[test]
    fn no_bytes_panic(which in 0..17usize, cut in 0..600usize, at in 0..600usize, byte: u8, garbage: Vec<u8>) {
        let (_, bytes) = examples().remove(which);
        let mut bytes = bytes.to_vec();
        bytes.truncate(cut);
        if let Some(old) = bytes.get_mut(at) {
            *old = byte;
        }
        read(&bytes);
        read(&garbage);
        // Random bytes behind a checksum that fits do no harm either.
        for frame in [again_sealed(&bytes), [&stranger(GROUP)[..], &garbage].concat().into()] {
            for message in read(&frame).into_iter().flatten() {
                if let Message::Live(packed) | Message::Page(_, packed) = message {
                    let _ = packed.rebuild(C, FRAME_MAX, true, |_, stream| Some((device(stream), [7; 32])));
                    let _ = packed.rebuild(C, 1000, true, |_, _| None);
                }
            }
        }
    }

    /// The wire is undone exactly, whoever sends it.
    #[test]
    fn any_commits_come_back(commits in any_commits(), full: bool, by_b: bool) {
        let mut authors = [Author::new(B), Author::new(C)];
        let head = PageHead { id: 1, more: false, reach: Reach::Whole, too_long: None };
        let sender = if by_b { B } else { ME };
        let mut writer = if full { CommitsWriter::page(GROUP, sender, &head, 0) } else { CommitsWriter::live(GROUP, sender) };
        let mut made = Vec::new();
        for (which, later, writes) in commits {
            let other = authors[usize::from(!which)].head.seq;
            let author = &mut authors[usize::from(which)];
            author.wall += later * 100;
            let cause = if which { B } else { C };
            let after = [(cause, other)];
            let mut keys = std::collections::BTreeSet::new();
            let writes = writes.into_iter().filter(|(id, _, model)| keys.insert((*id, *model))).map(|(id, value, model)| {
                let own_merge = model % 2 == 1;
                let epoch = own_merge.then(|| if id % 2 == 0 { Hlc::NEVER } else { stamp(5, ME) });
                let owner = (model == 4).then(|| device(author.stream));
                (RecordKey::from_parts(["a", "b", "c", "dd", "e", "f"][usize::from(model)], owner, &[id]), value, epoch)
            });
            let writes = writes.collect();
            made.push(author.commit(if other > 0 { &after } else { &[] }, writes));
        }
        made.iter().for_each(|made| writer.push(&made.parts(&made.joined())));
        let (counted, frame) = (writer.rebuilt(), writer.finish());
        let start = |stream| chain_start(GROUP_OF_MADE, stream);
        let rebuilt = packed(&frame).rebuild(sender, counted, true, |_, stream| Some((device(stream), start(stream)))).unwrap();
        let expected: Vec<_> = made.iter().map(|made| Rebuilt::Commit(made.wire())).collect();
        prop_assert_eq!(rebuilt, expected);
    }
}

/// An entry of many names, which is not as it could be, is refused at the cost of its bytes. A search through the names
/// before each of them would take hours.
#[test]
fn many_names_cost_no_more_than_their_bytes() {
    let mut entry = Author::new(B).note(1, "").raw()[..27].to_vec();
    let changes = 1_000_000_u32;
    entry.extend_from_slice(&changes.to_be_bytes());
    for n in 0..changes {
        entry.extend_from_slice(&[DELETE, 4]);
        entry.extend_from_slice(&n.to_be_bytes());
        entry.extend_from_slice(&[0, 0]);
    }
    // A live message of its sender, which begins with the number of its run and the mark of an entry as it is.
    let body = {
        let mut body = vec![1, 1, 1];
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&[0, 0]);
        put_number(&mut body, entry.len() as u64);
        body.extend_from_slice(&entry);
        body.push(0);
        body
    };
    let mut messages = Messages::new(sealed(GROUP, LIVE, &body), Some(GROUP), 32 << 20).unwrap();
    let Some(Ok(Message::Live(packed))) = messages.next() else { panic!("it can be read") };
    let could_be_shorter = packed.rebuild(B, 32 << 20, true, |_, _| None).unwrap_err();
    assert!(could_be_shorter.to_string().contains("shorter"), "{could_be_shorter}");
}

/// Pages that share a frame share its room too: otherwise few bytes would become many times what a frame may have.
#[test]
fn pages_of_one_frame_become_no_more_than_a_frame_may_have() {
    let mut b = Author::new(B);
    let made = b.note(1, &"x".repeat(FRAME_MAX / 3));
    let head = PageHead { id: 9, more: true, reach: Reach::Whole, too_long: None };
    let mut page = CommitsWriter::page(GROUP, C, &head, 10);
    page.push(&made.parts(&made.joined()));
    let page = page.finish();
    for (count, error) in [(2, None), (3, Some(WireError::TooLong))] {
        let frame = Bytes::from(page.repeat(count));
        assert!(frame.len() < FRAME_MAX / 20);
        let read = Messages::new(frame, Some(GROUP), FRAME_MAX).unwrap().collect::<Result<Vec<_>, _>>();
        assert_eq!(read.err(), error, "{count} pages");
    }
}
