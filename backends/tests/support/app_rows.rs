//! The table of the app on redb and SQLite, for the fixtures of the lists of joins.

/// Implements `JoinFixture` for a fixture of redb.
macro_rules! rows_in_redb {
    ($fixture:ty) => {
        const _: () = {
            use syncline::BoxError;
            use syncline_backends::redb::redb::{ReadableTable as _, TableDefinition, WriteTransaction};
            use syncline_testkit::JoinFixture;

            const ROWS: TableDefinition<'_, u64, &str> = TableDefinition::new("app_row");

            impl JoinFixture for $fixture {
                fn put_row(tx: &WriteTransaction, key: u64, value: &str) -> Result<(), BoxError> {
                    tx.open_table(ROWS)?.insert(key, value)?;
                    Ok(())
                }

                fn delete_row(tx: &WriteTransaction, key: u64) -> Result<(), BoxError> {
                    tx.open_table(ROWS)?.remove(key)?;
                    Ok(())
                }

                fn rows(tx: &WriteTransaction) -> Result<Vec<(u64, String)>, BoxError> {
                    let table = tx.open_table(ROWS)?;
                    let rows =
                        table.iter()?.map(|row| row.map(|(key, text)| (key.value(), text.value().into())));
                    Ok(rows.collect::<Result<_, _>>()?)
                }
            }
        };
    };
}

/// Implements `JoinFixture` for a fixture of SQLite, with the statements by which an app could end its transaction.
macro_rules! rows_in_sqlite {
    ($fixture:ty) => {
        const _: () = {
            use syncline::BoxError;
            use syncline_backends::SqliteStorage;
            use syncline_backends::sqlite::rusqlite::Transaction;
            use syncline_testkit::{Ending, JoinFixture};

            const TABLE: &str =
                "CREATE TABLE IF NOT EXISTS app_row (key INTEGER PRIMARY KEY, value TEXT NOT NULL)";

            impl JoinFixture for $fixture {
                fn put_row(tx: &Transaction<'_>, key: u64, value: &str) -> Result<(), BoxError> {
                    tx.execute(TABLE, ())?;
                    tx.execute("INSERT OR REPLACE INTO app_row VALUES (?, ?)", (key.cast_signed(), value))?;
                    Ok(())
                }

                fn delete_row(tx: &Transaction<'_>, key: u64) -> Result<(), BoxError> {
                    tx.execute(TABLE, ())?;
                    tx.execute("DELETE FROM app_row WHERE key = ?", [key.cast_signed()])?;
                    Ok(())
                }

                fn rows(tx: &Transaction<'_>) -> Result<Vec<(u64, String)>, BoxError> {
                    tx.execute(TABLE, ())?;
                    let mut rows = tx.prepare("SELECT key, value FROM app_row ORDER BY key")?;
                    let rows =
                        rows.query_map((), |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))?;
                    Ok(rows.collect::<Result<_, _>>()?)
                }

                fn endings() -> Vec<Ending<SqliteStorage>> {
                    fn run(tx: &Transaction<'_>, sql: &str) -> Result<(), BoxError> {
                        Ok(tx.execute_batch(sql)?)
                    }
                    vec![
                        Ending { name: "COMMIT", end: |tx| run(tx, "COMMIT") },
                        Ending { name: "END", end: |tx| run(tx, "END") },
                        Ending { name: "ROLLBACK", end: |tx| run(tx, "ROLLBACK") },
                        Ending { name: "ROLLBACK; BEGIN", end: |tx| run(tx, "ROLLBACK; BEGIN") },
                        Ending { name: "COMMIT; BEGIN", end: |tx| run(tx, "COMMIT; BEGIN") },
                    ]
                }
            }
        };
    };
}
