//! Opens a store: collects the app's wishes, reads the store, checks one against the other, writes a new identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use crate::clock::{Clock, SystemClock};
use crate::driver::{Channels, Driver, OpenStore, read_clock};
use crate::engine::{self, Ask, Contents, LogEnd, Rules};
use crate::error::OpenError;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::limits::Limits;
use crate::manager::{Inner, TransactionManager};
use crate::member::Member;
use crate::model::Registry;
use crate::overlay::Shown;
use crate::pages::{Pages, is_empty};
use crate::projection::{Declared, Projecting};
use crate::storage::{Entry, KeyRange, ReadError, Storage, WriteBatch};
use crate::stored::FormatError;
use crate::stored::keys::{self, RecordKey};
use crate::syncable::{MODEL_BYTES_MAX, Syncable};
use crate::transport::Transport;

/// Says what a store shall be, then [opens](Builder::open) it.
///
/// A new store [founds](Builder::found_new) a group or [joins](Builder::join) one. Later openings take group, device and
/// replica from the store; naming them again checks them. So the same program can be started again and again:
///
/// ```
/// # use syncline::{OpenError, Storage, TransactionManager};
/// # async fn example<S: Storage>(store: S) -> Result<(), OpenError> {
/// let (library, driver) = TransactionManager::builder(store).found_new().open().await?;
/// println!("device {} of group {}", library.device(), library.group());
/// # Ok(()) }
/// ```
pub struct Builder<S> {
    storage: S,
    device: Option<DeviceId>,
    group: Option<Wanted>,
    introducer: Option<ReplicaId>,
    replica: Option<ReplicaId>,
    seed: Option<u64>,
    transport: Option<Arc<dyn Transport>>,
    models: Result<Registry, OpenError>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    pub(crate) rules: Rules,
    pub(crate) checked: bool,
    pub(crate) projections: Option<Arc<dyn Projecting<S>>>,
}

/// The group that the app wants.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Named(GroupId),
    /// One of its own, if the store is new.
    Fresh,
}

