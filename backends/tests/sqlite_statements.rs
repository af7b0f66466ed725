//! Goal: an app whose statement is refused learns which one, why, and what to do; a closure that goes on without it is
//! committed. Method: closures of `with_tx` with such statements, and the text of the error.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use syncline::{Error, StatementError, Syncable, TransactionManager};
use syncline_backends::SqliteStorage;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: u32,
}

type Library = TransactionManager<SqliteStorage>;

async fn library(directory: &tempfile::TempDir) -> Library {
    let store = SqliteStorage::open(directory.path().join("app.sqlite")).unwrap();
    let (library, driver) =
        TransactionManager::builder(store).found_new().model::<Tag>().open().await.unwrap();
    tokio::spawn(driver.run());
    let schema = "CREATE TABLE album (id INTEGER PRIMARY KEY);
        CREATE TABLE photo (album INTEGER REFERENCES album (id) DEFERRABLE INITIALLY DEFERRED)";
    library.with_tx(move |tx| Ok(tx.native().execute_batch(schema)?)).await.unwrap();
    library
}

/// The error of a closure that runs `sql` and stages a record.
async fn refused(library: &Library, sql: &'static str) -> Error {
    let refused = library.with_tx(move |tx| {
        tx.put(&Tag { id: 1 })?;
        Ok(tx.native().execute_batch(sql)?)
    });
    let error = refused.await.unwrap_err();
    assert_eq!(library.get::<Tag>(1).await.unwrap(), None, "{sql}");
    error
}

#[tokio::test]
async fn a_statement_that_may_not_run_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(&directory).await;
    for (sql, says) in [
        (
            "ATTACH ':memory:' AS other",
            "`ATTACH` is not allowed in a joined write: it would change the store's connection",
        ),
        ("DETACH other", "`DETACH` is not allowed in a joined write"),
        (
            "PRAGMA synchronous = OFF",
            "`PRAGMA synchronous` is not allowed in a joined write: it may change how the store",
        ),
    ] {
        let error = refused(&library, sql).await;
        assert!(matches!(error, Error::Statement(StatementError::Forbidden { .. })), "{sql}: {error:?}");
        assert!(error.to_string().starts_with(says), "{error}");
    }
    // The next closure knows nothing of it, nor does an error that has another reason.
    let other = refused(&library, "INSERT INTO nowhere VALUES (1)").await;
    assert!(matches!(other, Error::Aborted(_)), "{other:?}");
    let ignored = library.with_tx(|tx| {
        tx.native().execute_batch("ATTACH ':memory:' AS other").unwrap_err();
        tx.put(&Tag { id: 2 })?;
        Ok(())
    });
    ignored.await.unwrap();
    let other = library.with_tx(|tx| {
        tx.native().execute_batch("ATTACH ':memory:' AS other").unwrap_err();
        Err::<(), _>("the app says no".into())
    });
    let other = other.await.unwrap_err();
    assert!(matches!(&other, Error::Aborted(error) if error.to_string() == "the app says no"), "{other:?}");
}

#[tokio::test]
async fn a_constraint_that_fails_at_the_end_is_no_reason_to_retry() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(&directory).await;
    let error = refused(&library, "INSERT INTO photo VALUES (17)").await;
    assert!(matches!(error, Error::Statement(StatementError::Constraint(_))), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("FOREIGN KEY") && text.contains("write the rows that the constraint asks for"),
        "{text}"
    );
    assert!(!text.contains("retry"), "{text}");
    let whole = library.with_tx(|tx| {
        tx.native().execute_batch("INSERT INTO photo VALUES (17); INSERT INTO album VALUES (17)")?;
        Ok(())
    });
    whole.await.unwrap();
}
