//! Everything that an app can read of a replica.

use futures::TryStreamExt as _;
use syncline::{Storage, Syncable, TransactionManager};

use crate::models::{Basket, Note, Place};

/// The records of all models.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) notes: Vec<Note>,
    pub(super) places: Vec<Place>,
    pub(super) baskets: Vec<Basket>,
}

impl Contents {
    pub(super) async fn of<S: Storage>(library: &TransactionManager<S>) -> Self {
        Self { notes: all(library).await, places: all(library).await, baskets: all(library).await }
    }
}

/// All records of a model.
pub(super) async fn all<M: Syncable, S: Storage>(library: &TransactionManager<S>) -> Vec<M> {
    library.list::<M>().page_size(1000).into_stream().try_collect().await.expect("the records can be read")
}
