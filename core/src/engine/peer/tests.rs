use super::super::made::{B, C, ME, complaint, replica};
use super::*;

/// A stream that the tests speak of.
const S: ReplicaId = replica(0x5);

/// Something that happens to the peers.
type Step = fn(&mut Peers);

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

/// Peers that are up and said hello in session 1.
fn greeted(peers: &[ReplicaId]) -> Peers {
    let mut all = Peers::default();
    for peer in peers {
        all.came_up(*peer);
        assert!(all.greeted(*peer, 1));
    }
    all.check();
    all
}

/// Whom to ask, whatever is missing.
fn able(peers: &Peers) -> Vec<ReplicaId> {
    peers.with_missing(|_, _| true)
}

fn point(seq: u64) -> Point {
    Point { seq, digest: [7; 32] }
}

// --- what it is owed ------------------------------------------------------------------------------------------------

#[test]
fn a_peer_that_is_down_is_owed_nothing() {
    let mut peers = greeted(&[B]);
    peers.owe(B, |owed| owed.hello = true);
    peers.went_down(B);
    peers.check();
    assert_eq!(peers.pay(), None);
    peers.remember(C, BTreeMap::from([(S, point(1))]));
    peers.owe(C, |owed| owed.hello = true);
    peers.owe(S, |owed| owed.hello = true);
    peers.check();
    assert_eq!(peers.pay(), None, "nor is one that never came up");
}

#[test]
fn a_peer_is_answered_once_however_often_it_asks() {
    let mut peers = greeted(&[B, C]);
    peers.owe(C, |owed| owed.stranger = true);
    peers.owe(B, |owed| owed.hello = true);
    peers.owe(B, |owed| owed.hello = true);
    peers.owe(B, |owed| owed.stranger = true);
    peers.check();
    assert_eq!(peers.pay(), Some((B, Owed { hello: true, stranger: true, ..Owed::default() })));
    assert_eq!(peers.pay(), Some((C, Owed { stranger: true, ..Owed::default() })));
    assert_eq!(peers.pay(), None);
    peers.check();
}

/// Its word may be lost, and there may be no other commit for long.
#[test]
fn a_peer_that_is_behind_is_owed_one_more_word_when_that_is_due() {
    let mut peers = greeted(&[B, C]);
    for peer in [B, C] {
        assert!(peers.acked(peer, S, point(1), false), "so it is remembered when it goes");
        peers.is_told(peer, 5, Mono(10));
        peers.owe_word(peer, Mono(11));
    }
    assert_eq!((peers.pay(), peers.next_timeout()), (None, Some(Mono(2_010))));
    peers.expire(Mono(2_009));
    assert_eq!((peers.pay(), peers.next_timeout()), (None, Some(Mono(2_010))));
    peers.went_down(C);
    peers.expire(Mono(2_010));
    peers.check();
    assert_eq!(peers.next_timeout(), None, "also if the word cannot be said");
    assert_eq!(peers.pay(), Some((B, Owed { word: true, ..Owed::default() })));
    assert_eq!(peers.pay(), None, "one that is down is owed nothing");
}

// --- the connection -------------------------------------------------------------------------------------------------

#[test]
fn a_peer_that_never_acknowledged_anything_is_forgotten_when_it_goes() {
    let mut peers = greeted(&[B, C]);
    assert!(peers.acked(B, S, point(4), false));
    for peer in [B, C] {
        peers.has(peer, S, 5, 0);
        peers.sent_page(peer, true, Reach::Whole);
        peers.rests(peer, Mono(0), &mut rng());
        peers.went_down(peer);
        peers.went_down(peer);
        peers.check();
    }
    assert!(!peers.any_up() && peers.get(C).is_none());
    assert_eq!(peers.get(B).map(|peer| peer.acked_of(S)), Some(4));
    peers.check_index(ME, |_| 0);
    peers.came_up(C);
    peers.check();
    assert_eq!((peers.said_more(C), peers.ahead(C).count()), (false, 0), "nothing of it is left");
}

