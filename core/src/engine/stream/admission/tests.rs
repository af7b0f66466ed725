//! One commit at a time is changed in one way, and the admission says what becomes of it.

use std::sync::Arc;

use super::super::super::made::{
    Author, B, C, GROUP, ME, Made, Write, context, device, ledger, member, note, now, replica, stamp,
};
use super::*;
use crate::clock::{ClockError, Mono};
use crate::limits::Limits;
use crate::storage::Value;
use crate::stored::Head;

/// A stranger to the group.
const S: ReplicaId = replica(0x5);

/// What admission looks at: a replica that has three commits of its own, two of `B` and none of `C`, all members.
struct World {
    context: Context,
    now: Now,
    ledger: Ledger,
    members: Members,
    streams: Streams,
    inbox: Inbox,
    damages: Damages,
    doubts: Doubts,
    /// The author of the stream of `B`, as far as that is here.
    b: Author,
    /// The last commit of `B` that is here.
    last: Made,
}

impl World {
    fn new() -> Self {
        let mut b = Author::new(B);
        let (_, last) = (b.note(1, "one"), b.note(1, "two"));
        let (context, own) = (context(), Head { seq: 3, stamp: stamp(1000, ME), ..Head::start(GROUP, ME) });
        let ledger = ledger([(ME, own), (B, b.head)]);
        let streams = Streams::opened(ME, &ledger);
        let members = [ME, B, C].map(|replica| (replica, member(replica)));
        let members = Members::new(&context, members.into(), None);
        Self {
            context,
            now: now(2000),
            ledger,
            members,
            streams,
            inbox: Inbox::default(),
            damages: Damages::default(),
            doubts: Doubts::default(),
            b,
            last,
        }
    }

    fn limits(&mut self) -> &mut Limits {
        Arc::make_mut(&mut self.context.limits)
    }

    fn admitting(&self) -> Admitting<'_> {
        Admitting {
            context: &self.context,
            now: &self.now,
            ledger: &self.ledger,
            members: &self.members,
            streams: &self.streams,
            inbox: &self.inbox,
            damages: &self.damages,
            doubts: &self.doubts,
        }
    }

    /// What becomes of a commit that `from` sends.
    fn admit(&self, from: ReplicaId, commit: &WireCommit) -> String {
        name(&self.admitting().admit(from, commit))
    }

    /// What becomes of the next commit of `B`, if it makes these changes and rests on `after`.
    fn admit_next(&self, after: &[(ReplicaId, u64)], writes: Vec<Write>) -> String {
        self.admit(B, &self.b.clone().commit(after, writes).wire())
    }
}

/// An admission in one line.
fn name(admission: &Admission) -> String {
    match admission {
        Admission::Next { commit, members, beyond_bound } => {
            let added: Vec<_> = members.iter().map(|member| member.replica).collect();
            let beyond = if *beyond_bound { " beyond the bound" } else { "" };
            let adds = if added.is_empty() { String::new() } else { format!(" adds {}", added.len()) };
            format!("next {}{beyond}{adds}", commit.seq)
        }
        Admission::Duplicate => "duplicate".into(),
        Admission::Ignored => "left".into(),
        Admission::TooEarly(None) => "too early".into(),
        Admission::TooEarly(Some((stream, seq))) => format!("too early, needs {seq} of {}", short(*stream)),
        Admission::Full => "full".into(),
        Admission::Wrong(reason) => format!("wrong: {reason}"),
        Admission::Stops(StreamStop::Held { seq, .. }) => format!("held at {seq}"),
        Admission::Stops(StreamStop::Refused { seq, reason }) => format!("refused at {seq}: {reason}"),
        Admission::Stops(other) => format!("stops: {other}"),
        Admission::OtherHistory(seq) => format!("another history at {seq}"),
        Admission::Restored(seq, then) => format!("restored, had {seq}; {}", name(then)),
    }
}

