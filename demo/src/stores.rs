//! The stores that the demo runs on, a line each: nothing else in it knows which store it writes to.

use std::path::Path;

use syncline_backends::{RedbStorage, SledStorage, SqliteStorage};

use crate::Result;
use crate::data_dir::DataDir;
use crate::progress::Progress;
use crate::run::{self, Job, Outcome};
use crate::walk::FileSystem;

/// Small, so that what a run occupies is what the library and the demo hold; entries come in the order of their ids,
/// so that a large one is of little use.
const CACHE_BYTES: usize = 4 << 20;

stores! {
    Redb: |dir: &Path| RedbStorage::builder().cache_bytes(CACHE_BYTES).open(dir.join("store.redb")),
    Sled: |dir: &Path| SledStorage::builder().cache_bytes(CACHE_BYTES).open(dir.join("store.sled")),
    Sqlite: |dir: &Path| SqliteStorage::builder().cache_bytes(CACHE_BYTES).open(dir.join("store.sqlite")),
}

/// Makes the enum of the stores, and runs the demo on each with the storage that its line opens.
macro_rules! stores {
    ($($store:ident: $open:expr,)+) => {
        /// A store that the demo runs on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
        pub enum Store {
            $(#[allow(missing_docs, reason = "the name says it")] $store,)+
        }

        impl Store {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$store),+];

            /// Brings the store up to date with the directory `root`, then audits it.
            ///
            /// # Errors
            /// If its directory cannot be created or read; what goes wrong in the store is part of the outcome.
            pub async fn run(self, root: &Path, data: &DataDir, progress: &mut Progress) -> Result<Outcome> {
                let name = self.name();
                let dir = data.store(&name)?;
                let job = Job { tree: FileSystem, root, skip: &data.path, device: data.device, group: data.group(&name) };
                match self {
                    $(Self::$store => {
                        let open = || ($open)(&dir);
                        run::run(open, &dir, &job, progress).await
                    })+
                }
            }
        }
    };
}
use stores;

impl Store {
    /// The store's name, on the command line and on disk.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}
