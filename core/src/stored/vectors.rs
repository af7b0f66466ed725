//! Goal: what a version of today stores is read by every later one. Method: an example of every key and row, compared with
//! the files of vectors, read from there and written again.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::keys::{self, RecordKey, StoredKey};
use super::log::{LogRowWriter, chain_start, digest_check, row, split_row};
use super::record::{self, Header, Merged};
use super::*;
use crate::clock::WallMs;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::member::Member;
use crate::model;
use crate::vectors::{compare, list};

const GROUP: GroupId = GroupId(Uuid::from_u128(0x99));
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd));
const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));

fn stamp(replica: ReplicaId) -> Hlc {
    Hlc::new(WallMs::new(1_700_000_000_000).unwrap(), 7, replica)
}

#[test]
fn y13_keys_are_those_of_the_vectors() {
    let shared = RecordKey::from_parts("tag", None, &[0, 0, 0, 1]);
    let owned = RecordKey::from_parts("place", Some(DEVICE), &[0, 0, 0, 1]);
    let all = [
        ("identity", keys::identity(), StoredKey::Identity),
        ("clock", keys::clock(), StoredKey::Clock),
        ("model", keys::model("tag"), StoredKey::Model("tag".into())),
        ("projection", keys::projection("names"), StoredKey::Projection("names".into())),
        ("introducer", keys::introducer(), StoredKey::Introducer),
        ("forgotten", keys::forgotten("set"), StoredKey::Forgotten("set".into())),
        ("fork", keys::fork(A), StoredKey::Fork(A)),
        ("head", keys::head(A), StoredKey::Head(A)),
        ("peer", keys::peer(B), StoredKey::Peer(B)),
        ("log", keys::log(A, 300), StoredKey::Log(A, 300)),
        ("kept", keys::kept(A, 300, &shared), StoredKey::Kept(A, 300, shared.clone())),
        ("beside", keys::beside(&shared, B, 300), StoredKey::Beside(shared.clone(), B, 300)),
        ("debt", keys::debt("names", shared.as_bytes()), StoredKey::Debt("names".into(), shared.clone())),
        ("install", keys::install(), StoredKey::Install),
        ("staged", keys::staged(shared.as_bytes()), StoredKey::Staged(shared.as_bytes().to_vec())),
        ("shared_record", shared.as_bytes().to_vec(), StoredKey::Record(shared)),
        ("owned_record", owned.as_bytes().to_vec(), StoredKey::Record(owned)),
    ];
    let written: Vec<_> = all.iter().map(|(name, key, _)| (*name, key.clone())).collect();
    let vectors = compare("keys.txt", &written);
    for (name, _, parsed) in all {
        assert_eq!(StoredKey::parse(&vectors[name]), Some(parsed), "{name}");
    }
    let record = "1 shared record, models like \"tag\"; 1 length of the name; 3 \"tag\"; 4 id: 1";
    let fields = [
        ("identity", "1 small row; 5 \"store\"".to_owned()),
        ("clock", "1 small row; 5 \"clock\"".to_owned()),
        ("model", "1 small row; 5 \"model\"; 3 name: \"tag\"".to_owned()),
        ("projection", "1 small row; 10 \"projection\"; 5 name: \"names\"".to_owned()),
        ("introducer", "1 small row; 10 \"introducer\"".to_owned()),
        ("forgotten", "1 small row; 9 \"forgotten\"; 3 name of the model: \"set\"".to_owned()),
        ("fork", "1 small row; 4 \"fork\"; 16 stream".to_owned()),
        ("head", "1 head; 16 stream".to_owned()),
        ("peer", "1 peer; 16 replica".to_owned()),
        ("log", "1 log; 16 stream; 8 commit 300".to_owned()),
        ("kept", format!("1 kept; 16 stream; 8 commit 300; {record}")),
        ("beside", format!("1 beside; 4 length of the record's key; {record}; 16 stream; 8 commit 300")),
        ("debt", format!("1 debt; 1 length of the name; 5 projection: \"names\"; {record}")),
        ("install", "1 small row; 7 \"install\"".to_owned()),
        ("staged", format!("1 stage; {record}")),
        ("shared_record", record.to_owned()),
        (
            "owned_record",
            "1 owned record, models like \"place\"; 1 length of the name; 5 \"place\"; 16 owner, a device; 4 id: 1"
                .to_owned(),
        ),
    ];
    list("keys-fields.txt", &vectors, &fields);
}