fn short(replica: ReplicaId) -> &'static str {
    match replica {
        ME => "mine",
        B => "B",
        C => "C",
        _ => "a stranger",
    }
}

fn text(text: &str) -> Option<Value> {
    Some(text.as_bytes().to_vec())
}

// --- its place in its stream ----------------------------------------------------------------------------------------

#[test]
fn a_commit_is_taken_only_as_the_next_one_of_its_history() {
    let world = World::new();
    let mut b = world.b.clone();
    let (next, hole) = (b.note(1, "three"), b.note(1, "four"));
    let other = |commit: &Made| WireCommit { previous: [9; 32], ..commit.wire() };
    let cases = [
        ("the next one", next.wire(), "next 3"),
        ("one with a hole before it", hole.wire(), "too early"),
        ("the last one that is here", world.last.wire(), "duplicate"),
        ("the last one, of another history", other(&world.last), "another history at 2"),
        (
            "an earlier one, of which no digest is at hand",
            WireCommit { seq: 1, ..other(&world.last) },
            "duplicate",
        ),
        ("the next one of another history", other(&next), "another history at 2"),
        ("the first one", Author::new(C).note(1, "c").wire(), "next 1"),
        (
            "the first one, behind something",
            other(&Author::new(C).note(1, "c")),
            "wrong: a stream begins with another digest than streams do",
        ),
    ];
    for (case, commit, becomes) in cases {
        assert_eq!(world.admit(commit.stream, &commit), becomes, "{case}");
    }
    // What waits in the inbox is here, as far as the next one is concerned.
    let mut world = world;
    let Admission::Next { commit, .. } = world.admitting().admit(B, &next.wire()) else {
        panic!("it is next")
    };
    let tip = Tip { seq: 3, stamp: commit.entry.stamp, digest: commit.digest };
    world.streams.advance(B, tip);
    world.inbox.push(*commit, Vec::new());
    assert_eq!(world.admit(B, &next.wire()), "duplicate");
    assert_eq!(world.admit(C, &hole.wire()), "next 4", "whoever sends it");
}

/// What is next is what its author made, as it stands on its way.
#[test]
fn what_is_taken_is_the_commit_that_was_sent() {
    let world = World::new();
    let mut b = world.b.clone();
    let two = vec![(note(1), text("three"), None), (note(2), None, None), (note(3), text(""), None)];
    let made = b.commit(&[(ME, 3)], two);
    let admission = world.admitting().admit(B, &made.wire());
    let Admission::Next { commit, members, beyond_bound } = admission else { panic!("{admission:?}") };
    assert_eq!(
        (commit.entry, commit.values, commit.digest),
        (made.entry(), made.values.clone(), b.head.digest)
    );
    assert_eq!((&commit.raw[..], commit.previous, members.len()), (made.raw(), made.previous(), 0));
    assert!(!beyond_bound);
}

#[test]
fn nobody_is_listened_to_about_streams_of_strangers_or_streams_that_are_stopped() {
    let mut world = World::new();
    let of_stranger = Author::new(S).note(1, "s").wire();
    assert_eq!(world.admit(B, &of_stranger), "left");
    world.context.rules.authors_are_members = false;
    assert_eq!(world.admit(B, &of_stranger), "next 1");
    let next = world.b.clone().note(1, "three").wire();
    let refused = StreamStop::Refused { seq: 3, reason: "no".into() };
    world.streams.stop(B, C, refused.clone(), &world.now, &world.context);
    assert_eq!((world.admit(C, &next), world.admit(B, &next)), ("left".into(), "next 3".into()));
    world.streams.stop(B, B, refused, &world.now, &world.context);
    assert_eq!((world.admit(C, &next), world.admit(B, &next)), ("left".into(), "left".into()));
    assert!(
        !world.admitting().wants(B, B) && world.admitting().wants(C, B) && !world.admitting().wants(ME, B)
    );
}

