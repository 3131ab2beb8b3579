//! Printed table, line by line, at most 100 columns wide.

use super::{
    kernels::Row,
    report::{Cell, ModelReport, Report},
    roof::{Limit, Roof},
    stats::digits,
    target::DeviceInfo,
};

/// Formats a value, or a dash if it is unknown.
fn known(value: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    value.map_or("–".to_owned(), text)
}

/// Formats a rate by [`digits`], or a dash if it is unknown.
pub fn rate(value: Option<f64>) -> String {
    known(value, digits)
}

/// Formats a time with its unit.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{} µs", digits(1e3 * ms)),
        ms if ms < 1e3 => format!("{} ms", digits(ms)),
        ms => format!("{} s", digits(1e-3 * ms)),
    }
}

/// Name and kind of the device.
pub fn device(device: &DeviceInfo) -> String {
    format!("{} ({})", device.name, about(device))
}

/// Backend, kind, driver and threads of the device.
pub fn about(device: &DeviceInfo) -> String {
    let DeviceInfo { backend, kind, driver, threads, .. } = device;
    match (backend == kind, driver.is_empty()) {
        (true, _) => format!("{kind}, {threads} threads"),
        (_, true) => format!("{backend}, {kind}"),
        _ => format!("{backend}, {kind}, {driver}"),
    }
}

/// Formats a difference between two devices.
pub fn difference(error: Option<f32>) -> String {
    let text = |error| if error == 0.0 { "0".to_owned() } else { format!("{error:.0e}") };
    known(error.map(f64::from), text)
}

/// Versions and date of the measurement.
pub fn engine(report: &Report) -> String {
    let Report { jinabert, wgpu, date, quick, .. } = report;
    let quick = if *quick { ", quick" } else { "" };
    format!("jinabert {jinabert}, wgpu {wgpu}, {date}{quick}")
}

/// Header of the table.
pub fn head(report: &Report) -> String {
    format!("{}\n{}\n", device(&report.device), engine(report))
}

/// Lines of the roof.
pub fn roof(roof: &Roof) -> String {
    let line = |what: &str, limit: &Limit, unit: &str| {
        format!("  {what:<10}{:>8} {unit:<8}  by {}\n", digits(limit.giga_per_s), limit.by)
    };
    let submit = time(roof.submit_ms.median);
    let dispatch = time(1e-3 * roof.dispatch_us);
    [
        "\nroof\n".to_owned(),
        line("compute", &roof.compute, "GFLOP/s"),
        line("memory", &roof.memory, "GB/s"),
        format!("  ridge     {:>8} FLOP/byte\n", digits(roof.ridge())),
        format!("  submit    {submit:>11}      one small dispatch, submitted and waited for\n"),
        format!("  dispatch  {dispatch:>11}      each further one of the same pass\n"),
    ]
    .concat()
}

/// Column heads of the kernels.
pub fn kernels_head(report: &Report) -> String {
    format!(
        "\nkernels (times by {}; % of the bound that applies, over 100 if a cache holds the data)\n  \
         {:<13}{:<13}{:<6}{:<16}{:>6}{:>9}{:>8}{:>7}{:>7}  {:<7}{:>4}\n",
        report.clock,
        "kernel",
        "tier",
        "size",
        "shape",
        "T",
        "time",
        "GFLOP/s",
        "GB/s",
        "FLOP/B",
        "bound",
        "%",
    )
}

/// Line of one kernel.
pub fn kernel(row: &Row) -> String {
    let Row { kernel, tier, size, shape, tokens, .. } = row;
    let start = format!("  {kernel:<13}{tier:<13}{size:<6}{shape:<16}{tokens:>6}");
    match (&row.timing, &row.check.fault) {
        (Some(timing), _) => format!(
            "{start}{:>9}{:>8}{:>7}{:>7}  {:<7}{:>4}\n",
            time(timing.ms.median),
            rate(timing.gflops),
            rate(timing.gbps),
            digits(timing.intensity),
            timing.bound.to_string(),
            percent(timing.percent),
        ),
        (None, fault) => format!("{start}  WRONG: {}\n", fault.as_deref().unwrap_or_default()),
    }
}

/// Formats two digits, or the whole number; a dash if it is unknown.
pub fn percent(value: Option<f64>) -> String {
    let text = |v| if v < 9.95 { format!("{v:.1}") } else { format!("{v:.0}") };
    known(value, text)
}

/// Column heads of the model.
pub fn model_head(model: &ModelReport) -> String {
    let ModelReport { name, layers, hidden, error, .. } = model;
    let error = error
        .map_or(String::new(), |_| format!(", max |Δ| {} from the CPU device", difference(*error)));
    format!(
        "\nmodel {name} ({layers} layers, D{hidden}{error}; from ids to vectors)\n  \
         {:<15}{:>8}{:>12}{:>12}{:>10}{:>10}\n",
        "batch × length", "tokens", "time", "tokens/s", "GFLOP/s", "% compute",
    )
}

/// Line of one batch.
pub fn cell(cell: &Cell) -> String {
    let Cell { sequences, length, timing } = cell;
    let start = format!("  {:<15}{:>8}", format!("{sequences} × {length}"), sequences * length);
    match timing {
        None => format!("{start}{:>12}\n", "too slow"),
        Some(timing) => format!(
            "{start}{:>12}{:>12}{:>10}{:>10}\n",
            time(timing.ms.median),
            rate(timing.tokens_per_s),
            rate(timing.gflops),
            percent(timing.percent),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    #[test]
    fn numbers_are_short() {
        let given = [0.0, 0.000_5, 0.001_234, 0.123_4, 1.234, 12.34, 123.4, 1_234_567.8];
        let expected = ["0", "5e-4", "0.0012", "0.123", "1.23", "12.3", "123", "1234568"];
        assert_eq!(given.map(digits), expected);
        assert_eq!([0.002, 1.5, 2500.0].map(time), ["2.00 µs", "1.50 ms", "2.50 s"]);
        let percents = [Some(0.25), Some(9.96), Some(101.4), None].map(percent);
        assert_eq!(percents, ["0.2", "10", "101", "–"]);
        assert_eq!([Some(12.34), None].map(rate), ["12.3", "–"]);
        assert_eq!([Some(0.0), Some(1e-7), None].map(difference), ["0", "1e-7", "–"]);
    }

    #[test]
    fn lines_fit_and_columns_meet() {
        let report = report();
        let model = report.model.as_ref().expect("a model");
        let mut unknown = report.kernels[0].clone();
        let timing = unknown.timing.as_mut().expect("a timing");
        timing.gflops = None;
        timing.gbps = None;
        timing.percent = None;
        let rows = report.kernels.iter().chain([&unknown]);
        let rows: String = rows.map(kernel).collect();
        let cells: String = model.cells.iter().map(cell).collect();
        let kernels = kernels_head(&report) + &rows;
        let cells = model_head(model) + &cells;
        let all = [head(&report), roof(&report.roof), kernels.clone(), cells].concat();
        for line in all.lines().filter(|line| !line.contains("WRONG")) {
            assert!(line.chars().count() <= 100, "{line}");
        }
        let widths: Vec<_> = kernels.lines().skip(2).map(|line| line.chars().count()).collect();
        assert_eq!([&widths[..4], &widths[5..]].concat(), [widths[0]; 5], "{kernels}");
        assert!(kernels.ends_with("   –\n"), "{kernels}");
    }
}
