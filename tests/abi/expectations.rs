//! Tests that `benches/isa --check` detects regressions, with invented figures.

#[allow(dead_code, reason = "the tables are the bench's")]
#[path = "../../benches/isa/report.rs"]
mod report;

use report::{Expectations, Figures, Row};
use std::{fs, path::Path};

const DRIVER: &str = "Mesa 25.0.7";

/// Columns: registers, spills, fills, local, lds, width, waves, cycles, fma %, reason.
fn file(row: &str) -> Expectations {
    let titles = report::COLUMNS;
    let row = row.replace(' ', "\t").replace('_', " ");
    Expectations::parse(&format!("# dg2: {DRIVER}\n{titles}\ndg2\tk\t{row}\n")).expect("a file")
}

fn good() -> Figures {
    let [registers, spills, fills, width, hundredths] = [100, 0, 0, 16, 30].map(Some);
    Figures { registers, spills, fills, width, hundredths, ..Figures::default() }
}

fn row(figures: Figures, refused: Option<&str>) -> Row {
    let family = "dg2".to_owned();
    let program = "k".to_owned();
    Row { family, program, figures, refused: refused.map(str::to_owned) }
}

fn check(file: &Expectations, driver: &str, row: Row) -> Vec<String> {
    file.check(&[("dg2".to_owned(), driver.to_owned())], &[row], "")
}

const GOOD: &str = "100 0 0 0 0 16 - - - ";

#[track_caller]
fn assert_fails(expected: &str, row: Row, says: &str) {
    let worse = check(&file(expected), DRIVER, row);
    assert!(worse.len() == 1 && worse[0].contains(says), "`{says}` is not in {worse:?}");
}

#[test]
fn expected_figures_pass() {
    assert_eq!(check(&file(GOOD), DRIVER, row(good(), None)), Vec::<String>::new());
}

#[test]
fn a_spill_needs_a_reason() {
    let spilling = || Figures { spills: Some(7), ..good() };
    assert_fails(GOOD, row(spilling(), None), "spills 0 -> 7");
    assert_fails("100 7 0 0 0 16 - - - ", row(spilling(), None), "7 spills, without a reason");
    assert_fails("100 6 0 0 0 16 - - - too_large", row(spilling(), None), "spills 6 -> 7");
    let excused = file("100 7 0 0 0 16 - - - too_large");
    assert_eq!(check(&excused, DRIVER, row(spilling(), None)), Vec::<String>::new());
}

#[test]
fn lost_width_and_slow_compilation_fail() {
    assert_fails(GOOD, row(Figures { width: Some(8), ..good() }, None), "width 16 -> 8");
    let slow = || row(Figures { hundredths: Some(501), ..good() }, None);
    assert_fails(GOOD, slow(), "5.0 s to compile");
    let excused = file("100 0 0 0 0 16 - - - unrolled");
    assert_eq!(check(&excused, DRIVER, slow()), Vec::<String>::new());
}

#[test]
fn a_refusal_is_expected_only_for_a_reason() {
    let refused = || row(Figures::default(), Some("no"));
    assert_fails(GOOD, refused(), "refused");
    assert_fails("100 0 0 0 0 16 - - - why", refused(), "refused");
    assert_fails("refused - - - - - - - - ", refused(), "refused");
    let excused = file("refused - - - - - - - - why");
    assert_eq!(check(&excused, DRIVER, refused()), Vec::<String>::new());
}

#[test]
fn registers_count_with_the_same_driver_only() {
    let more = || row(Figures { registers: Some(120), ..good() }, None);
    assert_fails(GOOD, more(), "registers 100 -> 120");
    assert_eq!(check(&file(GOOD), "Mesa 26.1.0", more()), Vec::<String>::new());
}

#[test]
fn programs_and_rows_are_the_same() {
    let mut other = row(good(), None);
    other.program = "j".to_owned();
    let worse = check(&file(GOOD), DRIVER, other);
    assert!(worse[0].contains("no line") && worse[1].contains("no such program"), "{worse:?}");
}

#[test]
fn renewed_rows_keep_their_reasons() {
    let known = file("100 7 0 0 0 16 - - - too_large");
    let drivers = [("dg2".to_owned(), DRIVER.to_owned())];
    let text = known.renewed(&drivers, &[row(Figures { spills: Some(9), ..good() }, None)]);
    assert!(text.contains("dg2\tk\t100\t9\t0\t"), "{text}");
    assert!(text.ends_with("\ttoo large\n"), "{text}");
    let others = known.renewed(&[("adl".to_owned(), DRIVER.to_owned())], &[]);
    assert!(others.contains("dg2\tk\t100\t7\t"), "{others}");
}

/// Checks that every line of the file parses, and that each spill or refusal has a reason.  The
/// file is not part of the package.
#[test]
fn every_spill_and_refusal_in_the_file_has_a_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/isa/expected.tsv");
    let Ok(text) = fs::read_to_string(path) else { return };
    Expectations::parse(&text).expect("a file");
    for line in text.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let cells: Vec<_> = line.split('\t').collect();
        let spills = |cell: &str| cell.parse().is_ok_and(|n: u32| n > 0);
        let needs = cells[2] == "refused" || spills(cells[3]) || spills(cells[4]);
        assert!(!needs || !cells[11].is_empty(), "without a reason: {line}");
    }
}