/// Each is counted once, however often the transport says so.
#[test]
fn peers_are_counted_while_they_are_up() {
    let mut peers = Peers::default();
    let steps: [(Step, [bool; 3]); 5] = [
        (|peers| peers.came_up(B), [true, true, false]),
        (|peers| peers.came_up(B), [true, true, false]),
        (|peers| peers.came_up(C), [true, true, true]),
        (|peers| peers.went_down(B), [true, false, true]),
        (|peers| peers.went_down(C), [false, false, false]),
    ];
    for (step, up) in steps {
        step(&mut peers);
        peers.check();
        assert_eq!([peers.any_up(), peers.is_up(B), peers.is_up(C)], up);
    }
}

#[test]
fn strangers_are_remembered_up_to_a_bound() {
    let mut peers = Peers::default();
    let room = (0..1000).take_while(|n| {
        let room = peers.has_room_for_strangers(10);
        peers.came_up(replica(*n));
        room
    });
    assert_eq!(room.count(), 10 + STRANGERS_MAX);
}

#[test]
fn refused_frames_are_told_of_ever_more_rarely() {
    let mut peers = greeted(&[B]);
    let told: Vec<_> = (0..10).filter_map(|_| peers.reject(B)).collect();
    assert_eq!(told, [1, 2, 4, 8]);
    assert_eq!((peers.get(B).map(Peer::rejected), peers.reject(C)), (Some(10), None));
}

#[test]
fn what_a_peer_says_of_us_stays_until_its_next_hello() {
    let mut peers = greeted(&[B]);
    let calls = |peers: &Peers| peers.get(B).is_some_and(Peer::calls_us_stranger);
    peers.calls_us_stranger(B, true);
    assert!(calls(&peers));
    peers.greeted(B, 1);
    assert!(!calls(&peers));
}

// --- what it has ----------------------------------------------------------------------------------------------------

#[test]
fn an_acknowledgement_counts_only_while_the_session_that_gave_it_is_known() {
    let mut peers = greeted(&[B]);
    assert!(peers.acked(B, S, point(3), false) && !peers.acked(B, S, point(3), false));
    peers.went_down(B);
    assert!(!peers.acked(B, S, point(4), false));
    peers.came_up(B);
    assert!(!peers.acked(B, S, point(4), false));
    assert!(peers.greeted(B, 2) && peers.acked(B, S, point(4), false));
    assert!(!peers.acked(C, S, point(4), false), "nobody knows it");
    assert!(peers.was_restored(B, Mono(1), true) && !peers.was_restored(B, Mono(1), true));
    assert_eq!(peers.get(B).map(|peer| peer.acked_of(S)), Some(0));
}

/// The claim of the index, against the comparison that it saves, after anything that can happen.
#[test]
fn the_index_says_what_comparing_everything_would() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut peers, mut tips) = (Peers::default(), BTreeMap::new());
        for _ in 0..60 {
            let (peer, stream) = (replica(rng.u128(1..4)), replica(rng.u128(1..5)));
            let tip = tips.entry(stream).or_insert(0);
            match rng.u8(0..10) {
                0 => peers.came_up(peer),
                1 if peers.is_up(peer) => _ = peers.greeted(peer, rng.u64(0..2)),
                2 => peers.went_down(peer),
                3 => _ = peers.was_restored(peer, Mono(1), true),
                4 => {
                    *tip += rng.u64(1..4);
                    peers.tip_rose(stream, *tip);
                }
                5 => {
                    *tip = rng.u64(0..=*tip);
                    peers.tip_fell(stream, *tip);
                }
                6 => _ = peers.acked(peer, stream, point(rng.u64(1..9)), false),
                7 => peers.rests(peer, Mono(0), &mut rng),
                8 => peers.is_useful(peer),
                _ => peers.has(peer, stream, rng.u64(0..9), *tip),
            }
            peers.check();
            peers.check_index(ME, |stream| tips.get(&stream).copied().unwrap_or(0));
            let ahead = |peer: &ReplicaId| peers.ahead(*peer).count() > 0 && peers.is_up(*peer);
            let able: BTreeSet<_> = able(&peers).into_iter().collect();
            let expected = peers.peers.keys().filter(|peer| ahead(peer) && !peers.rests_now(**peer));
            assert_eq!(able, expected.copied().collect(), "seed {seed}");
        }
    }
}

