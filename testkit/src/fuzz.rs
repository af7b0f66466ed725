//! What bytes of an unknown sender must not do: a function for each fuzz target of `testkit/fuzz`. The tests of this
//! crate replay the corpora of the targets.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::executor::block_on;
use futures::future::join;
use syncline::internals::fuzz;
use syncline::{Driver, Incoming, ReplicaId, TransactionManager, Transport as _, Uuid, audit};
use syncline_backends::{MemoryDisk, MemoryNetwork, MemoryStorage};

use crate::StepClock;
use crate::models::{Note, Place};
use crate::replica::app::{DEVICE, GROUP, REPLICA, START_MS, settle};

/// Reads the bytes as a frame, which must not panic.
pub fn frame(bytes: &[u8]) {
    let _ = fuzz::frame(bytes);
}

/// Reads the bytes as a commit, which must not panic.
pub fn commit(bytes: &[u8]) {
    let _ = fuzz::commit(bytes);
}

const PEER: ReplicaId = ReplicaId(Uuid::from_u128(0xbad));

/// Opens a replica that founds the group.
async fn open(
    storage: MemoryStorage,
    replica: ReplicaId,
    network: &MemoryNetwork,
    clock: &StepClock,
) -> (TransactionManager<MemoryStorage>, Driver<MemoryStorage>) {
    let opened = TransactionManager::builder(storage)
        .device(DEVICE)
        .found(GROUP)
        .replica(replica)
        .seed(1)
        .clock(clock.clone())
        .transport(network.transport())
        .model::<Note>()
        .model::<Place>()
        .open();
    opened.await.expect("it opens")
}

/// Feeds the bytes to a whole replica, as frames of a member. Each frame begins with a byte for its kind and two for
/// its length. It is sealed with a checksum that fits; a frame of kind 0 is sent as it is. The store must stay whole,
/// and the replica must go on.
///
/// # Panics
/// If one of them does not.
pub fn replica(bytes: &[u8]) {
    let (network, disk) = (MemoryNetwork::new(), MemoryDisk::new());
    let clock = StepClock::at(START_MS);
    block_on(async {
        let peer = network.transport();
        peer.attach(PEER).await.expect("nobody else has this id");
        let (library, driver) = open(MemoryStorage::open(&disk), REPLICA, &network, &clock).await;
        let work = async {
            library.take_over(PEER, DEVICE).await.expect("a member is added");
            for frame in frames(bytes) {
                let _ = network.inject(PEER, REPLICA, frame);
                settle().await;
                clock.advance(1_000);
            }
            library.status().await.expect("it goes on");
            library.shutdown().await.expect("it ends as it should");
        };
        let (_, ended) = join(work, driver.run()).await;
        assert!(ended.is_ok(), "the driver goes on");
        let violations = audit(&MemoryStorage::open(&disk)).await;
        assert!(violations.is_empty(), "the store is not whole: {violations:?}");
    });
}

/// The messages of a frame as an input of [`replica`]. Those that are too long for its form are left out.
#[must_use]
pub fn as_input(frame: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    for (kind, body) in fuzz::split(frame) {
        if let Ok(len) = u16::try_from(body.len()) {
            input.push(kind);
            input.extend_from_slice(&len.to_be_bytes());
            input.extend_from_slice(&body);
        }
    }
    input
}

/// The frames that a member sends to another one: its hello and commits.
///
/// # Panics
/// If it sends none.
#[must_use]
pub fn what_a_member_sends() -> Vec<Vec<u8>> {
    let (network, clock, mut sent) = (MemoryNetwork::new(), StepClock::at(START_MS), Vec::new());
    block_on(async {
        let (library, driver) = open(MemoryStorage::new(), PEER, &network, &clock).await;
        let other = network.transport();
        other.attach(REPLICA).await.expect("nobody else has this id");
        let work = async {
            library.take_over(REPLICA, DEVICE).await.expect("a member is added");
            for id in 0..4 {
                settle().await;
                clock.advance(1_000);
                while let Some(incoming) = other.receive().now_or_never() {
                    if let Ok(Incoming::Frame { bytes, .. }) = incoming {
                        sent.push(bytes.to_vec());
                    }
                }
                library.commit_shared(Note { id, text: "a note".into() }).await.expect("it commits");
            }
            library.shutdown().await.expect("it ends as it should");
        };
        let (_, ended) = join(work, driver.run()).await;
        assert!(ended.is_ok(), "the driver ends");
    });
    assert!(!sent.is_empty(), "a member sends frames");
    sent
}

/// Cuts the bytes into frames.
fn frames(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, behind) = rest.split_at(len);
        frames.push(match kind {
            0 => Bytes::copy_from_slice(body),
            kind => fuzz::seal(GROUP, *kind, body),
        });
        bytes = behind;
    }
    frames
}
