//! Changes that the app stages to commit them together.

use std::fmt;

use crate::engine::{Action, Commit, Staged};
use crate::error::Error;
use crate::events::RecordKey;
use crate::ids::DeviceId;
use crate::limits::{Limit, Limits, entry_bytes};
use crate::model::{self, Registry};
use crate::sorted::SortedMap;
use crate::stored::record;
use crate::syncable::{Ownership, RecordId, Syncable};
use crate::update::update;

/// The change that is staged for one record.
struct Pending {
    action: Action,
    own_merge: bool,
    bytes: usize,
}

/// Changes that are committed together. See [`commit_batch`](crate::TransactionManager::commit_batch).
pub struct Batch<'a> {
    device: DeviceId,
    models: &'a Registry,
    limits: &'a Limits,
    /// The staged changes in key order, the order in which the store is read and written.
    changes: SortedMap<RecordKey, Pending>,
    bytes: usize,
    /// The most bytes that the log entry of the changes has.
    entry_bytes: usize,
}

impl<'a> Batch<'a> {
    pub(crate) const fn new(device: DeviceId, models: &'a Registry, limits: &'a Limits) -> Self {
        Self { device, models, limits, changes: SortedMap::new(), bytes: 0, entry_bytes: 0 }
    }

    /// Stages putting `model` under its id.
    ///
    /// If its model brings its own merge, the value is merged into the stored one.
    ///
    /// # Errors
    /// [`Error::UnregisteredModel`], [`Error::NotOwner`], [`Error::TooLarge`], [`Error::Encode`]. The batch is then
    /// unchanged.
    pub fn put<M: Syncable>(&mut self, model: &M) -> Result<(), Error> {
        if !M::OWN_MERGE {
            return self.put_as_it_is(model);
        }
        let key = self.name::<M>(&model.sync_id())?;
        // Encode the model now, although the merged value will be stored: `put` must return the error of a model that
        // cannot be encoded.
        let value = model::encode(model, self.limits.value_bytes_max)?;
        let bytes = key.id_bytes().len() + record::value_of(&value.record).len();
        let (id, model) = (model.sync_id(), model.clone());
        self.stage::<M>(key, update(id, self.limits.value_bytes_max, |_| Ok(model), drop), bytes)
    }

    /// Stages a value that replaces the record, without merging.
    pub(crate) fn put_as_it_is<M: Syncable>(&mut self, model: &M) -> Result<(), Error> {
        let key = self.name::<M>(&model.sync_id())?;
        let value = model::encode(model, self.limits.value_bytes_max)?;
        let bytes = key.id_bytes().len() + record::value_of(&value.record).len();
        self.stage::<M>(key, Action::Put(value), bytes)
    }

    /// Stages deleting a record, if it is there.
    ///
    /// # Errors
    /// As [`put`](Batch::put).
    #[allow(
        clippy::needless_pass_by_value,
        reason = "ids are small, and `delete` of the manager takes one too"
    )]
    pub fn delete<M: Syncable>(&mut self, id: RecordId<M>) -> Result<(), Error> {
        let key = self.name::<M>(&id)?;
        let bytes = key.id_bytes().len();
        self.stage::<M>(key, Action::Delete, bytes)
    }

    /// Returns the number of records that the batch changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether nothing is staged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) const fn models(&self) -> &Registry {
        self.models
    }

    /// The action that is staged for a record.
    pub(crate) fn staged(&self, record: &RecordKey) -> Option<&Action> {
        self.changes.get(record).map(|change| &change.action)
    }

    /// The key of a record; an error if this device may not commit the record.
    pub(crate) fn name<M: Syncable>(&self, id: &RecordId<M>) -> Result<RecordKey, Error> {
        self.models.check_commit::<M>()?;
        if let Some(owner) = M::Ownership::split(id).0.filter(|owner| *owner != self.device) {
            return Err(Error::NotOwner { model: M::SYNC_MODEL, owner, device: self.device });
        }
        let key = RecordKey::new::<M>(id);
        let limit = Limit { name: "id_bytes_max", max: self.limits.id_bytes_max };
        within(key.id_bytes().len(), limit)?;
        Ok(key)
    }

    fn stage<M: Syncable>(&mut self, key: RecordKey, action: Action, bytes: usize) -> Result<(), Error> {
        let replaced = self.changes.get(&key).map(|change| change.bytes);
        let count = self.changes.len() + usize::from(replaced.is_none());
        let total = self.bytes + bytes - replaced.unwrap_or(0);
        let entry = self.entry_bytes + if replaced.is_none() { entry_bytes(&key) } else { 0 };
        within(count, Limit { name: "commit_changes_max", max: self.limits.commit_changes_max })?;
        within(total, Limit { name: "commit_bytes_max", max: self.limits.commit_bytes_max })?;
        within(entry, Limit { name: "entry_bytes_max", max: self.limits.entry_bytes_max })?;
        self.changes.insert(key, Pending { action, own_merge: M::OWN_MERGE, bytes });
        (self.bytes, self.entry_bytes) = (total, entry);
        Ok(())
    }

    pub(crate) fn into_commit(self) -> Commit {
        let changes = self.changes.into_iter();
        let staged =
            changes.map(|(record, Pending { action, own_merge, .. })| Staged { record, action, own_merge });
        Commit { changes: staged.collect(), bytes: self.bytes }
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("changes", &self.changes.len()).field("bytes", &self.bytes).finish()
    }
}

fn within(size: usize, limit: Limit) -> Result<(), Error> {
    if size <= limit.max { Ok(()) } else { Err(Error::TooLarge { size, limit }) }
}
