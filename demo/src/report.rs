//! The table: one row a store.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{BinaryBytes, HumanCount};

use crate::run::Outcome;

/// What the figures of the table are.
pub const LEGEND: &str = "\
commits           those of this run
changes/s         changes of this run by the time spent in `commit_batch`, without walking and comparing
bytes on disk     the store's files after it was closed, log included
bytes per record  those by the records that are there: entries and tags";

/// The outcomes as a table.
#[must_use]
pub fn table(outcomes: &[(String, Outcome)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "store",
        "files",
        "commits",
        "changes/s",
        "bytes on disk",
        "bytes per record",
        "audit",
    ]);
    table.add_rows(outcomes.iter().map(|(store, outcome)| row(store, outcome)));
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn row(store: &str, outcome: &Outcome) -> [String; 7] {
    let audit = match &outcome.audit {
        Ok(violations) if violations.is_empty() => "ok".to_owned(),
        Ok(violations) if violations.len() == 1 => "1 VIOLATION".to_owned(),
        Ok(violations) => format!("{} VIOLATIONS", HumanCount(violations.len() as u64)),
        Err(_) => "NOT OPENED".to_owned(),
    };
    let bytes = BinaryBytes(outcome.disk_bytes).to_string();
    let Ok(counts) = &outcome.counts else {
        let [files, commits, rate, each] = ["FAILED", "", "", ""].map(String::from);
        return [store.to_owned(), files, commits, rate, bytes, each, audit];
    };
    [
        store.to_owned(),
        HumanCount(counts.files).to_string(),
        HumanCount(counts.commits).to_string(),
        rate(counts.changes(), counts.commit_time.as_micros()),
        bytes,
        quotient(outcome.disk_bytes.into(), counts.records().into()),
        audit,
    ]
}

/// A dash where nothing was committed: a rate of nothing is not slow.
fn rate(changes: u64, commit_time_us: u128) -> String {
    if changes == 0 { "-".to_owned() } else { quotient(u128::from(changes) * 1_000_000, commit_time_us) }
}

fn quotient(dividend: u128, divisor: u128) -> String {
    match dividend.checked_div(divisor).and_then(|quotient| u64::try_from(quotient).ok()) {
        Some(quotient) => HumanCount(quotient).to_string(),
        None => "-".to_owned(),
    }
}
