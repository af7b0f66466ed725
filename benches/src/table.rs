//! The table: one row a figure, in Markdown.

use std::fmt;

use crate::rounds::Spread;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub case: String,
    /// With which ids.
    pub ids: &'static str,
    /// With which commits.
    pub commit: String,
    /// Our figure.
    pub ours: Quantity,
    /// What it is compared with.
    pub beside: Option<Quantity>,
    /// The same without the way there and back.
    pub bare: Option<Quantity>,
    /// What the bar is about.
    pub figure: Spread,
    /// What it must reach; nothing if it is there to be read beside others.
    pub bar: Option<Bar>,
}

/// A measured figure with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantity {
    /// Records, commits or calls a second.
    Rate(f64),
    /// Microseconds.
    Micros(f64),
    /// Bytes.
    Bytes(f64),
    /// Mebibytes.
    MiB(f64),
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// A ratio of rates.
    AtLeast(f64),
    /// A ratio of sizes.
    Below(f64),
    /// A ratio of sizes or times that may be reached.
    AtMost(f64),
    /// A time.
    BelowMicros(f64),
    /// A number of bytes.
    BelowBytes(f64),
    /// A growth of memory.
    BelowMiB(f64),
}

impl Bar {
    /// Whether `figure` reaches it.
    #[must_use]
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bar) => figure >= bar,
            Self::AtMost(bar) => figure <= bar,
            Self::Below(bar) | Self::BelowMicros(bar) | Self::BelowBytes(bar) | Self::BelowMiB(bar) => {
                figure < bar
            }
        }
    }
}

/// Writes all rows under one head.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let head = ["case", "ids", "commit", "syncline", "beside", "bare", "figure", "min..max", "bar", ""];
    let mut lines = vec![head.map(String::from).to_vec()];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        lines.iter().filter_map(move |line| line.get(column)).map(|cell| cell.chars().count())
    };
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).max().unwrap_or(0)).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: String = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect();
    let mut lines = lines.iter().map(|cells| line(cells));
    let first = lines.next().unwrap_or_default();
    format!("{first}|{rule}\n{}", lines.collect::<String>())
}

fn cells(row: &Row) -> Vec<String> {
    let Row { case, ids, commit, ours, beside, bare, figure, bar, .. } = row;
    let optional = |quantity: &Option<Quantity>| quantity.map_or_else(String::new, |it| it.to_string());
    let Spread { median, min, max } = figure;
    // A bar that is no ratio tells what a figure is; without one it follows from what was measured.
    let (one, spread) = match bar {
        Some(Bar::BelowMicros(_)) => (format!("{median:.0} µs"), format!("{min:.0}..{max:.0}")),
        Some(Bar::BelowBytes(_)) => (format!("{median:.1} B"), format!("{min:.1}..{max:.1}")),
        Some(Bar::BelowMiB(_)) => (format!("{median:+.1} MiB"), format!("{min:+.1}..{max:+.1}")),
        _ => (format!("{median:.2} x"), format!("{min:.2}..{max:.2}")),
    };
    let verdict = match bar {
        Some(bar) if bar.is_met(*median) => "pass",
        Some(_) => "MISS",
        None => "",
    };
    vec![
        case.clone(),
        (*ids).to_owned(),
        commit.clone(),
        ours.to_string(),
        optional(beside),
        optional(bare),
        one,
        spread,
        bar.map_or_else(String::new, |bar| bar.to_string()),
        verdict.to_owned(),
    ]
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{}/s", thousands(*rate)),
            Self::Micros(micros) => write!(f, "{micros:.0} µs"),
            Self::Bytes(bytes) => write!(f, "{bytes:.1} B"),
            Self::MiB(mib) => write!(f, "{mib:.1} MiB"),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar} x"),
            Self::Below(bar) => write!(f, "< {bar} x"),
            Self::AtMost(bar) => write!(f, "≤ {bar} x"),
            Self::BelowMicros(bar) => write!(f, "< {bar} µs"),
            Self::BelowBytes(bar) => write!(f, "< {bar} B"),
            Self::BelowMiB(bar) => write!(f, "< +{bar} MiB"),
        }
    }
}

/// A whole number with a comma between thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_it_must_reach_and_whether_it_does() {
        let mut row = Row {
            case: "commit".into(),
            ids: "random",
            commit: "two-phase".into(),
            ours: Quantity::Rate(1_234_567.),
            beside: Some(Quantity::Rate(999.)),
            bare: None,
            figure: Spread { median: 0.85, min: 0.5, max: 1.25 },
            bar: Some(Bar::AtLeast(0.85)),
        };
        let table = markdown(&[row.clone()]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{table}");
        for cell in ["1,234,567/s", "| 999/s", "0.85 x", "0.50..1.25", "≥ 0.85 x", "pass"] {
            assert!(lines[2].contains(cell), "{cell} in {table}");
        }
        row.figure.median = 0.849;
        assert!(markdown(&[row.clone()]).contains("MISS"));
        row.bar = None;
        let table = markdown(&[row.clone()]);
        assert!(!table.contains("MISS") && !table.contains("pass"));
        (row.ours, row.bar) = (Quantity::Micros(8.5), Some(Bar::BelowMicros(50.)));
        assert!(markdown(&[row]).contains("| 1 µs"), "the figure has the unit of its bar");
        assert!(Bar::Below(1.25).is_met(1.24) && !Bar::BelowMicros(50.).is_met(50.));
        assert!(Bar::AtMost(2.).is_met(2.) && !Bar::AtMost(2.).is_met(2.01));
    }

    #[test]
    fn thousands_are_told_apart() {
        for (number, text) in [(0., "0"), (999., "999"), (1000., "1,000"), (1_234_567.4, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