/// A joiner does not know yet who is a member; what it takes of strangers has a bound all the same.
#[test]
fn a_joiner_takes_as_many_streams_as_a_group_may_have() {
    let mut world = World::new();
    world.members = Members::new(&world.context, [].into(), Some(B));
    assert!(world.admitting().is_known_stream(S));
    for n in 0..STREAMS_MAX as u128 - 2 {
        assert!(world.admitting().is_known_stream(S), "{n} and the one of B");
        world.streams.advance(replica(1 << 64 | n), world.streams.tip(B));
    }
    assert!(!world.admitting().is_known_stream(S) && world.admitting().is_known_stream(B));
}

/// Its member record waits with it.
#[test]
fn a_member_that_waits_in_the_inbox_may_write() {
    let mut world = World::new();
    world.inbox.push(world.last.received(), vec![member(S)]);
    let mut author = Author::new(S);
    assert_eq!(world.admit(B, &author.clone().note(1, "s").wire()), "next 1");
    author.device = device(C);
    assert!(world.admit(B, &author.note(1, "s").wire()).contains("it names device"));
}

#[test]
fn a_commit_of_ours_is_here_or_proves_that_this_store_was_restored() {
    let world = World::new();
    let mut me = Author::new(ME);
    let own: Vec<_> = (0..4).map(|_| me.note(1, "mine").wire()).collect();
    assert_eq!((world.admit(B, &own[0]), world.admit(B, &own[2])), ("duplicate".into(), "duplicate".into()));
    assert_eq!(world.admit(B, &own[3]), "restored, had 4; duplicate");
    assert_eq!(world.admit_next(&[(ME, 4)], vec![]), "restored, had 4; too early, needs 4 of mine");
    assert_eq!(world.admit_next(&[(ME, 3)], vec![]), "next 3");
    assert_eq!(world.admit_next(&[(C, 4)], vec![]), "too early, needs 4 of C", "which is not ours");
}

// --- what it rests on, and when -------------------------------------------------------------------------------------

#[test]
fn a_commit_comes_after_what_it_rests_on() {
    let mut world = World::new();
    assert_eq!(world.admit_next(&[(C, 1)], vec![]), "too early, needs 1 of C");
    world.context.rules.causes_come_first = false;
    assert_eq!(world.admit_next(&[(C, 1)], vec![]), "next 3");
    world.context.rules.causes_come_first = true;
    let mut c = Author::new(C);
    let made = c.note(1, "c");
    world.streams.advance(C, Tip { seq: 1, stamp: made.entry().stamp, digest: c.head.digest });
    assert_eq!(world.admit_next(&[(C, 1)], vec![]), "next 3", "it waits in front of it");
    assert_eq!(world.admit_next(&[(C, 2)], vec![]), "too early, needs 2 of C");
}

#[test]
fn a_stamp_beyond_the_bound_holds_its_stream_until_it_is_released() {
    let mut world = World::new();
    let bound = world.context.limits.max_drift_ms;
    world.b.wall = 2000 + bound;
    assert_eq!(world.admit_next(&[], vec![]), "next 3");
    world.b.wall += 1;
    assert_eq!(world.admit_next(&[], vec![]), "held at 3");
    assert_eq!(world.admit_next(&[(C, 1)], vec![]), "too early, needs 1 of C", "what it needs comes first");
    world.now = Now { wall: Err(ClockError::Before1970), mono: Mono(2000) };
    assert_eq!(world.admit_next(&[], vec![]), "too early", "nobody can tell the time");
    world.now = now(2000);
    world.context.rules.drift_is_held = false;
    assert_eq!(world.admit_next(&[], vec![]), "next 3");
    world.context.rules.drift_is_held = true;
    let held = StreamStop::Held { seq: 3, stamp: stamp(world.b.wall, B) };
    world.streams.stop(B, B, held, &world.now, &world.context);
    world.streams.release(B);
    assert_eq!(world.admit_next(&[], vec![]), "next 3 beyond the bound");
}

// --- what its author did wrong --------------------------------------------------------------------------------------

