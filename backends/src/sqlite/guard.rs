//! Keeps the app's own statements from ending the transaction that they are part of.
//!
//! The guard takes three hooks of SQLite, because each of them sees only a part. The authorizer sees statements before they
//! run, and refuses those that end a transaction or change how a later one is stored. The rollback hook sees what a
//! statement does while it runs, such as `INSERT OR ROLLBACK` or `RAISE(ROLLBACK)` in a trigger. The statements after
//! such a rollback run in no transaction, and each would commit by itself: the commit hook turns those commits into
//! rollbacks.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, Result};
use syncline::StatementError;

/// The state that the hooks of one connection share.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Whether a job runs. Otherwise the hooks allow every statement.
    armed: AtomicBool,
    /// Whether a statement that would end the job's transaction was refused.
    refused: AtomicBool,
    /// Whether the job's transaction was rolled back.
    rolled_back: AtomicBool,
    /// Whether the store sets a savepoint of its own.
    own_savepoint: AtomicBool,
    /// The last statement that was refused for another reason, and that reason.
    forbidden: Mutex<Option<(String, &'static str)>>,
}

/// The savepoint of a part of a job. The app may set savepoints too, but none whose name begins like this.
const SAVEPOINT: &str = "syncline";

/// What became of a transaction while the job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The transaction is still open.
    Open,
    /// The transaction was rolled back, by a statement of the app or by SQLite after a failure. If the job returned an
    /// error, that error says more.
    RolledBack,
    /// The app tried to end the transaction, or ran statements after its end.
    Refused,
}

impl Guard {
    /// Sets the hooks of `connection`, for as long as it is open.
    pub(super) fn on(connection: &mut Connection) -> Result<Arc<Self>> {
        let guard = Arc::new(Self::default());
        let (statements, commits, rollbacks) = (Arc::clone(&guard), Arc::clone(&guard), Arc::clone(&guard));
        connection.authorizer(Some(move |context: AuthContext<'_>| statements.judge(&context.action)))?;
        connection.commit_hook(Some(move || commits.refuse()))?;
        connection.rollback_hook(Some(move || {
            rollbacks.rolled_back.fetch_or(rollbacks.armed.load(Relaxed), Relaxed);
        }))?;
        Ok(guard)
    }

    /// Removes the hooks. This must be done before `connection` is closed: closing frees the hooks first, and then
    /// rolls back a transaction that is open, which would call a freed hook.
    pub(super) fn off(connection: &mut Connection) {
        drop(connection.rollback_hook(None::<fn()>));
        drop(connection.commit_hook(None::<fn() -> bool>));
        drop(connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>));
    }

    /// Begins a job, which ends when the returned [`Armed`] is dropped.
    pub(super) fn arm(&self) -> Armed<'_> {
        self.refused.store(false, Relaxed);
        self.rolled_back.store(false, Relaxed);
        drop(self.forbidden().take());
        self.armed.store(true, Relaxed);
        Armed(self)
    }

    /// Whether the job's transaction has ended, or should have.
    pub(super) fn is_broken(&self) -> bool {
        self.refused.load(Relaxed) || self.rolled_back.load(Relaxed)
    }

    /// Runs a statement about the [savepoint](SAVEPOINT) of a part: `SAVEPOINT`, `RELEASE` or `ROLLBACK TO`.
    pub(super) fn savepoint(&self, connection: &Connection, statement: &str) -> Result<()> {
        self.own_savepoint.store(true, Relaxed);
        let done = connection
            .prepare_cached(&format!("{statement} {SAVEPOINT}"))
            .and_then(|mut statement| statement.execute([]));
        self.own_savepoint.store(false, Relaxed);
        done.map(drop)
    }

    /// Refuses the end of a transaction if a job runs, and notes that.
    fn refuse(&self) -> bool {
        let armed = self.armed.load(Relaxed);
        self.refused.fetch_or(armed, Relaxed);
        armed
    }

