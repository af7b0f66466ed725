//! Goal: the lists for transports run over a real one, with threads and no runtime, which waits, blocks and copies. Method: both
//! lists over sockets of this machine.
//!
//! This is the only test that takes time from the system and opens ports, so it runs every night and not for every change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{BoxError, Incoming, ReplicaId, Transport, TransportError};
use syncline_testkit::transport::{Holds, TransportFixture};
use syncline_testkit::{replication_over_tests, transport_tests};

transport_tests!(tcp, Sockets::default);
replication_over_tests!(over_tcp, Sockets::default);

/// The most that waits at each end of a connection. A frame that is longer than this waits alone.
const QUEUE_FRAMES_MAX: usize = 256;
const QUEUE_BYTES_MAX: usize = 40 << 20;

/// The least that a frame takes on its way: the buffers of the system are counted in bytes, and would hold hundreds of
/// thousands of short frames.
const PADDED_LEN: usize = 1024;

/// The ends of a network by replica, each with the port at which it listens.
#[derive(Clone, Default)]
struct Sockets(Arc<Mutex<BTreeMap<ReplicaId, Arc<Inner>>>>);

#[async_trait]
impl TransportFixture for Sockets {
    type End = End;

    async fn end(&self, _: ReplicaId) -> Result<End, BoxError> {
        Ok(End { sockets: self.clone(), inner: Arc::default() })
    }

    /// The queues of both ends, and what the buffers of the system hold between them.
    fn holds(&self) -> Holds {
        Holds { frames_max: 50_000, bytes_max: 2 * QUEUE_BYTES_MAX + (32 << 20) }
    }

    async fn disconnect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        let end = lock(&self.0).get(&a).cloned().ok_or("it is not attached")?;
        end.hang_up(b);
        Ok(())
    }

    async fn connect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        let (from, to) = {
            let ends = lock(&self.0);
            (ends.get(&a).cloned().ok_or("it is not attached")?, ends.get(&b).map(|end| end.port()))
        };
        Ok(from.dial(b, to.ok_or("it is not attached")?)?)
    }

    async fn close(&self, me: ReplicaId) -> Result<(), BoxError> {
        lock(&self.0).get(&me).ok_or("it is not attached")?.close();
        Ok(())
    }
}

/// One end.
struct End {
    sockets: Sockets,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Default)]
struct State {
    me: Option<ReplicaId>,
    port: u16,
    closed: bool,
    news: VecDeque<Incoming>,
    peers: BTreeMap<ReplicaId, Connection>,
    /// The peer whose frame was received last: the next one has its turn.
    last: Option<ReplicaId>,
    wakers: Vec<Waker>,
    connections: u64,
}

/// A connection: what waits to be written, and what waits to be received.
struct Connection {
    number: u64,
    stream: TcpStream,
    out: Queue,
    arrived: Queue,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    fn has_room(&self, len: usize) -> bool {
        self.frames.is_empty()
            || (self.frames.len() < QUEUE_FRAMES_MAX && self.bytes + len <= QUEUE_BYTES_MAX)
    }

    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn port(&self) -> u16 {
        lock(&self.state).port
    }

