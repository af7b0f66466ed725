//! Slow links: a replica that was away gets what it lacks in the time that the link needs for it, and the link carries
//! hardly anything twice.
//!
//! The clock of the network is virtual, so times are exact, and may be asserted.

use futures::future::join_all;
use syncline::Clock as _;
use syncline_backends::Link;

use super::catching_up::commits_of;
use super::peer::Peer;
use super::world::{World, play};
use crate::Fixture;
use crate::models::note;

/// A link between two replicas: the same in both directions.
#[derive(Clone, Copy, Debug)]
struct Line {
    bytes_a_second: u64,
    round_trip_ms: u64,
}

impl Line {
    fn link(self) -> Link {
        let delay_ms = self.round_trip_ms / 2;
        let bytes_a_second = Some(self.bytes_a_second);
        // The queue holds a page, and one that is asked for behind it.
        Link { delay_ms: delay_ms..=delay_ms, bytes_a_second, queue_bytes_max: 4 << 20, ..Link::default() }
    }

    /// The milliseconds that so many bytes take, when they are asked for once.
    fn needs_ms(self, bytes: u64) -> u64 {
        bytes * 1_000 / self.bytes_a_second + 2 * self.round_trip_ms
    }
}

/// A text that no compression makes shorter.
fn text(id: u32, len: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(id.into());
    std::iter::repeat_with(|| rng.alphanumeric()).take(len).collect()
}

/// Commits notes with texts of these lengths, each in a commit of its own.
async fn commit_notes<F: Fixture>(peer: &Peer<F>, first: u32, lengths: &[usize]) {
    let commits = (first..).zip(lengths).map(|(id, len)| peer.commit(note(id, text(id, *len))));
    join_all(commits).await.into_iter().for_each(|saved| drop(saved.expect("it is saved")));
}

/// An author, and a replica that was away while the author committed notes of these lengths.
struct Away<F: Fixture> {
    author: Peer<F>,
    away: Peer<F>,
    /// The bytes that a third replica needed to get the same over a perfect link.
    needed: u64,
}

async fn away<F: Fixture>(world: &World<'_, F>, lengths: &[usize]) -> Away<F> {
    let [author, mut away, mut third] = world.group().await;
    away.close(world).await;
    third.close(world).await;
    commit_notes(&author, 0, lengths).await;
    world.network.reset_traffic();
    third.reopen(world).await;
    world.converged(&[&author, &third]).await;
    let needed = world.network.traffic(author.id, third.id).sent_bytes;
    third.close(world).await;
    Away { author, away, needed }
}

impl<F: Fixture> Away<F> {
    /// Brings the replica back over a line.
    async fn come_back(&mut self, world: &World<'_, F>, line: Line) {
        world.network.set(self.author.id, self.away.id, line.link());
        world.network.set(self.away.id, self.author.id, line.link());
        world.network.reset_traffic();
        self.away.reopen(world).await;
    }

    fn sent(&self, world: &World<'_, F>) -> u64 {
        world.network.traffic(self.author.id, self.away.id).sent_bytes
    }

    async fn is_level(&self, lacks: u64) -> bool {
        commits_of(&self.away, &self.author).await + lacks >= commits_of(&self.author, &self.author).await
    }

    /// Catches up over a line; says how long it took, and how much was sent.
    async fn catch_up(&mut self, world: &World<'_, F>, line: Line) -> (u64, u64) {
        let began = world.clock.mono();
        self.come_back(world, line).await;
        world.until("it has caught up", async || self.is_level(0).await).await;
        (world.clock.mono().since(began), self.sent(world))
    }
}

/// Plays a catch-up over a line, and compares it with what the line allows.
async fn catches_up<F: Fixture>(fresh: &impl Fn() -> F, line: Line, lengths: &[usize]) {
    play(fresh, async |world| {
        let mut pair = away(world, lengths).await;
        let (took_ms, sent) = pair.catch_up(world, line).await;
        let (needs_ms, needed) = (line.needs_ms(pair.needed), pair.needed);
        println!("{line:?}: {sent} bytes for {needed}, {took_ms} ms for {needs_ms}");
        assert!(sent * 100 <= needed * 115, "{line:?}: {sent} bytes were sent for {needed}");
        assert!(took_ms * 10 <= needs_ms * 12, "{line:?}: it took {took_ms} ms, and needs {needs_ms}");
        world.assert_equal(&mut [&mut pair.author, &mut pair.away]).await;
    })
    .await;
}

