use uuid::Uuid;

use super::*;

fn replica() -> ReplicaId {
    ReplicaId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10))
}

#[test]
fn golden_keys() {
    let owner = DeviceId(Uuid::from_u128(0xd));
    let shared = RecordKey::from_parts("tag", None, b"id");
    let owned = RecordKey::from_parts("location", Some(owner), b"id");
    let replica_bytes: Vec<u8> = (1..=16).collect();
    assert_eq!(identity(), b"\x01store");
    assert_eq!(clock(), b"\x01clock");
    assert_eq!(model("tag"), b"\x01modeltag");
    assert_eq!(projection("tag"), b"\x01projectiontag");
    assert_eq!(head(replica()), [&[2][..], &replica_bytes].concat());
    assert_eq!(shared.as_bytes(), b"\x4a\x03tagid");
    assert_eq!(owned.as_bytes(), [b"\xc5\x08location".as_slice(), owner.as_bytes(), b"id"].concat());
    assert_eq!(log(replica(), 258), [&[6][..], &replica_bytes, &[0, 0, 0, 0, 0, 0, 1, 2]].concat());
    assert_eq!(introducer(), b"\x01introducer");
    assert_eq!(forgotten("tag"), b"\x01forgottentag");
    assert_eq!(fork(replica()), [b"\x01fork", &replica_bytes[..]].concat());
    assert_eq!(peer(replica()), [&[3][..], &replica_bytes].concat());
    assert_eq!(
        beside(&shared, replica(), 258),
        [b"\x08\0\0\0\x07\x4a\x03tagid", &replica_bytes[..], &[0, 0, 0, 0, 0, 0, 1, 2]].concat()
    );
    assert_eq!(debt("tags", shared.as_bytes()), b"\x09\x04tags\x4a\x03tagid");
    assert_eq!(
        kept(replica(), 258, &shared),
        [&[7][..], &replica_bytes, &[0, 0, 0, 0, 0, 0, 1, 2], b"\x4a\x03tagid"].concat()
    );
}

#[test]
fn keys_come_back() {
    let record = RecordKey::from_parts("location", Some(DeviceId(Uuid::from_u128(5))), b"");
    for (key, parsed) in [
        (identity(), StoredKey::Identity),
        (clock(), StoredKey::Clock),
        (model("a"), StoredKey::Model("a".into())),
        (projection("a"), StoredKey::Projection("a".into())),
        (head(replica()), StoredKey::Head(replica())),
        (introducer(), StoredKey::Introducer),
        (forgotten("a"), StoredKey::Forgotten("a".into())),
        (fork(replica()), StoredKey::Fork(replica())),
        (peer(replica()), StoredKey::Peer(replica())),
        (beside(&record, replica(), 7), StoredKey::Beside(record.clone(), replica(), 7)),
        (debt("a", record.as_bytes()), StoredKey::Debt("a".into(), record.clone())),
        (record.clone().into_bytes(), StoredKey::Record(record.clone())),
        (log(replica(), 7), StoredKey::Log(replica(), 7)),
        (kept(replica(), 7, &record), StoredKey::Kept(replica(), 7, record.clone())),
    ] {
        assert_eq!(StoredKey::parse(&key), Some(parsed));
        // A key that is cut short is no key, unless it ends in free text: a model's or a projection's name.
        let parsed = StoredKey::parse(&key);
        let named =
            |key| matches!(key, StoredKey::Model(_) | StoredKey::Projection(_) | StoredKey::Forgotten(_));
        if !parsed.is_some_and(named) {
            assert_eq!(StoredKey::parse(&key[..key.len() - 1]), None, "{key:?}");
        }
    }
    assert_eq!(StoredKey::parse(b""), None);
    assert_eq!(StoredKey::parse(b"\xff"), None);
    assert_eq!(StoredKey::parse(b"\x4a\x00id"), None, "a model has a name");
}

#[test]
fn what_lies_beside_a_record_is_in_no_other_range() {
    let (short, long) = (RecordKey::from_parts("a", None, b""), RecordKey::from_parts("a", None, b"b"));
    assert!(besides_of(&short).contains(&beside(&short, replica(), 1)));
    assert!(!besides_of(&short).contains(&beside(&long, replica(), 1)));
    assert!(!besides_of(&long).contains(&beside(&short, replica(), 1)));
    let (alike, other) = (RecordKey::from_parts("a", None, b"c"), RecordKey::from_parts("b", None, b"b"));
    assert!(besides_like(&long).contains(&beside(&alike, replica(), 1)));
    assert!(!besides_like(&long).contains(&beside(&short, replica(), 1)));
    assert!(!besides_like(&long).contains(&beside(&other, replica(), 1)));
}

#[test]
fn the_debts_of_a_projection_are_in_no_other_range() {
    let record = RecordKey::from_parts("a", None, b"b");
    assert!(debts_of("ab").contains(&debt("ab", record.as_bytes())));
    assert!(!debts_of("a").contains(&debt("ab", record.as_bytes())));
}

#[test]
fn models_do_not_run_into_each_other() {
    let ab = RecordKey::from_parts("ab", None, b"");
    let a_b = RecordKey::from_parts("a", None, b"b");
    assert_ne!(ab, a_b);
    assert!(!KeyRange::prefix(RecordKey::model_prefix("a", false, 0)).contains(ab.as_bytes()));
}
