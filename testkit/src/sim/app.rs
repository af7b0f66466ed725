//! The app of a process: which version of it runs, and what its code does wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use syncline::Builder;

use super::models::{Note, Photo, Place, SCHEMA_MAX};
use super::store::SimStore;
use super::tables::{NotesTable, SetsTable, Troubled};

/// A version of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The schema of its sets, from 1 to 3. A later version never has a lower one.
    pub schema: u16,
    /// Whether its merge of sets panics where a number is ill.
    pub ill: bool,
    /// The version of its projections; 0 if it has none.
    pub projects: u32,
}

/// The app of a process.
pub(super) struct App {
    pub(super) version: Version,
    /// The trouble of its projections.
    pub(super) troubled: Troubled,
}

impl Default for App {
    fn default() -> Self {
        Self { version: Version { schema: 1, ill: false, projects: 0 }, troubled: Troubled::default() }
    }
}

/// Evaluates an expression with the type of the sets of a version.
macro_rules! with_set {
    ($version:expr, $Set:ident => $body:expr) => {{
        macro_rules! of {
            ($schema:literal, $ill:literal) => {{
                type $Set = crate::sim::models::SetOf<$schema, $ill>;
                $body
            }};
        }
        let version: crate::sim::app::Version = $version;
        match (version.schema, version.ill) {
            (1, false) => of!(1, false),
            (1, true) => of!(1, true),
            (2, false) => of!(2, false),
            (2, true) => of!(2, true),
            (_, false) => of!(3, false),
            (_, true) => of!(3, true),
        }
    }};
}

pub(super) use with_set;

impl App {
    /// Installs another version, whose schema is not lower.
    pub(super) fn update(&mut self, to: Version) {
        let schema = to.schema.clamp(self.version.schema, SCHEMA_MAX);
        self.version = Version { schema, ..to };
    }

    /// Registers the models and the projections of the app, which perhaps does not know sets.
    pub(super) fn register(&self, builder: Builder<SimStore>, sets: bool) -> Builder<SimStore> {
        let builder = builder.model::<Photo>().model::<Place>();
        let builder = match self.version.projects {
            0 => builder.model::<Note>(),
            1 => builder.project(NotesTable::<1>(self.troubled.clone())),
            _ => builder.project(NotesTable::<2>(self.troubled.clone())),
        };
        match (sets, self.version.projects) {
            (false, _) => builder,
            (true, 0) => with_set!(self.version, S => builder.model::<S>()),
            (true, _) => with_set!(self.version, S => {
                builder.project(SetsTable::<S>::new(self.troubled.clone()))
            }),
        }
    }
}

/// A kind of thing that apps of a corpus must have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Joined,
    JoinedAlone,
    JoinedFailed,
    JoinedCut,
    Debt,
    DebtPaid,
    Refused,
    Rebuilding,
    CallFailed,
    CallPanicked,
    MergeFailed,
    Newer,
    Older,
}

/// The names of all kinds, in the order of their bits.
pub const KINDS: [&str; 13] = [
    "a row and a record were committed together",
    "a row was written alone",
    "a joined write failed",
    "a joined write was cut off",
    "a projection owed a record",
    "a debt was paid",
    "a projection refused a commit",
    "a projection was being rebuilt",
    "a call of the app failed",
    "a call of the app panicked",
    "a merge of the app panicked",
    "a value of a newer schema waited",
    "a value of an older schema was there",
];

/// The kinds that a run has met. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Kinds(Arc<AtomicU32>);

impl Kinds {
    pub(super) fn note(&self, kind: Kind) {
        self.0.fetch_or(1 << kind as u32, Relaxed);
    }

    /// As bits of [`KINDS`].
    pub(super) fn bits(&self) -> u32 {
        self.0.load(Relaxed)
    }
}