#[test]
fn y13_rows_are_those_of_the_vectors() {
    let identity = Identity { group: GROUP, device: DEVICE, replica: A };
    let model = ModelSeen { device_owned: false, own_merge: true, schema: 3 };
    let projection = |progress| ProjectionRow { version: 2, schema: 3, progress }.to_value();
    let fork = |here| ForkRow { stream: A, seq: 300, by: B, there: [0xaa; 32], here };
    let acked = BTreeMap::from([(A, Point { seq: 300, digest: [0xaa; 32] })]);
    let start = chain_start(GROUP, A);
    let head = Head { seq: 300, stamp: stamp(A), digest: [0xaa; 32], ..Head::start(GROUP, A) };
    let value = Some(ValueRef::new(3, 300, [0xbb; 32]));
    let after = [Cause { stream: B, seq: 300, check: digest_check(&[0xcc; 32]) }];
    let mut log = LogRowWriter::new(&start, DEVICE, stamp(A), &after, 5);
    log.push(&RecordKey::from_parts("set", None, b"a"), value, Some(Hlc::NEVER));
    log.push(&RecordKey::from_parts("set", None, b"b"), value, Some(stamp(B)));
    log.push(&RecordKey::from_parts("set", None, b"c"), None, Some(stamp(A)));
    log.push(&RecordKey::from_parts("tag", None, b"id"), value, None);
    log.push(&RecordKey::from_parts("place", Some(DEVICE), b"x"), None, None);
    let header = |tombstone, merge| Header { tombstone, schema: 3, stamp: stamp(A), seq: 300, merge };
    let merged = Some(Merged { epoch: stamp(B), mixed: true, beside: true });
    let install = InstallRow {
        phase: Phase::Tail,
        in_place: false,
        as_of: BTreeMap::from([(A, 300)]),
        need: BTreeMap::from([(A, 301)]),
        forgotten: BTreeMap::from([("set".into(), stamp(B))]),
        high: stamp(A),
        cursor: Some(b"key".to_vec()),
        counts: Counts { records: 3, bytes: 300, of_records: 4, of_bytes: 400 },
    };
    let member = model::encode(&Member::new(B, DEVICE), usize::MAX).unwrap().record;
    let mut newer = record::value_of(&member).to_vec();
    *newer.last_mut().unwrap() = 9;
    let written = [
        ("identity", identity.to_value()),
        ("clock", clock_value(stamp(A))),
        ("model", model.to_value()),
        ("projection_complete", projection(Progress::Complete)),
        ("projection_until", projection(Progress::Until(b"key".to_vec()))),
        ("introducer", introducer_value(B)),
        ("forgotten", forgotten_value(stamp(B))),
        ("install", install.to_value()),
        ("fork", fork(Some([0xbb; 32])).to_value()),
        ("fork_of_what_is_not_here", fork(None).to_value()),
        ("head_of_no_commit", Head::start(GROUP, A).to_value()),
        ("head", head.to_value()),
        ("peer", peer_value(&acked, |_| 200)),
        ("log", log.finish()),
        ("record", record::of(&header(false, None), b"value")),
        ("record_merged", record::of(&header(false, merged), b"value")),
        ("tombstone", record::of(&Header { schema: 0, ..header(true, None) }, b"")),
        ("debt", debt_value("no parent")),
        ("member", record::value_of(&member).to_vec()),
        ("member_of_a_newer_state", newer),
    ];
    let vectors = compare("rows.txt", &written);
    assert_eq!(InstallRow::parse(&vectors["install"]), Ok(install));
    let of = |name: &str| vectors[name].as_slice();
    assert_eq!(Identity::parse(of("identity")), Ok(identity));
    assert_eq!(clock_from_value(A, of("clock")), Ok(stamp(A)));
    assert_eq!(ModelSeen::parse(of("model")), Ok(model));
    for name in ["projection_complete", "projection_until"] {
        assert_eq!(ProjectionRow::parse(of(name)).unwrap().to_value(), of(name));
    }
    assert_eq!(introducer_from_value(of("introducer")), Ok(B));
    assert_eq!(forgotten_from_value(of("forgotten")), Ok(stamp(B)));
    assert_eq!(ForkRow::parse(of("fork")), Ok(fork(Some([0xbb; 32]))));
    assert_eq!(ForkRow::parse(of("fork_of_what_is_not_here")), Ok(fork(None)));
    assert_eq!(Head::parse(A, of("head_of_no_commit")).unwrap().to_value(), of("head_of_no_commit"));
    assert_eq!(Head::parse(A, of("head")), Ok(head));
    assert_eq!(peer_from_value(of("peer")), Ok((acked, BTreeMap::from([(A, 200)]))));
    let (previous, entry) = split_row(of("log")).unwrap();
    let parsed = LogEntry::parse(A, entry).unwrap();
    assert_eq!((previous, row(&previous, entry)), (start, of("log").to_vec()));
    assert_eq!((parsed.after, parsed.changes.len(), parsed.stamp), (after.to_vec(), 5, stamp(A)));
    assert_eq!(record::parse(of("record")), Ok((header(false, None), &b"value"[..])));
    assert_eq!(record::parse(of("record_merged")), Ok((header(false, merged), &b"value"[..])));
    assert!(record::parse(of("tombstone")).unwrap().0.tombstone);
    assert_eq!(debt_from_value(of("debt")), Ok("no parent".to_owned()));
    assert_eq!(model::decode_bytes::<Member>(of("member")).unwrap(), Member::new(B, DEVICE));
    assert!(model::decode_bytes::<Member>(of("member_of_a_newer_state")).is_ok());
    list("rows-fields.txt", &vectors, &fields_of_rows());
}

