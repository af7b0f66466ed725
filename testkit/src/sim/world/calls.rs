//! Calls of apps whose own code runs inside them: joined writes, and changes of what is stored. The code fails as the plan
//! says, and the call with it.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use syncline::{BoxError, Error, Update};

use super::apps::Apps;
use super::processes::Process;
use super::watching::Findings;
use crate::sim::app::{Kind, with_set};
use crate::sim::models::{APP_PANICS, AnySet as _, Note, Place};
use crate::sim::plan::{Edit, Failing};
use crate::sim::tables::{Row, Table};
use crate::sim::{Failure, fail};

/// Fails as the plan says.
fn fail_so(failing: Option<Failing>) -> Result<(), BoxError> {
    match failing {
        None => Ok(()),
        Some(Failing::Error) => Err("the app fails".into()),
        Some(Failing::Panic) => resume_unwind(Box::new(APP_PANICS)),
    }
}

/// Checks how a call has ended whose code failed as the plan says, if it `ran` to that place: with an error, and with the
/// one that the documentation names unless the store has failed too.
fn check_failed<T>(
    failing: Failing,
    ran: bool,
    store_failed: bool,
    result: &Result<T, Error>,
) -> Result<(), Failure> {
    let named = match failing {
        Failing::Error => matches!(result, Err(Error::Aborted(_))),
        Failing::Panic => matches!(result, Err(Error::Panicked { .. })),
    };
    let is_right = match result {
        Ok(_) => false,
        Err(_) => !ran || store_failed || named,
    };
    if is_right {
        return Ok(());
    }
    let told = result.as_ref().map(|_| ());
    fail("C1 an error of the app fails its own call", format!("code that failed by {failing:?} got {told:?}"))
}

impl Apps {
    /// A task that writes a row of the app in one transaction with `edit`, if there is one; `None` as for
    /// [`commit`](Self::commit).
    pub(super) fn joined(
        &mut self,
        at: usize,
        process: &Process,
        edit: Option<Edit>,
        failing: Option<Failing>,
        findings: &Findings,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let manager = self.writing(process)?;
        let knows = |edit: &Edit| !matches!(edit, Edit::Set(..)) || process.commits_sets();
        let edit = edit.filter(knows);
        let (replica, device, version) = (process.id, process.device, process.app.version);
        let serial = match edit {
            Some(_) => self.next_serial(at),
            None => self.next_row(),
        };
        self.oracle.borrow_mut().joined.ask(replica, serial, edit.is_some());
        let told = self.teller(edit.map(|_| serial).into_iter().collect(), Vec::new());
        let (oracle, kinds, findings) = (self.oracle.clone(), self.kinds.clone(), findings.clone());
        let disk = process.disk.clone();
        Some(async move {
            let ran = Arc::new(AtomicBool::new(false));
            let runs = Arc::clone(&ran);
            let result = manager
                .with_tx(move |tx| {
                    tx.native().put(Table::Own, serial, Row { serials: [serial].into(), version: 0 });
                    match edit {
                        Some(Edit::Note(id, _)) => tx.put(&Note { id, serial })?,
                        Some(Edit::Place(id, _)) => tx.put(&Place { id, device_id: device, serial })?,
                        Some(Edit::Set(id, _)) => with_set!(version, S => tx.put(&S::of(id, serial))?),
                        None => {}
                    }
                    runs.store(true, Relaxed);
                    fail_so(failing)
                })
                .await;
            if let Some(failing) = failing {
                if let Err(failure) = check_failed(failing, ran.load(Relaxed), disk.has_failed(), &result) {
                    findings.report(failure);
                }
                kinds.note(Kind::JoinedFailed);
            } else if result.is_ok() {
                kinds.note(if edit.is_some() { Kind::Joined } else { Kind::JoinedAlone });
            }
            oracle.borrow_mut().joined.tell(replica, serial, Self::outcome(&result));
            told(result);
        })
    }

    /// A task that changes a note as the closure says that gets it; `None` as for [`commit`](Self::commit).
    pub(super) fn change(
        &mut self,
        at: usize,
        process: &Process,
        id: u32,
        failing: Option<Failing>,
        findings: &Findings,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let manager = self.writing(process)?;
        let serial = self.next_serial(at);
        let told = self.teller(vec![serial], Vec::new());
        let (kinds, findings, disk) = (self.kinds.clone(), findings.clone(), process.disk.clone());
        Some(async move {
            let ran = Arc::new(AtomicBool::new(false));
            let runs = Arc::clone(&ran);
            let change = move |_: Option<Note>| {
                runs.store(true, Relaxed);
                fail_so(failing)?;
                Ok(Update::Put(Note { id, serial }))
            };
            let result = manager.change::<Note, _>(id, change).await;
            if let Some(failing) = failing {
                let ran = ran.load(Relaxed);
                if let Err(failure) = check_failed(failing, ran, disk.has_failed(), &result) {
                    findings.report(failure);
                }
                if ran {
                    let panics = failing == Failing::Panic;
                    kinds.note(if panics { Kind::CallPanicked } else { Kind::CallFailed });
                }
            }
            told(result.map(drop));
        })
    }
}
