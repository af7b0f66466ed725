//! Goal: kill -9 at any moment loses nothing that was acknowledged, on a real file. Method: a child process
//! commits and prints every acknowledgement; the parent kills it after a number drawn from a printed seed, opens
//! the store, audits it and looks for everything that was printed; then the next child goes on from there.
//!
//! This finds stale locks and faults of recovery. It cannot find a missing fsync: what was handed to the kernel
//! survives the process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use futures::executor::block_on;
use futures::future::{join, join_all};
use libtest_mimic::{Arguments, Failed, Trial};
use serde::{Deserialize, Serialize};
use syncline::{DeviceId, GroupId, Storage, Syncable, TransactionManager, Uuid, audit};
use syncline_backends::OpenError;

/// Where the child finds its store, and which one it is; not set in the parent.
const CHILD: &str = "SYNCLINE_KILL_CHILD";
const CHILD_STORE: &str = "SYNCLINE_KILL_CHILD_STORE";

const CYCLES: u64 = 25;
const CALLERS: u32 = 4;

/// How far a caller has come.
#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "counter")]
struct Counter {
    #[sync(id)]
    id: u32,
    count: u64,
}

/// Opens one of the stores at a path.
type Open = fn(&Path) -> Result<Box<dyn Storage>, OpenError>;

/// The stores that live in files, by name.
const STORES: &[(&str, Open)] = &[
    #[cfg(feature = "redb")]
    ("redb", |path| Ok(Box::new(syncline_backends::RedbStorage::open(path)?))),
    #[cfg(feature = "sled")]
    ("sled", |path| Ok(Box::new(syncline_backends::SledStorage::open(path)?))),
    #[cfg(feature = "sqlite")]
    ("sqlite", |path| Ok(Box::new(syncline_backends::SqliteStorage::open(path)?))),
];

fn main() -> ExitCode {
    if let Some(path) = std::env::var_os(CHILD) {
        let name = std::env::var(CHILD_STORE).unwrap();
        let (_, open) = STORES.iter().find(|(store, _)| *store == name).unwrap();
        block_on(commit_for_ever(Path::new(&path), *open));
        return ExitCode::SUCCESS;
    }
    let test = |(name, store): &(&'static str, Open)| {
        let (name, store) = (*name, *store);
        Trial::test(format!("{name}::kill_9_loses_nothing_acknowledged"), move || {
            kill_9_loses_nothing_acknowledged(name, store)
        })
    };
    libtest_mimic::run(&Arguments::from_args(), STORES.iter().map(test).collect()).exit_code()
}

async fn open(
    path: &Path,
    store: Open,
) -> (TransactionManager<Box<dyn Storage>>, syncline::Driver<Box<dyn Storage>>) {
    TransactionManager::builder(store(path).unwrap())
        .device(DeviceId(Uuid::from_u128(1)))
        .found(GroupId(Uuid::from_u128(2)))
        .model::<Counter>()
        .open()
        .await
        .unwrap()
}

/// Counts in pairs of records, each pair in one batch, and prints each acknowledged count.
async fn commit_for_ever(path: &Path, store: Open) {
    let (library, driver) = open(path, store).await;
    let caller = async |caller: u32| {
        let mut count = counts(&library, caller).await[0];
        loop {
            count += 1;
            let pair = [Counter { id: caller, count }, Counter { id: caller + CALLERS, count }];
            library.commit_batch(|batch| Ok(pair.iter().try_for_each(|c| batch.put(c))?)).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "{caller} {count}").unwrap();
            out.flush().unwrap();
        }
    };
    let callers = join_all((0..CALLERS).map(caller));
    let _ = join(driver.run(), callers).await;
}

/// The two records that a caller keeps equal.
async fn counts<S: Storage>(library: &TransactionManager<S>, caller: u32) -> [u64; 2] {
    let pair = library.get_many::<Counter>(&[caller, caller + CALLERS]).await.unwrap();
    [0, 1].map(|at| pair[at].as_ref().map_or(0, |counter| counter.count))
}

fn kill_9_loses_nothing_acknowledged(name: &str, store: Open) -> Result<(), Failed> {
    let seed = syncline_testkit::seed();
    eprintln!("seed {seed:#x}");
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store");
    let mut acknowledged = vec![0; CALLERS as usize];
    for cycle in 0..CYCLES {
        // From before the first commit to some way on.
        let kill_after = seed.wrapping_add(cycle).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.env(CHILD, &path).env(CHILD_STORE, name).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
        let mut note = |line: String| -> Result<(), Failed> {
            let (caller, count) = line.split_once(' ').ok_or("a line has two numbers")?;
            acknowledged[caller.parse::<usize>()?] = count.parse()?;
            Ok(())
        };
        for line in lines.by_ref().take(usize::try_from(kill_after)?) {
            note(line?)?;
        }
        child.kill()?;
        let status = child.wait()?;
        // Whoever is killed has no exit code; elsewhere the kill gives one.
        if cfg!(unix) && status.code().is_some() {
            return Err(format!("cycle {cycle}: the child ended by itself: {status}").into());
        }
        // What it managed to say before it died. A line is one write to the pipe, so none is cut off.
        for line in lines {
            note(line?)?;
        }
        // The next child goes on from what is there, told or not.
        acknowledged = block_on(check(&path, store, &acknowledged))
            .map_err(|what| format!("cycle {cycle}, seed {seed:#x}: {what}"))?;
    }
    if acknowledged.iter().sum::<u64>() < CYCLES {
        return Err("the children hardly committed anything".into());
    }
    Ok(())
}

/// Looks for everything that was acknowledged, and returns what is there.
async fn check(path: &Path, store: Open, acknowledged: &[u64]) -> Result<Vec<u64>, String> {
    let violations = audit(&store(path).map_err(|error| error.to_string())?).await;
    if !violations.is_empty() {
        return Err(format!("the store is not whole: {violations:?}"));
    }
    let (library, driver) = open(path, store).await;
    let look = async {
        let library = library;
        let mut found = Vec::new();
        for (caller, told) in (0..).zip(acknowledged) {
            let [one, other] = counts(&library, caller).await;
            if one != other {
                return Err(format!("caller {caller}: half of a batch is there, {one} and {other}"));
            }
            // One more may be there that the child did not live to tell.
            if one != *told && one != told + 1 {
                return Err(format!("caller {caller} was told {told} and finds {one}"));
            }
            found.push(one);
        }
        Ok(found)
    };
    join(driver.run(), look).await.1
}
