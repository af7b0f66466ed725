//! Goal: a record whose value says another id than its key, as damage or a peer might leave it, cannot be read, and
//! does not write the row of that other id. Method: one record's value is stored under another key, then a projection
//! is built.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use futures::executor::block_on;
use syncline::{BoxError, Native, Projection, ProjectionState, Syncable, TransactionManager};
use syncline_backends::SqliteStorage;
use syncline_backends::sqlite::rusqlite;

#[derive(Clone, serde::Serialize, serde::Deserialize, Syncable)]
#[sync(model = "word")]
struct Word {
    #[sync(id)]
    id: u32,
    text: String,
}

struct Words;

impl Projection<SqliteStorage> for Words {
    type Model = Word;
    const NAME: &'static str = "words";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Native<'_, SqliteStorage>) -> Result<(), BoxError> {
        Ok(tx.execute_batch("CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT)")?)
    }

    fn put(&self, tx: &Native<'_, SqliteStorage>, word: &Word) -> Result<(), BoxError> {
        tx.execute("INSERT OR REPLACE INTO word VALUES (?, ?)", (word.id, &word.text))?;
        Ok(())
    }

    fn delete(&self, tx: &Native<'_, SqliteStorage>, id: &u32) -> Result<(), BoxError> {
        tx.execute("DELETE FROM word WHERE id = ?", [id])?;
        Ok(())
    }
}

#[test]
fn a_record_that_says_it_is_another_one_projects_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let open = || {
        TransactionManager::builder(SqliteStorage::open(&path).unwrap())
            .device(syncline::DeviceId(syncline::Uuid::from_u128(1)))
            .found(syncline::GroupId(syncline::Uuid::from_u128(2)))
            .model::<Word>()
    };
    let commit = |words: &[(u32, &str)]| {
        block_on(async {
            let (library, driver) = open().open().await.unwrap();
            let app = async {
                let library = library;
                for &(id, text) in words {
                    library.commit(Word { id, text: text.into() }).await.unwrap();
                }
            };
            futures::future::join(app, driver.run()).await.1.unwrap();
        });
    };
    commit(&[(1, "old"), (2, "two")]);
    let app = rusqlite::Connection::open(&path).unwrap();
    let one_over_two = "UPDATE syncline_records SET value = (SELECT value FROM syncline_records WHERE hex(key) LIKE \
                        '%00000001') WHERE hex(key) LIKE '%00000002'";
    assert_eq!(app.execute(one_over_two, []).unwrap(), 1);
    drop(app);
    // The record of id 2 comes after that of id 1, and its value says that id 1 is "old".
    commit(&[(1, "new")]);
    block_on(async {
        let (library, driver) = open().project(Words).open().await.unwrap();
        let app = async {
            let library = library;
            let state = loop {
                let state = library.status().await.unwrap().projections[0].state.clone();
                if !matches!(state, ProjectionState::Rebuilding { .. }) {
                    break state;
                }
            };
            assert_eq!(state, ProjectionState::Complete);
            assert!(library.get::<Word>(2).await.is_err());
        };
        futures::future::join(app, driver.run()).await.1.unwrap();
    });
    let app = rusqlite::Connection::open(&path).unwrap();
    let mut words = app.prepare("SELECT id, text FROM word").unwrap();
    let words = words.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))).unwrap();
    assert_eq!(words.collect::<Result<BTreeMap<_, _>, _>>().unwrap(), BTreeMap::from([(1, "new".into())]));
}