#[test]
fn a_peer_is_asked_only_for_what_is_wanted_of_it() {
    let mut peers = greeted(&[B, C]);
    peers.has(B, S, 5, 3);
    peers.has(C, S, 3, 3);
    assert_eq!((able(&peers), peers.with_missing(|_, _| false)), (vec![B], vec![]));
    assert_eq!(peers.with_missing(|stream, peer| (stream, peer) == (S, C)), []);
    assert_eq!(peers.ahead(B).collect::<Vec<_>>(), [(S, 5)]);
    peers.tip_rose(S, 5);
    assert_eq!(able(&peers), []);
    peers.has(B, S, 4, 5);
    peers.tip_fell(S, 4);
    assert_eq!(able(&peers), [B], "it has what it once said, though it said less since");
}

/// Its own stream is the one that a restored store may have less of, and other commits.
#[test]
fn a_restored_peer_has_of_its_own_stream_what_it_says_from_then_on() {
    let mut peers = greeted(&[B]);
    peers.has(B, B, 5, 0);
    peers.has(B, S, 5, 0);
    peers.was_restored(B, Mono(1), true);
    assert_eq!(peers.ahead(B).collect::<Vec<_>>(), [(S, 5)]);
    peers.check_index(ME, |_| 0);
    peers.has(B, B, 2, 0);
    assert_eq!(peers.ahead(B).collect::<Vec<_>>(), [(S, 5), (B, 2)]);
}

#[test]
fn a_peer_names_no_more_streams_than_a_group_has() {
    let mut peers = greeted(&[B]);
    for n in 0..STREAMS_MAX as u128 {
        peers.has(B, replica(n), 1, 1);
    }
    peers.has(B, replica(0), 2, 1);
    peers.has(B, replica(u128::MAX), 2, 1);
    assert_eq!(peers.ahead(B).collect::<Vec<_>>(), [(replica(0), 2)]);
}

#[test]
fn a_place_is_compared_once_unless_the_comparison_failed() {
    let mut peers = greeted(&[B]);
    assert!(peers.compares(B, S, 3) && !peers.compares(B, S, 3));
    assert!(peers.compares(B, S, 4) && peers.compares(B, C, 4));
    peers.compares_again(B, S);
    assert!(peers.compares(B, S, 4) && !peers.compares(B, C, 4) && !peers.compares(C, S, 3));
}

// --- pages ----------------------------------------------------------------------------------------------------------

/// What a page says of more than it has is asked for, though no head names it.
#[test]
fn a_peer_that_has_more_is_asked_until_its_next_page_says_otherwise() {
    let mut peers = greeted(&[B]);
    peers.sent_page(B, true, Reach::Pruned);
    assert_eq!((able(&peers), peers.get(B).map(Peer::reach)), (vec![B], Some(Reach::Pruned)));
    peers.is_asked(B);
    assert_eq!((able(&peers), peers.said_more(B)), (vec![], false));
    peers.sent_page(B, true, Reach::Whole);
    assert!(peers.said_more(B));
    peers.sent_page(B, false, Reach::Whole);
    assert_eq!((peers.said_more(B), peers.get(B).map(Peer::reach)), (false, Some(Reach::Whole)));
    peers.sent_page(C, true, Reach::Whole);
    assert!(!peers.said_more(C), "nobody knows it");
}