/// It is refused for good: asking again brings the same.
#[test]
fn a_commit_that_breaks_a_rule_stops_its_stream() {
    let own_merge = |id: u8| RecordKey::from_parts(Member::SYNC_MODEL, None, &[id]);
    type Breaks = fn(&mut World) -> Made;
    let cases: [(&str, Breaks); 6] = [
        ("its stamp does not rise", |world| {
            world.b.wall -= 1;
            world.b.note(1, "three")
        }),
        ("it names device", |world| {
            world.b.device = device(C);
            world.b.note(1, "three")
        }),
        ("in an epoch that comes after it", |world| {
            let epoch = stamp(world.b.wall, B);
            world.b.commit(&[], vec![(note(1), text("three"), Some(epoch))])
        }),
        ("merges", |world| {
            let member = RecordKey::from_parts(Member::SYNC_MODEL, None, &[1]);
            world.b.commit(&[], vec![(member, text("three"), None)])
        }),
        ("is damaged", |world| {
            let mut made = world.b.note(1, "three");
            made.row.push(0);
            made
        }),
        ("has more changes than `Limits::commit_changes_max` = 1", |world| {
            world.limits().commit_changes_max = 1;
            world.b.commit(&[], vec![(note(1), None, None), (note(2), None, None)])
        }),
    ];
    for (reason, broken) in cases {
        let mut world = World::new();
        let made = broken(&mut world);
        let becomes = world.admit(B, &made.wire());
        assert!(becomes.starts_with("refused at 3: ") && becomes.contains(reason), "{reason}: {becomes}");
    }
    let mut world = World::new();
    let earlier = world.b.clone();
    let before = stamp(world.b.wall - 1, B);
    assert_eq!(world.admit_next(&[], vec![(note(1), text("three"), Some(before))]), "next 3");
    assert!(world.admit_next(&[], vec![(own_merge(1), None, None)]).contains("merges"));
    world.context.rules.devices_are_checked = false;
    world.b = Author { device: device(C), ..earlier };
    assert_eq!(world.admit_next(&[], vec![]), "next 3");
}

#[test]
fn a_commit_is_refused_above_each_limit_and_taken_at_it() {
    fn three() -> Vec<Write> {
        vec![(note(1), text("three"), None), (note(2), text("3"), None), (note(3), None, None)]
    }
    // The ids have a byte each.
    type Limit = fn(&mut Limits) -> &mut usize;
    let cases: [(&str, Limit, usize); 4] = [
        ("entry_bytes_max", |limits| &mut limits.entry_bytes_max, 3 * (66 + "note".len() + 1)),
        ("value_bytes_max", |limits| &mut limits.value_bytes_max, 5),
        ("id_bytes_max", |limits| &mut limits.id_bytes_max, 1),
        ("commit_changes_max", |limits| &mut limits.commit_changes_max, 3),
    ];
    for (name, limit, most) in cases {
        let mut world = World::new();
        *limit(world.limits()) = most;
        assert_eq!(world.admit_next(&[], three()), "next 3", "{name}");
        *limit(world.limits()) = most - 1;
        let becomes = world.admit_next(&[], three());
        assert!(becomes.starts_with("refused at 3: ") && becomes.contains(name), "{becomes}");
    }
    let mut world = World::new();
    let limits = world.limits();
    (limits.value_bytes_max, limits.id_bytes_max, limits.commit_bytes_max) = (5, 1, 9);
    assert_eq!(world.admit_next(&[], three()), "next 3");
    world.limits().commit_bytes_max = 8;
    assert!(world.admit_next(&[], three()).contains("9 is above the limit `Limits::commit_bytes_max` = 8"));
    world.limits().commit_bytes_max = 1;
    let single = vec![(note(1), text("three"), None)];
    assert_eq!(world.admit_next(&[], single), "next 3", "a single record fits always");
}