impl<S: Storage> Builder<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self {
            storage,
            device: None,
            group: None,
            introducer: None,
            replica: None,
            seed: None,
            transport: None,
            models: Ok(Registry::new()),
            clock: Arc::new(SystemClock::new()),
            limits: Limits::default(),
            rules: Rules::default(),
            checked: cfg!(test),
            projections: None,
        }
    }

    /// Names the device that the store belongs to. A new store draws one unless it is named.
    ///
    /// Name it to give a device the same id in a new store, after its first store was lost: only then may it change the
    /// records that it owned before.
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// Lets a new store found a group of its own, as its first member. A store that has a group keeps it.
    #[must_use]
    pub fn found_new(mut self) -> Self {
        self.group = Some(Wanted::Fresh);
        self.introducer = None;
        self
    }

    /// Names the group that a new store founds, as its first member.
    ///
    /// For an id that is fixed, as in tests: a store of another group is refused with
    /// [`OpenError::OtherGroup`]. [`found_new`](Builder::found_new) draws an id when the store is new.
    #[must_use]
    pub fn found(mut self, group: GroupId) -> Self {
        self.group = Some(Wanted::Named(group));
        self.introducer = None;
        self
    }

    /// Names the group that a new store joins, and its introducer: the member from whom it learns the group.
    ///
    /// The new replica knocks at the introducer, which tells its app ([`Event::Knocks`](crate::Event::Knocks)), and a
    /// member must [add](TransactionManager::add_member) it. Until its member record has arrived here, this replica
    /// listens to the introducer alone, serves nobody and commits nothing; its status says
    /// [why it waits](crate::Status::joining).
    ///
    /// A joiner that waits and is opened again with another introducer asks that one from then on. A member needs none,
    /// so the introducer is not looked at there; the group is.
    #[must_use]
    pub fn join(mut self, group: GroupId, introducer: ReplicaId) -> Self {
        self.group = Some(Wanted::Named(group));
        self.introducer = Some(introducer);
        self
    }

    /// Sets the transport through which this replica reaches its peers. Without one it works alone.
    ///
    /// A group of one that works alone prunes its log, since no other replica needs it; a replica that joins later
    /// could not get the pruned commits. If the data may ever be shared, pass a transport on the first open.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Registers a model. A model that is not registered here can be neither read nor committed.
    #[must_use]
    pub fn model<M: Syncable>(mut self) -> Self {
        if let Ok(models) = &mut self.models {
            // `open` reports the first mistake.
            if let Err(error) = models.add::<M>() {
                self.models = Err(error);
            }
        }
        self
    }

    /// Sets the clock that tells the time; [`SystemClock`] unless set.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the caps on memory and sizes.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the replica id that a new store gets instead of a random one, so that tests can be repeated.
    ///
    /// Two stores must never have the same replica id: they would write the same stream.
    #[must_use]
    pub fn replica(mut self, replica: ReplicaId) -> Self {
        self.replica = Some(replica);
        self
    }

    /// Sets the seed of everything random at runtime, so that tests can be repeated. Drawn unless set.
    ///
    /// Random are the session and the moments of retries.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(crate) fn with_projections(mut self, projections: Arc<dyn Projecting<S>>) -> Self {
        self.projections = Some(projections);
        self
    }

    /// Opens the store.
    ///
    /// Reads the store and checks it against the app's wishes. The first opening writes the identity, and founds the
    /// group unless the replica joins one.
    ///
    /// The head of each stream is compared with the last row of its log, which is one read for each stream. A head or a row
    /// that is damaged does not fail the opening: its stream goes no further here, which is in the
    /// [status](crate::StreamStatus::damaged), and an [event](crate::Event::Damaged) once the driver is run. If the stream is
    /// the own one, commits fail with [`Error::LogDamaged`](crate::Error::LogDamaged).
    /// [`check_log`](TransactionManager::check_log) mends it. Damage inside of a log is found when it is served, or by
    /// `check_log`. What cannot be read at all, such as an identity or a member record, is [`OpenError::Format`].
    ///
    /// Returns the manager, which is cheap to clone, and the driver, whose
    /// [`run`](crate::Driver::run) the app spawns.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing was written, except perhaps with [`OpenError::Write`] of an unknown outcome; the
    /// store is closed.
    ///
    /// # Cancel safety
    /// Dropping the future releases the store. A first opening is there whole or not at all.
    pub async fn open(self) -> Result<(TransactionManager<S>, Driver<S>), OpenError> {
        let Self { storage, device, group, models, clock, rules, projections, transport, .. } = self;
        let models = Arc::new(models?);
        self.limits.check()?;
        let limits = Arc::new(self.limits.lowered(&storage.location(), storage.limits())?);
        let declared = projections.as_ref().map_or_else(Vec::new, |all| all.declared());
        check_names(&declared)?;
        let projected = projections.as_ref().map_or_else(Vec::new, |all| all.ranges());
        let location = storage.location();
        let found = find(&storage).await.map_err(|error| error.at(&location))?;
        let is_new = found.identity.is_none();
        let ask = Ask {
            device,
            group: group.and_then(|group| match group {
                Wanted::Named(group) => Some(group),
                Wanted::Fresh => is_new.then(GroupId::new),
            }),
            introducer: self.introducer,
            networked: transport.is_some(),
            seed: self.seed.unwrap_or_else(random_seed),
            limits: Arc::clone(&limits),
            rules,
            replica: self.replica.unwrap_or_else(ReplicaId::new),
            new_device: DeviceId::new(),
            projections: declared,
            projected,
            location: location.clone(),
            checked: self.checked,
        };
        let (engine, batch) = engine::open(ask, &found, &models, read_clock(&*clock))?;
        if let Some(transport) = &transport {
            let attached = transport.attach(engine.me()).await;
            attached.map_err(|source| OpenError::Transport { location: location.clone(), source })?;
        }
        if !batch.is_empty() {
            write(&storage, batch).await?;
        }
        if let Some(all) = &projections {
            Arc::clone(all).begin(&storage, &found.projections).await?;
        }

        let (closed, when_closed) = watch::channel(());
        let store = Arc::new(OpenStore { store: storage, _closed: closed });
        let (send_request, requests) = mpsc::unbounded_channel();
        let (send_control, control) = mpsc::unbounded_channel();
        let queue = Arc::new(Semaphore::new(0));
        let queue_bytes_max = limits.queue_bytes_max;
        let (begin, begun) = watch::channel(false);
        let (notices, _) = broadcast::channel(limits.event_commits_max);
        let stop_reason = Arc::new(OnceLock::new());
        let folding = Arc::new(AtomicBool::new(found.besides));
        let overlay = Arc::new(Shown::new(engine.overlay()));
        let own_commits = Arc::new(AtomicU64::new(engine.own_commits()));
        let manager = TransactionManager::new(Inner {
            store: Arc::downgrade(&store),
            requests: send_request,
            control: send_control,
            queue: Arc::clone(&queue),
            notices: notices.downgrade(),
            closed: when_closed,
            stop_reason: Arc::clone(&stop_reason),
            begun,
            clock: Arc::clone(&clock),
            identity: engine.identity(),
            folding: Arc::clone(&folding),
            overlay: Arc::clone(&overlay),
            models,
            limits,
            projections: projections.clone(),
            adding: Default::default(),
            own_commits: Arc::clone(&own_commits),
            waits: AtomicU64::new(0),
        });
        let notices = Some(notices);
        let begun = begin;
        let channels = Channels {
            requests,
            control,
            queue,
            queue_bytes_max,
            begun,
            notices,
            stop_reason,
            folding,
            overlay,
            own_commits,
        };
        Ok((manager, Driver::new(engine, store, clock, transport, channels, projections)))
    }
}

