//! The tables of the apps: rows of their own, and projections of notes and sets, in the transactions of the store.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use syncline::internals::history::{StoredProjection, StoredRecord};
use syncline::{BoxError, Projection, Syncable as _};

use super::models::{APP_PANICS, AnySet, Note, Set, is_ill, serials_of_set};
use super::store::{STORE_FAILS, STORE_IS_FULL, SimStore};

/// A table of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// The app's own rows, by serial number.
    Own,
    /// A projection: the serial number of each note.
    Notes,
    /// A projection: the serial numbers of each set.
    Sets,
}

/// The rows of all tables, by table and id.
pub(super) type Rows = BTreeMap<(Table, u64), Row>;

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) serials: BTreeSet<u64>,
    /// The version of the projection that wrote it; 0 for a row of the app's own.
    pub(super) version: u32,
}

/// The tables, as the statements of an app see them in a transaction.
pub(super) struct Tables(pub(super) RefCell<Arc<Rows>>);

impl Tables {
    pub(super) fn put(&self, table: Table, id: u64, row: Row) {
        Arc::make_mut(&mut self.0.borrow_mut()).insert((table, id), row);
    }

    fn delete(&self, table: Table, id: u64) {
        Arc::make_mut(&mut self.0.borrow_mut()).remove(&(table, id));
    }

    fn clear(&self, table: Table) {
        Arc::make_mut(&mut self.0.borrow_mut()).retain(|(of, _), _| *of != table);
    }
}

/// The error of a projection that fails.
const PROJECTION_FAILS: &str = "the projection fails";

/// How the projections of an app fail for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// They return an error where a number is ill.
    Error,
    /// They panic there.
    Panic,
    /// They return an error everywhere.
    Everywhere,
    /// Their tables cannot be made.
    Reset,
}

/// The trouble that the projections of a process have now. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Troubled(Arc<Mutex<Option<Trouble>>>);

impl Troubled {
    pub(super) fn set(&self, trouble: Option<Trouble>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn is(&self, of: Trouble) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == Some(of)
    }

    /// Fails if the trouble is of a record with these numbers.
    fn meet(&self, numbers: impl IntoIterator<Item = u64>) -> Result<(), BoxError> {
        let any_ill = numbers.into_iter().any(is_ill);
        if any_ill && self.is(Trouble::Panic) {
            resume_unwind(Box::new(APP_PANICS));
        }
        if any_ill && self.is(Trouble::Error) || self.is(Trouble::Everywhere) {
            return Err(PROJECTION_FAILS.into());
        }
        Ok(())
    }

    fn reset(&self, tx: &Tables, table: Table) -> Result<(), BoxError> {
        tx.clear(table);
        if self.is(Trouble::Reset) { Err("the table cannot be made".into()) } else { Ok(()) }
    }
}

/// The projection of notes.
pub(super) struct NotesTable<const VERSION: u32>(pub(super) Troubled);

impl<const VERSION: u32> Projection<SimStore> for NotesTable<VERSION> {
    type Model = Note;
    const NAME: &'static str = "notes";
    const VERSION: u32 = VERSION;

    fn reset(&self, tx: &Tables) -> Result<(), BoxError> {
        self.0.reset(tx, Table::Notes)
    }

    fn put(&self, tx: &Tables, note: &Note) -> Result<(), BoxError> {
        // Put the row before failing, so that there is something to be undone.
        let row = Row { serials: [note.serial].into(), version: VERSION };
        tx.put(Table::Notes, u64::from(note.id), row);
        self.0.meet([note.serial])
    }

    fn delete(&self, tx: &Tables, id: &u32) -> Result<(), BoxError> {
        tx.delete(Table::Notes, u64::from(*id));
        self.0.meet([u64::from(*id)])
    }
}

/// The projection of sets, as a version of the app knows them.
pub(super) struct SetsTable<M>(pub(super) Troubled, PhantomData<fn() -> M>);

impl<M> SetsTable<M> {
    pub(super) const fn new(trouble: Troubled) -> Self {
        Self(trouble, PhantomData)
    }
}

impl<M: AnySet> Projection<SimStore> for SetsTable<M> {
    type Model = M;
    const NAME: &'static str = "sets";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Tables) -> Result<(), BoxError> {
        self.0.reset(tx, Table::Sets)
    }

    fn put(&self, tx: &Tables, set: &M) -> Result<(), BoxError> {
        let row = Row { serials: set.serials(), version: 1 };
        tx.put(Table::Sets, u64::from(set.sync_id()), row);
        self.0.meet(set.serials())
    }

    fn delete(&self, tx: &Tables, id: &u32) -> Result<(), BoxError> {
        tx.delete(Table::Sets, u64::from(*id));
        self.0.meet([u64::from(*id)])
    }
}

/// Checks that a projection has the rows of its records, as far as it is, less its debts, and no others (C18). A debt is of
/// what the app or the store has reported: a record of a newer schema, for one, is none.
pub(super) fn check(
    projection: &StoredProjection,
    records: &[StoredRecord],
    rows: &Rows,
) -> Result<(), String> {
    let (table, model) = match projection.name.as_str() {
        "notes" => (Table::Notes, Note::SYNC_MODEL),
        "sets" => (Table::Sets, Set::SYNC_MODEL),
        _ => return Ok(()),
    };
    let reasons = [PROJECTION_FAILS, APP_PANICS, STORE_FAILS, STORE_IS_FULL];
    let is_strange = |why: &str| !reasons.iter().any(|reason| why.contains(reason));
    if let Some((record, why)) = projection.debts.iter().find(|(_, why)| is_strange(why)) {
        return Err(format!("the projection {} owes {record}: {why}", projection.name));
    }
    let mut expected = BTreeMap::new();
    let mut free = BTreeSet::new();
    for record in records.iter().filter(|record| record.record.model() == model) {
        // Notes and sets have ids of one type.
        let Some(id) = record.record.id::<Set>().or_else(|| record.record.id::<Note>()).map(u64::from) else {
            continue;
        };
        if projection.debts.contains_key(&record.record) {
            free.insert(id);
        } else if projection.covers(&record.record) && record.schema <= projection.schema {
            // The app leaves a record of a newer schema out.
            let serials = record.value.as_deref().and_then(|value| serials_of(model, record.schema, value));
            expected.extend(serials.map(|serials| (id, Row { serials, version: projection.version })));
        }
    }
    let found = rows.iter().filter(|((of, id), _)| *of == table && !free.contains(id));
    let found: BTreeMap<_, _> = found.map(|((_, id), row)| (*id, row.clone())).collect();
    if found == expected {
        return Ok(());
    }
    let differ = found.keys().chain(expected.keys()).find(|id| found.get(*id) != expected.get(*id));
    let id = differ.copied().unwrap_or_default();
    Err(format!(
        "the projection {} has {:?} of {id}, its records come to {:?}",
        projection.name,
        found.get(&id),
        expected.get(&id)
    ))
}

fn serials_of(model: &str, schema: u16, value: &[u8]) -> Option<BTreeSet<u64>> {
    if model == Set::SYNC_MODEL {
        return serials_of_set(schema, value);
    }
    postcard::from_bytes::<Note>(value).ok().map(|note| [note.serial].into())
}
