//! The fixture that the author of a transport writes to run the list: a network, and the ends of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use syncline::{BoxError, Clock, ReplicaId, SystemClock, Transport};

/// A network, on which the properties make ends.
///
/// A new fixture is a network without ends. Every two ends reach each other once both are attached, without a call: the
/// fixture tells the ends of each other. The network is at peace: it loses nothing unless an end is flooded.
///
/// Only [`end`](Self::end) and [`holds`](Self::holds) must be written. A property that needs another method fails as long as the
/// method is not there, and says so. Where the network cannot do such a thing, the property is named in the line that
/// makes the tests, with the reason, and `cargo test` prints it as ignored.
#[async_trait]
pub trait TransportFixture: Send + Sync + 'static {
    /// The transport under test.
    type End: Transport;

    /// Makes an end, to which the property then attaches `me`. An earlier end of `me` was dropped.
    ///
    /// # Errors
    /// What the network reports, such as a port that is taken.
    async fn end(&self, me: ReplicaId) -> Result<Self::End, BoxError>;

    /// Returns how much may be on the way from one end to another one that does not read, in the queues of both ends and of
    /// the system between them.
    fn holds(&self) -> Holds;

    /// Takes the connection of two attached ends away: both must say `Down`.
    ///
    /// # Errors
    /// What the network reports; by default, that the fixture cannot do it.
    async fn disconnect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        let _ = (a, b);
        Err(missing("disconnect"))
    }

    /// Lets two ends that were [disconnected](Self::disconnect) reach each other again: both must say `Up`.
    ///
    /// # Errors
    /// What the network reports; by default, that the fixture cannot do it.
    async fn connect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        let _ = (a, b);
        Err(missing("connect"))
    }

    /// Ends the attached end of `me` for good, as the platform would that takes the network away.
    ///
    /// # Errors
    /// What the network reports; by default, that the fixture cannot do it.
    async fn close(&self, me: ReplicaId) -> Result<(), BoxError> {
        let _ = me;
        Err(missing("close"))
    }

    /// Returns the clock by which the properties wait for what must come; by default the platform's.
    ///
    /// A network that delivers without any wait gives a [`ManualClock`](crate::ManualClock): then nothing is waited for that
    /// does not come.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::new())
    }

    /// Runs a property to its end. A transport that needs a runtime overrides this: `self.runtime.block_on(property)`.
    fn block_on(&self, property: Pin<Box<dyn Future<Output = ()> + '_>>) {
        futures::executor::block_on(property);
    }
}

/// How much a network holds between an end that sends and one that does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// The most frames.
    pub frames_max: usize,
    /// The most bytes of frames.
    pub bytes_max: usize,
}

fn missing(method: &str) -> BoxError {
    format!(
        "the fixture has no `TransportFixture::{method}`: write it, or name this property behind `ignore` in \
         `transport_tests!` with the reason why the network has no such thing"
    )
    .into()
}
