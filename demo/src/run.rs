//! One store: walk, merge, commit, close, audit. The same code for every store.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use syncline::{Batch, BoxError, DeviceId, GroupId, Limits, Storage, TransactionManager, Violation, audit};

use crate::Result;
use crate::data_dir::bytes_in;
use crate::kinds::DIRECTORY;
use crate::merge::{Merge, Step};
use crate::models::{Entry, Tag};
use crate::path_id::{ID_BYTES_MAX, PathId};
use crate::progress::Progress;
use crate::walk::{Tree, Walk};

/// The changes of one commit: enough that one flush of the disk serves many, and what the benchmark commits.
pub const BATCH_CHANGES: usize = 1000;

/// What is kept, and whose it is.
#[derive(Clone, Debug)]
pub struct Job<'a, T> {
    /// What is walked over.
    pub tree: T,
    /// Where the walk begins.
    pub root: &'a Path,
    /// Where it does not go.
    pub skip: &'a Path,
    /// Whose entries they are.
    pub device: DeviceId,
    /// The group of the store.
    pub group: GroupId,
}

/// What became of one store.
#[derive(Debug)]
pub struct Outcome {
    /// What the run did, or why it broke off; what it committed before that stays.
    pub counts: Result<Counts>,
    /// What the audit found, or why the store could not be opened for it.
    pub audit: Result<Vec<Violation>>,
    /// The length of the store's files after it was closed.
    pub disk_bytes: u64,
}

/// What a run did, and what the store holds after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The entries that are not directories.
    pub files: u64,
    /// The directories.
    pub directories: u64,
    /// The tags.
    pub tags: u64,
    /// The entries that were new, and tags.
    pub added: u64,
    /// The entries that had changed.
    pub changed: u64,
    /// The entries that were gone.
    pub deleted: u64,
    /// The entries that nobody could look at.
    pub kept: u64,
    /// The commits of this run.
    pub commits: u64,
    /// The time spent in them.
    pub commit_time: Duration,
}

impl Counts {
    /// The records that the store holds.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.files + self.directories + self.tags
    }

    /// The changes that were committed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.added + self.changed + self.deleted
    }
}

/// Brings the store that `open` opens, in `dir`, up to date, then audits it.
///
/// Blocks while it walks, so it belongs where a runtime with threads of its own waits for it.
///
/// # Errors
/// If `dir` cannot be read. What goes wrong in the store is part of the outcome.
pub async fn run<S, E, T>(
    open: impl Fn() -> std::result::Result<S, E>,
    dir: &Path,
    job: &Job<'_, T>,
    progress: &mut Progress,
) -> Result<Outcome>
where
    S: Storage,
    E: Into<BoxError>,
    T: Tree,
{
    let counts = match open() {
        Ok(storage) => update(storage, job, progress).await,
        Err(error) => Err(error.into()),
    };
    // A store that a run could not use is what an audit is for.
    progress.say("audit");
    let audit = match open() {
        Ok(storage) => Ok(audit(&storage).await),
        Err(error) => Err(error.into()),
    };
    let disk_bytes = bytes_in(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    progress.end();
    Ok(Outcome { counts, audit, disk_bytes })
}

/// Commits what differs between the directory and the store, and closes the store.
async fn update<S: Storage, T: Tree>(
    storage: S,
    job: &Job<'_, T>,
    progress: &mut Progress,
) -> Result<Counts> {
    let (library, driver) = TransactionManager::builder(storage)
        .device(job.device)
        .found(job.group)
        .limits(Limits { id_bytes_max: ID_BYTES_MAX, ..Limits::default() })
        .model::<Entry>()
        .model::<Tag>()
        .open()
        .await?;
    let driver = tokio::spawn(driver.run());
    let counts = merge(&library, job, progress).await;
    let closed = library.shutdown().await;
    let ended = driver.await?;
    // What the merge says comes first: a driver that stopped then says only that it has.
    let counts = counts?;
    closed?;
    ended?;
    Ok(counts)
}

async fn merge<S: Storage, T: Tree>(
    library: &TransactionManager<S>,
    job: &Job<'_, T>,
    progress: &mut Progress,
) -> Result<Counts> {
    let tags: Vec<Tag> = library.list::<Tag>().into_stream().try_collect().await?;
    let walk = Walk::new(job.tree.clone(), job.root, job.skip, job.device);
    let stored = library.list_of::<Entry>(job.device).into_stream().map_err(BoxError::from);
    // The walk blocks this task, which stands still while the store writes. On a thread of its own it would end
    // sooner, but take the processor from the store, and the rate of the commits would be less than they can do.
    let mut merge = Merge::new(walk, Box::pin(stored));
    let mut committer = Committer::new(library, tags);
    while let Some(step) = merge.next().await? {
        if !matches!(step, Step::Delete(_) | Step::Keep(_)) {
            progress.advance();
        }
        committer.take(step).await?;
    }
    committer.finish().await
}

/// A change of the store.
enum Change {
    PutEntry(Entry),
    PutTag(Tag),
    DeleteEntry(DeviceId, PathId),
}

impl Change {
    fn stage(&self, batch: &mut Batch<'_>) -> std::result::Result<(), syncline::Error> {
        match self {
            Self::PutEntry(entry) => batch.put(entry),
            Self::PutTag(tag) => batch.put(tag),
            Self::DeleteEntry(device, path) => batch.delete::<Entry>((*device, path.clone())),
        }
    }
}

/// Gathers changes and commits them in batches.
struct Committer<'a, S: Storage> {
    library: &'a TransactionManager<S>,
    /// The kinds that have a tag, in the store or among the gathered changes.
    kinds: BTreeSet<String>,
    changes: Vec<Change>,
    counts: Counts,
}