/// Goal: on a slow link nothing is sent twice, and the link is never idle. Method: catch up over links of 2 to 60 kB/s,
/// with so many commits of a kilobyte as take 100 s.
///
/// Y16.
pub async fn a_slow_link_is_used_well<F: Fixture>(fresh: &impl Fn() -> F) {
    for bytes_a_second in [2_000, 6_000, 20_000, 60_000] {
        let commits = usize::try_from(bytes_a_second / 10).expect("few commits");
        catches_up(fresh, Line { bytes_a_second, round_trip_ms: 200 }, &vec![850; commits]).await;
    }
}

/// Goal: a page that takes minutes is waited for, and not asked for again. Method: one commit of 1 MB and 200 small ones
/// at 6 kB/s, the large one first, in the middle and last.
///
/// Y16.
pub async fn a_large_commit_takes_its_time_on_a_slow_link<F: Fixture>(fresh: &impl Fn() -> F) {
    for at in [0, 100, 200] {
        let mut lengths = vec![100; 201];
        lengths[at] = 1_000_000;
        catches_up(fresh, Line { bytes_a_second: 6_000, round_trip_ms: 200 }, &lengths).await;
    }
}

/// Goal: a long way costs no idle link: what fits on the way is asked for. Method: round trips of up to 15 s.
///
/// Y16.
pub async fn a_long_round_trip_is_filled<F: Fixture>(fresh: &impl Fn() -> F) {
    for (bytes_a_second, round_trip_ms, seconds) in
        [(2_000, 15_000, 300), (20_000, 15_000, 300), (60_000, 5_000, 100)]
    {
        let commits = usize::try_from(bytes_a_second * seconds / 1_000).expect("few commits");
        catches_up(fresh, Line { bytes_a_second, round_trip_ms }, &vec![850; commits]).await;
    }
}

/// Goal: a replica becomes level although the author goes on, and stays so. Method: 800 commits are missing on a link of
/// 6 kB/s, and four more come every second, which take 56 % of it.
///
/// Y16.
pub async fn a_busy_author_is_caught_up_with<F: Fixture>(fresh: &impl Fn() -> F) {
    const LINE: Line = Line { bytes_a_second: 6_000, round_trip_ms: 200 };
    const COMMITS: usize = 800;
    play(fresh, async |world| {
        // A note of this length takes 840 bytes live.
        let length = 840 - LIVE_BYTES;
        let mut pair = away(world, &[length; COMMITS]).await;
        let (share, left) = (4 * 840, LINE.bytes_a_second - 4 * 840);
        assert_eq!(share * 100 / LINE.bytes_a_second, 56);
        let allowed_ms = pair.needed * 1_000 / left;
        let began = world.clock.mono();
        pair.come_back(world, LINE).await;
        let mut next = u32::try_from(COMMITS).expect("few commits");
        let mut commit = async |pair: &Away<F>| {
            commit_notes(&pair.author, next, &[length]).await;
            next += 1;
            world.pass(250).await;
        };
        let mut took_ms = 0;
        while !pair.is_level(1).await {
            commit(&pair).await;
            took_ms = world.clock.mono().since(began);
            assert!(took_ms * 10 <= allowed_ms * 13, "not level after {took_ms} ms of {allowed_ms}");
        }
        println!("level after {took_ms} ms of {allowed_ms}");
        for _ in 0..240 {
            commit(&pair).await;
            assert!(pair.is_level(2).await, "it falls behind again:\n{}", world.report().await);
        }
        let needed = pair.needed + u64::from(next - 800) * 840;
        let sent = pair.sent(world);
        println!("{sent} bytes for {needed}");
        assert!(sent * 100 <= needed * 115, "{sent} bytes were sent for {needed}");
        world.converged(&[&pair.author, &pair.away]).await;
        world.assert_equal(&mut [&mut pair.author, &mut pair.away]).await;
    })
    .await;
}

/// The bytes of a live commit of a note beside its text, about.
const LIVE_BYTES: usize = 70;
