//! Three replicas, numbered frames, and a waker and a clock that count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use syncline::{Clock, ClockError, Incoming, Mono, ReplicaId, Transport, WallMs};
use syncline_backends::{MemoryNetwork, MemoryTransport};

pub(crate) const A: ReplicaId = ReplicaId::from_bytes([0xA; 16]);
pub(crate) const B: ReplicaId = ReplicaId::from_bytes([0xB; 16]);
pub(crate) const C: ReplicaId = ReplicaId::from_bytes([0xC; 16]);

/// Ends of these replicas, which have received `Up` of each other.
pub(crate) fn ends<const N: usize>(
    network: &MemoryNetwork,
    replicas: [ReplicaId; N],
) -> [MemoryTransport; N] {
    let ends = attached(network, replicas);
    for end in &ends {
        let news = news_and_frames(end);
        assert!(news.iter().all(|incoming| matches!(incoming, Incoming::Up(_))), "{news:?}");
    }
    ends
}

pub(crate) fn attached<const N: usize>(
    network: &MemoryNetwork,
    replicas: [ReplicaId; N],
) -> [MemoryTransport; N] {
    replicas.map(|replica| {
        let end = network.transport();
        now(end.attach(replica)).unwrap();
        end
    })
}

/// Returns what `future` returns. It must not wait.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it does not wait")
}

/// Receives until the end would wait. A wait on the clock ends at once.
pub(crate) fn news_and_frames(end: &MemoryTransport) -> Vec<Incoming> {
    std::iter::from_fn(|| end.receive().now_or_never()).map(Result::unwrap).collect()
}

pub(crate) fn heard(end: &MemoryTransport) -> Vec<(ReplicaId, Bytes)> {
    news_and_frames(end)
        .into_iter()
        .filter_map(|incoming| match incoming {
            Incoming::Frame { from, bytes } => Some((from, bytes)),
            Incoming::Up(_) | Incoming::Down(_) => None,
        })
        .collect()
}

pub(crate) fn bytes_from(peer: ReplicaId, end: &MemoryTransport) -> Vec<Bytes> {
    heard(end).into_iter().filter(|(from, _)| *from == peer).map(|(_, bytes)| bytes).collect()
}

/// A frame of eight bytes.
pub(crate) fn numbered(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

pub(crate) fn numbers(frames: &[Bytes]) -> Vec<u64> {
    frames.iter().map(|bytes| u64::from_be_bytes(bytes[..].try_into().unwrap())).collect()
}

pub(crate) fn frame(from: ReplicaId, n: u64) -> Incoming {
    Incoming::Frame { from, bytes: numbered(n) }
}

/// A waker that counts how often it is woken.
#[derive(Default)]
pub(crate) struct Woken(pub(crate) AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub(crate) fn woken() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (Arc::clone(&woken), Waker::from(woken))
}

/// A clock that stands still and counts how often it is read. A sleep on it never ends.
#[derive(Clone, Default)]
pub(crate) struct Stopped(Arc<AtomicUsize>);

impl Stopped {
    pub(crate) fn asked(&self) -> usize {
        self.0.load(SeqCst)
    }
}

#[async_trait]
impl Clock for Stopped {
    fn wall(&self) -> Result<WallMs, ClockError> {
        self.0.fetch_add(1, SeqCst);
        Ok(WallMs::MIN)
    }

    fn mono(&self) -> Mono {
        self.0.fetch_add(1, SeqCst);
        Mono(1000)
    }

    async fn sleep(&self, _: Duration) {
        self.0.fetch_add(1, SeqCst);
        std::future::pending::<()>().await;
    }
}