    /// Refuses a statement if a job runs, and notes which, and why.
    fn forbid(&self, statement: impl Into<String>, reason: &'static str) -> bool {
        let armed = self.armed.load(Relaxed);
        if armed {
            *self.forbidden() = Some((statement.into(), reason));
        }
        armed
    }

    fn forbidden(&self) -> MutexGuard<'_, Option<(String, &'static str)>> {
        self.forbidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, action: &AuthAction<'_>) -> Authorization {
        let forbidden = match action {
            AuthAction::Transaction { .. } => self.refuse(),
            AuthAction::Savepoint { savepoint_name, .. } => {
                let is_ours = savepoint_name
                    .get(..SAVEPOINT.len())
                    .is_some_and(|name| name.eq_ignore_ascii_case(SAVEPOINT));
                is_ours && !self.own_savepoint.load(Relaxed) && self.refuse()
            }
            AuthAction::Attach { .. } => self.forbid("`ATTACH`", OUTLIVES),
            AuthAction::Detach { .. } => self.forbid("`DETACH`", OUTLIVES),
            AuthAction::Pragma { pragma_name, pragma_value } => {
                changes_the_store(pragma_name, *pragma_value)
                    && self.forbid(format!("`PRAGMA {pragma_name}`"), CHANGES)
            }
            _ => false,
        };
        if forbidden { Authorization::Deny } else { Authorization::Allow }
    }
}

const OUTLIVES: &str = "it would change the store's connection beyond this transaction; open a connection of your own \
    for the other database, and pass its rows in";
const CHANGES: &str = "it may change how the store stores; set it on a connection of your own, or leave it";

/// A running job.
pub(super) struct Armed<'g>(&'g Guard);

impl Armed<'_> {
    /// Ends the job. Returns what became of its transaction, and the statement that was forbidden, if there was one.
    pub(super) fn disarm(self) -> (Fate, Option<StatementError>) {
        let forbidden = self.0.forbidden().take();
        let forbidden = forbidden.map(|(statement, reason)| StatementError::Forbidden { statement, reason });
        (self.fate(), forbidden)
    }

    fn fate(&self) -> Fate {
        if self.0.refused.load(Relaxed) {
            Fate::Refused
        } else if self.0.rolled_back.load(Relaxed) {
            Fate::RolledBack
        } else {
            Fate::Open
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.armed.store(false, Relaxed);
    }
}

/// Whether a pragma may change a setting that this store relies on. Any pragma that is not known to be harmless may.
fn changes_the_store(name: &str, value: Option<&str>) -> bool {
    // These pragmas act without a value.
    const ACT: [&str; 2] = ["wal_checkpoint", "incremental_vacuum"];
    // The effect of these pragmas ends with the transaction or belongs to the app, or they only read.
    const HARMLESS: [&str; 14] = [
        "application_id",
        "defer_foreign_keys",
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    ];
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    ACT.iter().any(is) || (value.is_some() && !HARMLESS.iter().any(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_its_hooks_can_be_closed_in_the_middle_of_a_transaction() {
        let mut connection = Connection::open_in_memory().unwrap();
        let guard = Guard::on(&mut connection).unwrap();
        connection.execute_batch("BEGIN; CREATE TABLE t (id)").unwrap();
        let armed = guard.arm();
        Guard::off(&mut connection);
        assert_eq!(Arc::strong_count(&guard), 1, "a hook is still there");
        drop(connection);
        assert_eq!(armed.disarm().0, Fate::Open, "a hook was called");
    }

    #[test]
    fn a_guard_that_is_not_armed_lets_everything_pass() {
        let mut connection = Connection::open_in_memory().unwrap();
        let guard = Guard::on(&mut connection).unwrap();
        drop(guard.arm());
        connection.execute_batch("BEGIN; CREATE TABLE t (id); COMMIT; BEGIN; ROLLBACK").unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF; ATTACH ':memory:' AS other").unwrap();
        let armed = guard.arm();
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
        assert_eq!(armed.disarm().0, Fate::Refused);
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        Guard::off(&mut connection);
    }
}