impl<S: Storage> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("storage", &self.storage.location())
            .field("device", &self.device)
            .field("group", &self.group)
            .field("models", &self.models)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why a store could not be read before it is opened.
enum NotFound {
    Read(ReadError),
    Format(FormatError),
    Other(OpenError),
}

impl NotFound {
    fn at(self, location: &str) -> OpenError {
        let location = location.to_owned();
        match self {
            Self::Read(source) => OpenError::Read { location, source },
            Self::Format(source) => OpenError::Format { location, source },
            Self::Other(error) => error,
        }
    }
}

impl From<ReadError> for NotFound {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<FormatError> for NotFound {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<OpenError> for NotFound {
    fn from(error: OpenError) -> Self {
        Self::Other(error)
    }
}

/// Draws a seed from a random id, since ids are the one source of randomness in this crate.
fn random_seed() -> u64 {
    let [a, b, c, d, e, f, _, _, _, g, h, ..] = *ReplicaId::new().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

async fn write(storage: &impl Storage, batch: WriteBatch) -> Result<(), OpenError> {
    let written = storage.write(batch).await;
    written.map_err(|source| OpenError::Write { location: storage.location(), source })
}

async fn find(storage: &impl Storage) -> Result<Contents, NotFound> {
    let mut values = storage.get_many(&Contents::keys()).await?.into_iter();
    let heads = Pages::new(storage, keys::heads()).all().await?;
    let members = RecordKey::range_of_model::<Member>();
    Ok(Contents {
        identity: values.next().flatten(),
        clock: values.next().flatten(),
        introducer: values.next().flatten(),
        any: !is_empty(storage, KeyRange::all()).await?,
        models: Pages::new(storage, keys::models()).all().await?,
        projections: engine::read_projections(&Pages::new(storage, keys::projections()).all().await?)?,
        ends: ends(storage, &heads).await?,
        heads,
        staged_members: Pages::new(storage, keys::staged_range(&members)).all().await?,
        members: Pages::new(storage, members).all().await?,
        peers: Pages::new(storage, keys::peers()).all().await?,
        forks: Pages::new(storage, keys::forks()).all().await?,
        forgotten: Pages::new(storage, keys::all_forgotten()).all().await?,
        install: storage.get_many(&[keys::install()]).await?.into_iter().next().flatten(),
        staged_heads: Pages::new(storage, keys::staged_range(&keys::heads())).all().await?,
        besides: !is_empty(storage, keys::besides()).await?,
    })
}

/// The most streams whose last log rows are in memory at once.
const ENDS_AT_ONCE: usize = 16;

/// Reads the ends of the logs.
async fn ends(storage: &impl Storage, heads: &[Entry]) -> Result<BTreeMap<ReplicaId, LogEnd>, ReadError> {
    let mut ends = BTreeMap::new();
    for heads in heads.chunks(ENDS_AT_ONCE) {
        let (streams, keys): (Vec<_>, Vec<_>) = heads.iter().filter_map(LogEnd::key).unzip();
        let rows = storage.get_many(&keys).await?;
        let found = streams.into_iter().zip(&rows);
        ends.extend(found.map(|(stream, row)| (stream, LogEnd::of(stream, row.as_ref()))));
    }
    Ok(ends)
}

fn check_names(projections: &[Declared]) -> Result<(), OpenError> {
    let mut names = BTreeSet::new();
    for &Declared { name: projection, .. } in projections {
        let fail = |rule| Err(OpenError::ProjectionName { projection, rule });
        if projection.is_empty() || projection.len() > MODEL_BYTES_MAX {
            return fail("a name has 1 to 64 bytes; choose another one");
        }
        if !names.insert(projection) {
            return fail("another projection has it; give each a name of its own");
        }
    }
    Ok(())
}