/// The fields of the rows, for those who read no Rust.
fn fields_of_rows() -> Vec<(&'static str, String)> {
    let projection = "1 format; 4 version of the projection: 2; 2 schema of its model: 3";
    let fork =
        "1 format; 16 stream that proves it; 8 at commit 300; 16 replica that showed it; 32 digest there";
    let head = "32 digest; 8 floor: 0; 32 digest at the floor, where the stream begins";
    let record = "2 schema: 3; 8 time of the stamp; 16 replica of the stamp; 8 commit 300";
    let value = "2 schema: 3; 4 length of the value: 300; 32 digest of the value";
    let log = [
        "32 digest before the commit; 1 format; 16 device; 8 time; 2 one cause",
        "16 cause: stream; 8 cause: up to commit 300; 8 cause: beginning of its digest; 4 five changes",
        "1 flags: it puts, own merge, in the first epoch; 1 length of the model's name; 3 \"set\"; 2 length of the id; 1 id: \"a\"",
        value,
        "1 flags: it puts, own merge, an epoch follows, the model before; 2 length of the id; 1 id: \"b\"; 24 epoch",
        value,
        "1 flags: it deletes, own merge, the model before; 2 length of the id; 1 id: \"c\"",
        "1 flags: it puts; 1 length of the model's name; 3 \"tag\"; 2 length of the id; 2 id: \"id\"",
        value,
        "1 flags: it deletes, device-owned; 1 length of the model's name; 5 \"place\"; 2 length of the id; 1 id: \"x\"",
    ];
    let install = [
        "1 format; 1 phase: the tail arrives; 1 records are staged; 4 it began at one head; 16 stream; 8 up to commit 300",
        "4 it rests on one head; 16 stream; 8 up to commit 301",
        "4 one forgotten stamp; 1 length of the model's name; 3 \"set\"; 8 time of the stamp; 16 replica of the stamp",
        "8 time of the highest stamp; 16 replica of the stamp; 8 rows: 3; 8 bytes: 300; 8 of rows: 4; 8 of bytes: 400",
        "4 length of the last key; 3 last key: \"key\"; 8 check",
    ];
    let member = "17 length and replica; 17 length and device; 1 corrections: 0; 1 time of the add: 0; 1 other adds: none";
    vec![
        ("identity", "1 format; 16 group; 16 device; 16 replica; 8 check".to_owned()),
        ("clock", "1 format; 8 time".to_owned()),
        ("model", "1 format; 1 shared, with its own merge; 2 schema: 3".to_owned()),
        ("projection_complete", format!("{projection}; 1 it has all records")),
        (
            "projection_until",
            format!("{projection}; 1 it is being rebuilt; 3 key of the last record that it has: \"key\""),
        ),
        ("introducer", "1 format; 16 introducer".to_owned()),
        ("forgotten", "1 format; 8 time of the stamp; 16 replica of the stamp; 8 check".to_owned()),
        ("install", install.join(";")),
        ("fork", format!("{fork}; 32 digest here")),
        ("fork_of_what_is_not_here", fork.to_owned()),
        ("head_of_no_commit", format!("1 format; 8 commits: none; 8 time: none; {head}")),
        ("head", format!("1 format; 8 last commit: 300; 8 time of its stamp; {head}")),
        ("peer", "1 format; 16 has of this stream; 8 up to commit 300; 32 with this digest; 8 covered up to commit 200".to_owned()),
        ("log", log.join(";")),
        ("record", format!("1 format; 1 no flags; {record}; 5 value")),
        (
            "record_merged",
            format!("1 format; 1 flags: own merge, mixed, values lie beside it; {record}; 24 epoch; 5 value"),
        ),
        ("tombstone", format!("1 format; 1 flags: tombstone; {record}").replace("schema: 3", "schema: none")),
        ("debt", "1 format; 9 error: \"no parent\"".to_owned()),
        ("member", format!("{member}; 1 state: active")),
        ("member_of_a_newer_state", format!("{member}; 1 a state that only a later version knows")),
    ]
}