impl<'a, S: Storage> Committer<'a, S> {
    fn new(library: &'a TransactionManager<S>, tags: Vec<Tag>) -> Self {
        let counts = Counts { tags: tags.len() as u64, ..Counts::default() };
        let kinds = tags.into_iter().map(|tag| tag.id).collect();
        Self { library, kinds, changes: Vec::with_capacity(BATCH_CHANGES), counts }
    }

    async fn take(&mut self, step: Step) -> Result<()> {
        let counts = &mut self.counts;
        match &step {
            Step::Delete(_) => {}
            Step::Add(entry) | Step::Change(entry) | Step::Same(entry) | Step::Keep(entry) => {
                *(if entry.kind == DIRECTORY { &mut counts.directories } else { &mut counts.files }) += 1;
            }
        }
        match step {
            Step::Add(entry) => {
                counts.added += 1;
                self.put(entry).await
            }
            Step::Change(entry) => {
                counts.changed += 1;
                self.put(entry).await
            }
            Step::Delete(entry) => {
                counts.deleted += 1;
                self.make_room(1).await?;
                self.changes.push(Change::DeleteEntry(entry.device_id, entry.path));
                Ok(())
            }
            Step::Keep(_) => {
                counts.kept += 1;
                Ok(())
            }
            Step::Same(_) => Ok(()),
        }
    }

    /// An entry, and in the same commit the tag of its kind if it is the first of it.
    async fn put(&mut self, entry: Entry) -> Result<()> {
        let first = !self.kinds.contains(&entry.kind);
        self.make_room(1 + usize::from(first)).await?;
        if first {
            self.kinds.insert(entry.kind.clone());
            self.counts.tags += 1;
            self.counts.added += 1;
            self.changes.push(Change::PutTag(Tag::of_kind(&entry.kind)));
        }
        self.changes.push(Change::PutEntry(entry));
        Ok(())
    }

    async fn make_room(&mut self, changes: usize) -> Result<()> {
        if self.changes.len() + changes > BATCH_CHANGES { self.commit().await } else { Ok(()) }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the rate is for a person to read; nothing that is stored depends on it"
    )]
    async fn commit(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let changes = &self.changes;
        self.library
            .commit_batch(|batch| Ok(changes.iter().try_for_each(|change| change.stage(batch))?))
            .await?;
        self.counts.commit_time += started.elapsed();
        self.counts.commits += 1;
        self.changes.clear();
        Ok(())
    }

    async fn finish(mut self) -> Result<Counts> {
        self.commit().await?;
        Ok(self.counts)
    }
}
