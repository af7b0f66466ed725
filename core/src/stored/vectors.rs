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
use crate::vectors::compare;

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
        ("fork", keys::fork(A), StoredKey::Fork(A)),
        ("head", keys::head(A), StoredKey::Head(A)),
        ("peer", keys::peer(B), StoredKey::Peer(B)),
        ("log", keys::log(A, 300), StoredKey::Log(A, 300)),
        ("kept", keys::kept(A, 300, &shared), StoredKey::Kept(A, 300, shared.clone())),
        ("beside", keys::beside(&shared, B, 300), StoredKey::Beside(shared.clone(), B, 300)),
        ("debt", keys::debt("names", shared.as_bytes()), StoredKey::Debt("names".into(), shared.clone())),
        ("shared_record", shared.as_bytes().to_vec(), StoredKey::Record(shared)),
        ("owned_record", owned.as_bytes().to_vec(), StoredKey::Record(owned)),
    ];
    let written: Vec<_> = all.iter().map(|(name, key, _)| (*name, key.clone())).collect();
    let vectors = compare("keys.txt", &written);
    for (name, _, parsed) in all {
        assert_eq!(StoredKey::parse(&vectors[name]), Some(parsed), "{name}");
    }
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
        ("fork", fork(Some([0xbb; 32])).to_value()),
        ("fork_of_what_is_not_here", fork(None).to_value()),
        ("head_of_no_commit", Head::start(GROUP, A).to_value()),
        ("head", head.to_value()),
        ("peer", peer_value(&acked)),
        ("log", log.finish()),
        ("record", record::of(&header(false, None), b"value")),
        ("record_merged", record::of(&header(false, merged), b"value")),
        ("tombstone", record::of(&Header { schema: 0, ..header(true, None) }, b"")),
        ("debt", debt_value("no parent")),
        ("member", record::value_of(&member).to_vec()),
        ("member_of_a_newer_state", newer),
    ];
    let vectors = compare("rows.txt", &written);
    let of = |name: &str| vectors[name].as_slice();
    assert_eq!(Identity::parse(of("identity")), Ok(identity));
    assert_eq!(clock_from_value(A, of("clock")), Ok(stamp(A)));
    assert_eq!(ModelSeen::parse(of("model")), Ok(model));
    for name in ["projection_complete", "projection_until"] {
        assert_eq!(ProjectionRow::parse(of(name)).unwrap().to_value(), of(name));
    }
    assert_eq!(introducer_from_value(of("introducer")), Ok(B));
    assert_eq!(ForkRow::parse(of("fork")), Ok(fork(Some([0xbb; 32]))));
    assert_eq!(ForkRow::parse(of("fork_of_what_is_not_here")), Ok(fork(None)));
    assert_eq!(Head::parse(A, of("head_of_no_commit")).unwrap().to_value(), of("head_of_no_commit"));
    assert_eq!(Head::parse(A, of("head")), Ok(head));
    assert_eq!(peer_from_value(of("peer")), Ok(acked));
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
}
