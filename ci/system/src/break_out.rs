//! Tries to break out of the VMM's process, from inside of it: a guest that has taken the process over.
//!
//! `secovia-vmm-back-door` is the VMM with a device that makes any system call for its guest. Each attempt is a few
//! such calls, made in a machine of its own, after its start. It is made with every layer on, with each layer alone off,
//! and, so that it is known to be an attempt at all, with none: there each has to succeed.

mod attempts;
mod bed;
mod cgroup;
mod outcome;
mod setup;

use std::fmt::Write as _;
use std::io::{Write as _, stderr};

use bed::Bed;
use setup::Setup;

/// All of it, with the programs that the environment names; says so past the test harness where this machine lacks
/// something, and shows the table there.
pub fn prove(test: &str) {
    let say = |text: &str| drop(writeln!(stderr(), "{text}"));
    let [Some(vmm), Some(jailer)] = ["SECOVIA_VMM_BACK_DOOR", "SECOVIA_JAILER"].map(std::env::var_os) else {
        return say(&format!(
            "SKIP: {test}: SECOVIA_VMM_BACK_DOOR and SECOVIA_JAILER are not set"
        ));
    };
    match Bed::new(vmm.into(), jailer.into()) {
        Ok(bed) => {
            let (table, wrong) = suite(&bed);
            say(&format!("\n{table}"));
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
        Err(lacking) => say(&format!("SKIP: {test}: {lacking}")),
    }
}

/// Makes every attempt in every setup. The table of what each failed on, and everything that was not as it must be.
fn suite(bed: &Bed) -> (String, Vec<String>) {
    let setups = Setup::all();
    let mut wrong = Vec::new();
    let mut rows = vec![Row {
        name: "",
        cells: setups.iter().map(Setup::name).collect(),
    }];
    for attempt in attempts::all(&bed.targets) {
        let mut cells = Vec::new();
        for setup in &setups {
            let outcome = bed.make(&attempt, setup);
            let expected = setup.expected(&attempt);
            if !expected.holds(&outcome) {
                let (name, setup) = (attempt.name, setup.name());
                wrong.push(format!("{name}, {setup}: {outcome}; expected: {expected:?}"));
            }
            cells.push(outcome.to_string());
        }
        rows.push(Row {
            name: attempt.name,
            cells,
        });
    }
    (table(&rows), wrong)
}

/// One row of the table: an attempt, and what came of it in each setup.
struct Row {
    name: &'static str,
    cells: Vec<String>,
}

fn table(rows: &[Row]) -> String {
    let width = |cells: &mut dyn Iterator<Item = &str>| cells.map(str::len).max().unwrap_or(0);
    let first = width(&mut rows.iter().map(|row| row.name));
    let columns = rows.first().map_or(0, |row| row.cells.len());
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            width(
                &mut rows
                    .iter()
                    .filter_map(|row| row.cells.get(column).map(String::as_str)),
            )
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{:first$}", row.name);
        for (cell, width) in row.cells.iter().zip(&widths) {
            let _ = write!(text, " | {cell:width$}");
        }
        text.push('\n');
    }
    text
}
