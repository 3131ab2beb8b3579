//! Comparison of two reports.

use super::{
    kernels::Row,
    report::{Cell, Report},
    roof::Bound,
    stats::digits,
    table,
};
use std::fmt::Write;

/// Figure that is in both reports.
struct Pair {
    name: String,
    unit: &'static str,
    a: Option<f64>,
    b: Option<f64>,
    /// Differences in the conditions of the two measurements.
    note: String,
}

impl Pair {
    fn new(name: &str, unit: &'static str, a: f64, b: f64) -> Self {
        Self { name: name.to_owned(), unit, a: Some(a), b: Some(b), note: String::new() }
    }

    fn line(&self) -> String {
        let Self { name, unit, a, b, note } = self;
        let ratio = match (a, b) {
            (Some(a), Some(b)) if *a > 0.0 => format!("{:.2}", b / a),
            _ => "-".to_owned(),
        };
        let [a, b] = [a, b].map(|value| value.map_or("-".to_owned(), digits));
        let line = format!("  {name:<46}{unit:<9}{a:>9}{b:>9}{ratio:>8}  {note}");
        line.trim_end().to_owned() + "\n"
    }

    /// True if there is a figure of either report, or a note.
    fn has_content(&self) -> bool {
        self.a.is_some() || self.b.is_some() || !self.note.is_empty()
    }
}

/// Comparison table: every figure, its ratio, and what only one report contains.  A ratio over 1
/// means that `b` is faster.
pub fn table(a: &Report, b: &Report) -> String {
    let mut out = String::new();
    for (name, report) in [("A", a), ("B", b)] {
        let device = table::device(&report.device);
        let engine = table::engine(report);
        writeln!(out, "{name}  {device}\n   {engine}, {}", report.clock)
            .expect("a string takes all");
    }
    out += &section("roof", &roof(a, b));
    out += &section("kernel", &both(&a.kernels, &b.kernels, kernel_key, kernel_pair));
    out += &section("model", &both(&cells(a), &cells(b), cell_key, cell_pair));
    for (only, of, with) in [("A", a, b), ("B", b, a)] {
        let mut names = missing(&of.kernels, &with.kernels, kernel_key);
        names.extend(missing(&cells(of), &cells(with), cell_key));
        if !names.is_empty() {
            writeln!(out, "\nonly in {only}").expect("a string takes all");
            names.iter().for_each(|name| out += &format!("  {name}\n"));
        }
    }
    out
}