    /// Wakes the tasks that receive and the threads that wait for room or for frames.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.room.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn dial(self: &Arc<Self>, peer: ReplicaId, port: u16) -> io::Result<()> {
        let me = lock(&self.state).me.ok_or(io::ErrorKind::NotConnected)?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        // Whoever dials says who it is; a real transport proves it.
        stream.write_all(me.as_bytes())?;
        self.connected(peer, stream)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut id = [0; 16];
            if lock(&self.state).closed {
                return;
            }
            if stream.read_exact(&mut id).is_ok() {
                let _ = self.connected(ReplicaId::from_bytes(id), stream);
            }
        }
    }

    fn connected(self: &Arc<Self>, peer: ReplicaId, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (reads, writes) = (stream.try_clone()?, stream.try_clone()?);
        self.hang_up(peer);
        let mut state = lock(&self.state);
        if state.closed {
            return Ok(());
        }
        state.connections += 1;
        let number = state.connections;
        let connection = Connection { number, stream, out: Queue::default(), arrived: Queue::default() };
        state.peers.insert(peer, connection);
        state.news.push_back(Incoming::Up(peer));
        self.changed(state);
        let inner = Arc::clone(self);
        thread::spawn(move || {
            let _ = inner.read(peer, number, reads);
            inner.gone(peer, number);
        });
        let inner = Arc::clone(self);
        thread::spawn(move || {
            let _ = inner.write(peer, number, writes);
            inner.gone(peer, number);
        });
        Ok(())
    }

    fn read(&self, peer: ReplicaId, number: u64, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut len = [0; 4];
            stream.read_exact(&mut len)?;
            let mut frame = vec![0; u32::from_be_bytes(len) as usize];
            stream.read_exact(&mut frame)?;
            let mut padding = [0; PADDED_LEN];
            stream.read_exact(&mut padding[frame.len().min(PADDED_LEN)..])?;
            let mut state = lock(&self.state);
            // Each peer has room of its own: one that floods waits for itself alone.
            loop {
                let Some(connection) = state.peers.get_mut(&peer).filter(|one| one.number == number) else {
                    return Ok(());
                };
                if connection.arrived.has_room(frame.len()) {
                    connection.arrived.push(frame.into());
                    break;
                }
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            self.changed(state);
        }
    }

    fn write(&self, peer: ReplicaId, number: u64, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let frame = {
                let mut state = lock(&self.state);
                loop {
                    let Some(connection) = state.peers.get_mut(&peer).filter(|one| one.number == number)
                    else {
                        return Ok(());
                    };
                    if let Some(frame) = connection.out.pop() {
                        break frame;
                    }
                    state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            stream.write_all(&u32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes())?;
            stream.write_all(&frame)?;
            stream.write_all(&[0; PADDED_LEN][frame.len().min(PADDED_LEN)..])?;
        }
    }

    fn hang_up(&self, peer: ReplicaId) {
        let number = lock(&self.state).peers.get(&peer).map(|connection| connection.number);
        number.into_iter().for_each(|number| self.gone(peer, number));
    }

    fn gone(&self, peer: ReplicaId, number: u64) {
        let mut state = lock(&self.state);
        if state.peers.get(&peer).is_some_and(|connection| connection.number == number) {
            let connection = state.peers.remove(&peer);
            let _ = connection.map(|connection| connection.stream.shutdown(Shutdown::Both));
            // An `Up` that nobody heard is taken back, so that peers that come and go fill no memory.
            match state.news.iter().position(|news| *news == Incoming::Up(peer)) {
                Some(unheard) => drop(state.news.remove(unheard)),
                None => state.news.push_back(Incoming::Down(peer)),
            }
            self.changed(state);
        }
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (peers, port) = (std::mem::take(&mut state.peers), state.port);
        for connection in peers.into_values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        self.changed(state);
        // The listener waits for one more connection, to see that it has ended.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    }
}

#[async_trait]
impl Transport for End {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        {
            let mut state = lock(&self.inner.state);
            if state.me.is_some() {
                return Err(TransportError::refused("a replica has attached this end already"));
            }
            let listener =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(TransportError::not_started)?;
            state.port = listener.local_addr().map_err(TransportError::not_started)?.port();
            state.me = Some(me);
            let inner = Arc::clone(&self.inner);
            thread::spawn(move || inner.accept(&listener));
        }
        let others: Vec<_> = lock(&self.sockets.0).iter().map(|(peer, end)| (*peer, end.port())).collect();
        for (peer, port) in others {
            // A peer that has just gone is no reason not to start.
            let _ = self.inner.dial(peer, port);
        }
        lock(&self.sockets.0).insert(me, Arc::clone(&self.inner));
        Ok(())
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        let mut state = lock(&self.inner.state);
        if state.closed {
            return Err(TransportError::closed("the network was taken away"));
        }
        let connection = state.peers.get_mut(&to).ok_or(TransportError::Unreachable(to))?;
        if connection.out.has_room(frame.len()) {
            connection.out.push(frame);
        }
        drop(state);
        self.inner.room.notify_all();
        Ok(())
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.inner.state);
            if state.closed {
                return Poll::Ready(Err(TransportError::closed("the network was taken away")));
            }
            if let Some(news) = state.news.pop_front() {
                return Poll::Ready(Ok(news));
            }
            let waiting = |(_, connection): &(&ReplicaId, &Connection)| !connection.arrived.frames.is_empty();
            let mut peers = state.peers.iter().filter(waiting).map(|(peer, _)| *peer);
            let first = peers.clone().next();
            let next = peers.find(|peer| Some(*peer) > state.last).or(first);
            let frame = next.and_then(|peer| Some((peer, state.peers.get_mut(&peer)?.arrived.pop()?)));
            if let Some((from, bytes)) = frame {
                state.last = Some(from);
                drop(state);
                self.inner.room.notify_all();
                return Poll::Ready(Ok(Incoming::Frame { from, bytes }));
            }
            state.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut ends = lock(&self.sockets.0);
        ends.retain(|_, end| !Arc::ptr_eq(end, &self.inner));
        drop(ends);
        if lock(&self.inner.state).me.is_some() {
            self.inner.close();
        }
    }
}