/// A commit may rest on as many streams as a group can have.
#[test]
fn the_causes_of_a_commit_have_a_bound() {
    let world = World::new();
    let causes = |count: usize| (0..count as u128).map(|n| (replica(1 << 64 | n), 1)).collect::<Vec<_>>();
    let becomes = world.admit_next(&causes(STREAMS_MAX), vec![]);
    assert_eq!(becomes, "too early, needs 1 of a stranger", "it is looked at, and its causes are missing");
    let becomes = world.admit_next(&causes(STREAMS_MAX + 1), vec![]);
    assert!(becomes.starts_with("refused at 3: ") && becomes.contains("members_max"), "{becomes}");
}

// --- what its sender did wrong --------------------------------------------------------------------------------------

/// Its author made another one, so the stream goes on with what somebody else sends.
#[test]
fn values_that_are_not_those_of_the_commit_are_the_fault_of_its_sender() {
    let world = World::new();
    let two = vec![(note(1), text("three"), None), (note(2), text("four"), None)];
    let made = world.b.clone().commit(&[], two).wire();
    let with = |values: &'static [u8]| WireCommit { values: Bytes::from_static(values), ..made.clone() };
    let cases: [(&'static [u8], &str); 4] = [
        (b"threefour", "next 3"),
        (b"threefou", "wrong: a value is missing"),
        (b"", "wrong: a value is missing"),
        (b"threefours", "wrong: there are more values than changes"),
    ];
    for (values, becomes) in cases {
        assert_eq!(world.admit(C, &with(values)), becomes);
    }
}

// --- members and room -----------------------------------------------------------------------------------------------

fn put_member(key: ReplicaId, member: &Member) -> Write {
    (RecordKey::new::<Member>(&key), Some(postcard::to_allocvec(member).unwrap()), Some(Hlc::NEVER))
}

#[test]
fn a_member_record_is_only_ever_put_and_under_its_own_name() {
    let world = World::new();
    let key = RecordKey::new::<Member>(&S);
    let (_, value, _) = put_member(S, &member(S));
    let other_epoch = (key.clone(), value, Some(stamp(9, B)));
    let cases = [
        (put_member(S, &member(S)), "next 3 adds 1"),
        (put_member(C, &member(S)), "refused at 3: a member record is under another replica's key"),
        ((key.clone(), None, Some(Hlc::NEVER)), "refused at 3: a member record is only ever put"),
        (other_epoch, "refused at 3: a member record is only ever put"),
        (
            (key, text("no member"), Some(Hlc::NEVER)),
            "refused at 3: a member record is damaged, or of a newer version",
        ),
    ];
    for (write, becomes) in cases {
        assert_eq!(world.admit_next(&[], vec![write]), becomes);
    }
}

#[test]
fn a_group_has_a_bound() {
    let mut world = World::new();
    let waiting = |count: usize| (0..count as u128).map(|n| member(replica(1 << 64 | n))).collect();
    let add = || vec![put_member(S, &member(S))];
    world.inbox.push(world.last.received(), waiting(STREAMS_MAX - 4));
    assert_eq!(world.admit_next(&[], add()), "next 3 adds 1");
    world.inbox.push(world.last.received(), waiting(STREAMS_MAX - 3));
    assert_eq!(world.admit_next(&[], add()), "refused at 3: a group has no more than 4096 members");
    world.inbox.push(world.last.received(), waiting(STREAMS_MAX));
    assert_eq!(world.admit_next(&[], vec![]), "next 3", "a commit that adds none goes on");
}

#[test]
fn a_commit_that_finds_no_room_comes_again_later() {
    let mut world = World::new();
    world.inbox.push(world.last.received(), Vec::new());
    let next = world.b.clone().note(1, "three");
    world.limits().frame_bytes_max = world.inbox.bytes() + next.received().weight();
    assert_eq!(world.admit(B, &next.wire()), "next 3");
    world.limits().frame_bytes_max -= 1;
    assert_eq!(world.admit(B, &next.wire()), "full");
    world.inbox = Inbox::default();
    assert_eq!(world.admit(B, &next.wire()), "next 3", "a single commit fits always");
}