#[test]
fn a_peer_of_no_use_is_left_alone_until_its_pause_has_ended() {
    let mut peers = greeted(&[B, C]);
    peers.has(B, S, 5, 3);
    peers.rests(B, Mono(1000), &mut rng());
    peers.check();
    assert_eq!(able(&peers), []);
    let until = peers.next_timeout().unwrap();
    peers.rests(C, Mono(2000), &mut rng());
    assert_eq!(peers.next_timeout(), Some(until), "the first of them");
    peers.expire(Mono(until.0 - 1));
    assert_eq!(able(&peers), []);
    peers.expire(until);
    peers.check();
    assert_eq!((able(&peers), peers.rests_now(C)), (vec![B], true));
    assert!(peers.next_timeout().is_some_and(|at| at > until), "what is due is no moment to wait for");
}

#[test]
fn a_pause_ends_when_there_is_a_new_reason_to_ask() {
    let reasons: [(&str, Step); 4] = [
        ("it was of use", |peers| peers.is_useful(B)),
        ("something is new", Peers::all_are_useful),
        ("it came up again", |peers| peers.came_up(B)),
        ("it is in a new session", |peers| _ = peers.greeted(B, 2)),
    ];
    for (name, reason) in reasons {
        let mut peers = greeted(&[B]);
        for _ in 0..5 {
            peers.rests(B, Mono(0), &mut rng());
        }
        reason(&mut peers);
        peers.check();
        assert!(!peers.rests_now(B) && peers.next_timeout().is_none(), "{name}");
        peers.rests(B, Mono(0), &mut rng());
        assert!(peers.next_timeout().is_some_and(|at| at.0 < 400), "{name}: pauses begin anew");
    }
}

// --- what must never be ---------------------------------------------------------------------------------------------

#[test]
fn the_check_finds_what_must_never_be() {
    fn peer(peers: &mut Peers) -> &mut Peer {
        peers.peers.get_mut(&B).unwrap()
    }
    let breaks: [(&str, Step); 7] = [
        ("it is counted once", |peers| peers.up = 2),
        ("nobody knows it, and it is owed something", |peers| _ = peers.owing.insert(C)),
        ("nobody knows it, and it rests", |peers| _ = peers.resting.insert(C)),
        ("nobody knows it, and it has more", |peers| _ = peers.with_more.insert(C)),
        ("it is owed something, and is not paid", |peers| peer(peers).owed.hello = true),
        ("it rests, and nobody looks again", |peers| peer(peers).backoff.again(Mono(0), &mut rng())),
        ("it is down and owed something", |peers| {
            peers.acked(B, S, point(1), false);
            peers.went_down(B);
            peer(peers).owed.hello = true;
            peers.owing.insert(B);
        }),
    ];
    for (name, broken) in breaks {
        let mut peers = greeted(&[B]);
        broken(&mut peers);
        assert!(complaint(|| peers.check()).is_some(), "{name}");
    }
    let mut peers = greeted(&[B]);
    peers.has(B, S, 5, 3);
    peers.check_index(ME, |_| 3);
    assert!(complaint(|| peers.check_index(ME, |_| 5)).is_some(), "who is not ahead is in the index");
    peers.ahead = Ahead::default();
    assert!(complaint(|| peers.check_index(ME, |_| 3)).is_some(), "who is ahead is not");
}

/// The timer of another session is another timer: echoed, it would prove what is not so. A connection that begins may be
/// one of another session.
#[test]
fn the_timer_of_a_peer_is_echoed_in_its_own_session_alone() {
    let mut peers = greeted(&[B]);
    let hears = |peers: &mut Peers| {
        peers.heard_clock(B, &WireClock { sent: 7, ..WireClock::default() }, Mono(10));
        peers.says_hello(B, Mono(20))
    };
    assert_eq!(hears(&mut peers), Some(7));
    assert!(!peers.greeted(B, 1));
    assert_eq!(peers.says_hello(B, Mono(30)), Some(7), "the same session goes on");
    assert!(peers.greeted(B, 2));
    assert_eq!(peers.says_hello(B, Mono(30)), None, "another session on the same connection");
    assert_eq!(hears(&mut peers), Some(7));
    peers.came_up(B);
    assert_eq!(peers.says_hello(B, Mono(30)), None, "another connection");
}