/// Part of the table: its head, and a line of each pair; empty without pairs.
fn section(what: &str, pairs: &[Pair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let head = format!("\n  {what:<46}{:<9}{:>9}{:>9}{:>8}\n", "", "A", "B", "B/A");
    head + &pairs.iter().map(Pair::line).collect::<String>()
}

/// Figures of the roofs.
fn roof(a: &Report, b: &Report) -> Vec<Pair> {
    fn per_s(ms: f64) -> f64 {
        if ms > 0.0 { 1e3 / ms } else { 0.0 }
    }
    let a = &a.roof;
    let b = &b.roof;
    let submit = [a, b].map(|roof| per_s(roof.submit_ms.median));
    let dispatch = [a, b].map(|roof| per_s(1e-3 * roof.dispatch_us));
    vec![
        Pair::new("compute", "GFLOP/s", a.compute.giga_per_s, b.compute.giga_per_s),
        Pair::new("memory", "GB/s", a.memory.giga_per_s, b.memory.giga_per_s),
        Pair::new("submissions", "1/s", submit[0], submit[1]),
        Pair::new("further dispatches", "1/s", dispatch[0], dispatch[1]),
    ]
}

/// Pairs of items that are in both lists, in the order of the first.
fn both<T>(
    a: &[T],
    b: &[T],
    key: impl Fn(&T) -> String,
    pair: impl Fn(String, &T, &T) -> Pair,
) -> Vec<Pair> {
    let pairs = a.iter().filter_map(|x| {
        let same = b.iter().find(|y| key(x) == key(y))?;
        Some(pair(key(x), x, same))
    });
    pairs.filter(Pair::has_content).collect()
}

/// Names of the items that are only in the first list.
fn missing<T>(of: &[T], with: &[T], key: impl Fn(&T) -> String) -> Vec<String> {
    of.iter().map(&key).filter(|name| with.iter().all(|other| key(other) != *name)).collect()
}

fn kernel_key(row: &Row) -> String {
    format!("{} {} {} {}", row.kernel, row.tier, row.size, row.shape)
}

/// Compares kernels in the unit of the bound that applies in A; the numbers of tokens may differ.
fn kernel_pair(name: String, a: &Row, b: &Row) -> Pair {
    let bound = a.timing.or(b.timing).map_or(Bound::Compute, |timing| timing.bound);
    let unit = if bound == Bound::Compute { "GFLOP/s" } else { "GB/s" };
    let mut notes = Vec::new();
    for (name, row) in [("A", a), ("B", b)] {
        if row.check.fault.is_some() {
            notes.push(format!("{name} is wrong"));
        }
    }
    if a.tokens != b.tokens && notes.is_empty() {
        notes.push(format!("T{}, T{}", a.tokens, b.tokens));
    }
    Pair { name, unit, a: rate(a, bound), b: rate(b, bound), note: notes.join(", ") }
}

/// Rate of a kernel in the unit of a bound.
fn rate(row: &Row, bound: Bound) -> Option<f64> {
    row.timing.and_then(|timing| match bound {
        Bound::Compute => timing.gflops,
        Bound::Memory => timing.gbps,
    })
}

/// Batches of a model, with their names, which contain the model's name.
fn cells(report: &Report) -> Vec<(String, Cell)> {
    let Some(model) = &report.model else { return Vec::new() };
    let named = model.cells.iter().map(|cell| {
        let name = format!("{} {} × {}", model.name, cell.sequences, cell.length);
        (name, cell.clone())
    });
    named.collect()
}

fn cell_key((name, _): &(String, Cell)) -> String {
    name.clone()
}

fn cell_pair(name: String, (_, a): &(String, Cell), (_, b): &(String, Cell)) -> Pair {
    let [a, b] = [a, b].map(|cell| cell.timing.and_then(|timing| timing.tokens_per_s));
    Pair { name, unit: "tokens/s", a, b, note: String::new() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::tests::{report, row},
        *,
    };

    fn line<'a>(table: &'a str, start: &str) -> &'a str {
        let found = table.lines().find(|line| line.trim_start().starts_with(start));
        found.unwrap_or_else(|| panic!("`{start}` is not in\n{table}"))
    }

    #[test]
    fn figures_of_both_reports_have_ratios() {
        let a = report();
        let mut b = report();
        b.kernels[0] = row("linear", "naive", 12.0, 40.0);
        b.kernels[0].tokens = 128;
        b.roof.memory.giga_per_s = 25.0;
        let table = table(&a, &b);
        let words = |start| line(&table, start).split_whitespace().collect::<Vec<_>>();
        let linear = words("linear naive small N512 K512");
        assert_eq!(linear[5..], ["GFLOP/s", "8.00", "12.0", "1.50", "T64,", "T128"]);
        assert_eq!(words("linear tiled")[5..], ["GFLOP/s", "40.0", "40.0", "1.00"]);
        assert_eq!(words("pool")[5..], ["GB/s", "8.00", "8.00", "1.00"]);
        assert!(line(&table, "geglu").ends_with("A is wrong, B is wrong"));
        assert_eq!(words("memory")[1..], ["GB/s", "10.0", "25.0", "2.50"]);
        assert_eq!(words("mini 1 × 128")[4..], ["tokens/s", "64000", "64000", "1.00"]);
        assert!(!table.contains("1 × 512"), "too slow for both: {table}");
        assert!(!table.contains("only in"), "{table}");
    }

    #[test]
    fn figures_of_one_report_are_listed() {
        let a = report();
        let mut b = report();
        b.kernels.retain(|row| row.kernel != "pool");
        b.kernels.push(row("linear", "subgroup", 9.0, 40.0));
        b.model.as_mut().expect("a model").name = "other".into();
        let table = table(&a, &b);
        let (_, rest) = table.split_once("\nonly in A\n").expect("something only in A");
        let (only_a, only_b) = rest.split_once("\nonly in B\n").expect("something only in B");
        assert_eq!(only_a, "  pool tiled small N512 K512\n  mini 1 × 128\n  mini 1 × 512\n");
        let other = "  other 1 × 128\n  other 1 × 512\n";
        assert_eq!(only_b, format!("  linear subgroup small N512 K512\n{other}"));
        b.model = None;
        assert!(super::table(&b, &a).contains("\nonly in B\n  pool"));
    }
}
