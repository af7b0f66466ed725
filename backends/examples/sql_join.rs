//! The app's own rows and records in one SQLite transaction, and a table of records that SQL joins with the app's own.
//!
//! Notes are a table of this app alone; tags are records that replicate. `with_tx` writes a note and its tags
//! together. A projection keeps a `tag` table and a full-text index in step with the records, also with those of peers.
//!
//! `cargo run -p syncline-backends --features sqlite --example sql_join`

#![allow(clippy::disallowed_methods, reason = "an app draws its ids as it likes")]

use std::path::Path;

use serde::{Deserialize, Serialize};
use syncline::{BoxError, Projection, Syncable, TransactionManager, Uuid};
use syncline_backends::SqliteStorage;
use syncline_backends::sqlite::rusqlite::{Connection, OptionalExtension, Transaction, params};

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: Uuid,
    note: Uuid,
    name: String,
}

/// The table `tag`, and the full-text index `tag_text` under the same row ids.
struct TagTables;

impl Projection<SqliteStorage> for TagTables {
    type Model = Tag;
    const NAME: &'static str = "tag tables";
    /// Rises with every change of the tables below: the next opening rebuilds them.
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Transaction<'_>) -> Result<(), BoxError> {
        Ok(tx.execute_batch(
            "DROP TABLE IF EXISTS tag;
             DROP TABLE IF EXISTS tag_text;
             CREATE TABLE tag (row INTEGER PRIMARY KEY, id BLOB UNIQUE, note BLOB, name TEXT);
             CREATE INDEX tag_note ON tag (note);
             CREATE VIRTUAL TABLE tag_text USING fts5 (name);",
        )?)
    }

    fn put(&self, tx: &Transaction<'_>, tag: &Tag) -> Result<(), BoxError> {
        let row: i64 = tx
            .prepare_cached(
                "INSERT INTO tag (id, note, name) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET note = excluded.note, name = excluded.name RETURNING row",
            )?
            .query_row(params![tag.id.as_bytes(), tag.note.as_bytes(), tag.name], |row| row.get(0))?;
        tx.prepare_cached("INSERT OR REPLACE INTO tag_text (rowid, name) VALUES (?1, ?2)")?
            .execute(params![row, tag.name])?;
        Ok(())
    }

    fn delete(&self, tx: &Transaction<'_>, id: &Uuid) -> Result<(), BoxError> {
        let row: Option<i64> = tx
            .prepare_cached("DELETE FROM tag WHERE id = ?1 RETURNING row")?
            .query_row([id.as_bytes()], |row| row.get(0))
            .optional()?;
        if let Some(row) = row {
            tx.prepare_cached("DELETE FROM tag_text WHERE rowid = ?1")?.execute([row])?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let data = tempfile::tempdir()?;
    run(&data.path().join("library.sqlite")).await
}

async fn run(path: &Path) -> Result<(), BoxError> {
    let (library, driver) = TransactionManager::builder(SqliteStorage::open(path)?)
        .found_new()
        .project(TagTables) // registers `Tag` too
        .open()
        .await?;
    let driver = tokio::spawn(driver.run());
    library
        .with_tx(|tx| Ok(tx.native().execute_batch("CREATE TABLE note (id BLOB PRIMARY KEY, text TEXT)")?))
        .await?;

    // A note and its tags are one transaction and one commit.
    let note = Uuid::now_v7();
    let summer = library
        .with_tx(move |tx| {
            tx.native().execute("INSERT INTO note VALUES (?1, 'Three days in Rome')", [note.as_bytes()])?;
            tx.put(&Tag { id: Uuid::now_v7(), note, name: "summer holiday".into() })?;
            let summer = Tag { id: Uuid::now_v7(), note, name: "summer".into() };
            tx.put(&summer)?;
            Ok(summer)
        })
        .await?;

    // An error undoes both: there is no second note, and no tag of it.
    let refused = library.with_tx(move |tx| {
        tx.native().execute("INSERT INTO note VALUES (?1, 'never')", [Uuid::now_v7().as_bytes()])?;
        tx.put(&Tag { id: Uuid::now_v7(), note, name: "summer again".into() })?;
        Err::<(), _>("the app thinks better of it".into())
    });
    if let Err(error) = refused.await {
        println!("undone: {error}");
    }

    // The tables follow any other commit as well.
    library.commit_shared(Tag { name: "winter".into(), ..summer }).await?;

    // The app reads with its own SQL, on its own connection.
    let app = Connection::open(path)?;
    let mut joined = app.prepare(
        "SELECT note.text, tag.name FROM note JOIN tag ON tag.note = note.id
         JOIN tag_text ON tag_text.rowid = tag.row WHERE tag_text MATCH ?1 ORDER BY tag.name",
    )?;
    for (word, found) in [("summer", vec!["summer holiday"]), ("winter", vec!["winter"]), ("again", vec![])] {
        let rows =
            joined.query_map([word], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        println!("{word}: {rows:?}");
        assert_eq!(rows.iter().map(|(_, tag)| tag.as_str()).collect::<Vec<_>>(), found);
    }
    library.shutdown().await?;
    Ok(driver.await??)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn plain_sql_finds_what_was_committed_and_nothing_else() {
        super::run(&tempfile::tempdir().unwrap().path().join("library.sqlite")).await.unwrap();
    }
}
