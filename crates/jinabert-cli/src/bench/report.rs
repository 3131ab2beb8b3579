//! Report of a benchmark, written as JSON and read back.

use super::{
    kernels::Row,
    roof::{Bound, Roof},
    stats::Spread,
    target::DeviceInfo,
};
use jinabert::kernel_check::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Schema version; it changes when the meaning of a field changes.
pub const SCHEMA: u32 = 1;

/// Version of wgpu; a test compares it with `Cargo.lock`.
pub const WGPU: &str = "30.0";

/// Measurements of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Version of this crate.
    pub jinabert: String,
    /// Version of wgpu.
    pub wgpu: String,
    /// Date and time in UTC.
    pub date: String,
    /// True for fewer and shorter runs.
    pub quick: bool,
    /// Device that was measured.
    pub device: DeviceInfo,
    /// Clock for the timing of kernels.
    pub clock: Clock,
    /// Limits of the device.
    pub roof: Roof,
    /// Kernels.
    pub kernels: Vec<Row>,
    /// Whole model, if one was measured.
    pub model: Option<ModelReport>,
}

/// Measurements of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Name of the model's directory.
    pub name: String,
    /// Number of encoder layers.
    pub layers: u32,
    /// D: hidden size.
    pub hidden: u32,
    /// Largest difference of a component from the CPU's result, if the device is another one.
    pub error: Option<f32>,
    /// Batches of several shapes.
    pub cells: Vec<Cell>,
}

/// Batch of sequences of one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// B: number of sequences.
    pub sequences: u32,
    /// Tokens in each sequence.
    pub length: u32,
    /// Missing if it would take too long.
    pub timing: Option<CellTiming>,
}

/// Speed of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellTiming {
    /// From ids to vectors, in milliseconds of the wall clock.
    pub ms: Spread,
    /// First run, including one-time setup.
    pub first_ms: f64,
    /// Tokens a second at the median; missing, as the next two, if the clock did not move.
    pub tokens_per_s: Option<f64>,
    /// 10⁹ operations a second of the matrix products and the attention.
    pub gflops: Option<f64>,
    /// Percentage of the device's arithmetic limit.
    pub percent: Option<f64>,
}

impl CellTiming {
    /// Recomputes the percentage for `roof`.
    pub fn set_roof(&mut self, roof: &Roof) {
        self.percent = self.gflops.map(|gflops| roof.percent(Bound::Compute, gflops));
    }
}

impl Report {
    /// Parses JSON.
    ///
    /// # Errors
    /// Line number, from 1, and the error in it.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let bad = |what: &str| format!("not a report of `jinabert bench --json`: {what}");
        let line = |error: serde_json::Error| {
            let line = error.line().max(1);
            let there = text.lines().nth(line - 1).unwrap_or_default();
            let message = error.to_string();
            let what = match message.split(" at line ").next().unwrap_or_default() {
                _ if error.is_eof() => "the file ends before the report does",
                _ if error.is_syntax() && there.contains("NaN") => {
                    "expected a number or null, got NaN, which JSON does not have"
                }
                what => what,
            };
            (line, bad(what))
        };
        // Comparison first, so that another schema is reported, not its first new field.
        let value: Value = serde_json::from_str(text).map_err(line)?;
        match value.get("schema") {
            Some(schema) if *schema == SCHEMA => {}
            Some(schema) => return Err((1, format!("expected schema {SCHEMA}, got {schema}"))),
            None if value.is_object() => return Err((1, bad("no field `schema`"))),
            None => return Err((1, bad("expected an object"))),
        }
        let report: Self = serde_json::from_str(text).map_err(line)?;
        // Structs that derive serde's traits also accept a list of their fields in order.
        let written = serde_json::to_value(&report).map_err(line)?;
        match list_for_object(&value, &written) {
            None => Ok(report),
            Some(place) => Err((1, bad(&format!("expected an object, got a list{place}")))),
        }
    }

    /// Recomputes all percentages for the roof, which may have been raised since.
    pub fn set_roof(&mut self) {
        let roof = &self.roof;
        self.kernels.iter_mut().flat_map(|row| &mut row.timing).for_each(|t| t.set_roof(roof));
        let cells = self.model.iter_mut().flat_map(|model| &mut model.cells);
        cells.flat_map(|cell| &mut cell.timing).for_each(|timing| timing.set_roof(roof));
    }

    /// Serialises to JSON.
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("keys are strings");
        text + "\n"
    }

    /// Number of kernels that are wrong or failed.
    pub fn faults(&self) -> usize {
        self.kernels.iter().filter(|row| row.check.fault.is_some()).count()
    }
}

/// Path of the first value that is a list where serialisation gives an object.
fn list_for_object(value: &Value, written: &Value) -> Option<String> {
    match (value, written) {
        (Value::Array(_), Value::Object(_)) => Some(String::new()),
        (Value::Array(values), Value::Array(written)) => {
            values.iter().zip(written).find_map(|(value, written)| list_for_object(value, written))
        }
        (Value::Object(values), Value::Object(written)) => {
            values.iter().find_map(|(name, value)| {
                let place = list_for_object(value, written.get(name)?)?;
                Some(format!(" in `{name}`{place}"))
            })
        }
        _ => None,
    }
}

/// Current time as `2026-01-31T23:59:59Z`.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_utc(since.as_secs())
}

/// Days to civil dates by eras of 400 years that begin in March (Hinnant 2013).
fn format_utc(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468; // since 0000-03-01
    let era = days / 146_097;
    let era_day = days % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let shifted = (5 * year_day + 2) / 153; // months since March
    let day = year_day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = 400 * era + era_year + u64::from(month <= 2);
    let hour = seconds / 3600 % 24;
    let minute = seconds / 60 % 60;
    let second = seconds % 60;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            kernels::{Check, KernelTiming},
            roof::{Bound, tests::roof},
        },
        *,
    };
    use std::time::Duration;

    /// Row of a kernel with these GFLOP/s and operations per byte, under the roof of `roof()`.
    pub fn row(kernel: &str, tier: &str, gflops: f64, intensity: f64) -> Row {
        let bound = if intensity < 10.0 { Bound::Memory } else { Bound::Compute };
        Row {
            kernel: kernel.into(),
            tier: tier.into(),
            size: "small".into(),
            shape: "N512 K512".into(),
            tokens: 64,
            problem: format!("{kernel} T64 N512 K512"),
            check: Check { tokens: 64, error: Some(1e-6), fault: None },
            timing: Some(KernelTiming {
                ms: Spread::of([1, 2, 3].map(Duration::from_millis)),
                flops: 2e6 * gflops,
                bytes: 2e6 * gflops / intensity,
                intensity,
                gflops: Some(gflops),
                gbps: Some(gflops / intensity),
                bound,
                percent: Some(100.0 * gflops / roof().gflops(intensity)),
            }),
        }
    }

    /// Report with four kernels, one of them wrong, and a model.
    pub fn report() -> Report {
        let ms = Spread::of([Duration::from_millis(2)]);
        let [tokens_per_s, gflops, percent] = [64e3, 5.0, 5.0].map(Some);
        let timing = CellTiming { ms, first_ms: 9.0, tokens_per_s, gflops, percent };
        let cell = |length, timing| Cell { sequences: 1, length, timing };
        let mut wrong = row("geglu", "tiled", 1.0, 2.0);
        wrong.timing = None;
        wrong.check.error = None;
        wrong.check.fault = Some("3 of 9 elements wrong, as [0]: NaN where 1.0 is <meant>".into());
        Report {
            schema: SCHEMA,
            jinabert: "0.0.0".into(),
            wgpu: WGPU.into(),
            date: format_utc(0),
            quick: true,
            device: DeviceInfo {
                name: "Card <9> & \"sons\"".into(),
                backend: "vulkan".into(),
                kind: "discrete".into(),
                driver: "driver 1.2".into(),
                threads: 2,
            },
            clock: Clock::Timestamps,
            roof: roof(),
            kernels: vec![
                row("linear", "naive", 8.0, 40.0),
                row("linear", "tiled", 40.0, 40.0),
                row("pool", "tiled", 2.0, 0.25),
                wrong,
            ],
            model: Some(ModelReport {
                name: "mini".into(),
                layers: 6,
                hidden: 384,
                error: Some(1e-7),
                cells: vec![cell(128, Some(timing)), cell(512, None)],
            }),
        }
    }

    #[test]
    fn a_report_reads_back() {
        let report = report();
        assert_eq!(Report::parse(&report.json()), Ok(report.clone()));
        assert_eq!(report.faults(), 1);
        let rows = super::super::kernels::tests::rows();
        let all = Report { kernels: rows, ..report };
        let read = Report::parse(&all.json()).expect("as it was written");
        let names =
            |report: &Report| report.kernels.iter().map(|row| row.problem.clone()).collect();
        let written: Vec<_> = names(&all);
        assert_eq!(written, names(&read));
    }

    #[test]
    fn reports_of_version_0_1_read_back() {
        let mut report = report();
        let timing = report.kernels[0].timing.as_mut().expect("a timing");
        timing.gflops = None;
        timing.percent = None;
        report.kernels[0].check.error = None;
        let text = report.json();
        for field in ["\"gflops\": null", "\"percent\": null", "\"error\": null"] {
            assert!(text.contains(field), "{field}");
        }
        assert!(!text.contains("first\""), "{text}");
        assert_eq!(Report::parse(&text), Ok(report));
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let error = |text: &str| Report::parse(text).expect_err(text);
        let report = report().json();
        for (text, line, says) in [
            ("{\"schema\": 7}", 1, "expected schema 1, got 7"),
            ("{\"schema\": \"1\"}", 1, "expected schema 1, got \"1\""),
            ("{\n\"schema\": 1,\n]", 3, "not a report"),
            ("{\"schema\": 1}", 1, "missing field `jinabert`"),
            ("{\"texts\": 1}", 1, "no field `schema`"),
            ("[1]", 1, "expected an object"),
            ("", 1, "the file ends before the report does"),
            (&report[..report.len() / 2], report[..report.len() / 2].lines().count(), "file ends"),
            ("{\"schema\": 1,\n\"roof\": NaN}", 2, "expected a number or null, got NaN"),
        ] {
            let (at, what) = error(text);
            assert!(at == line && what.contains(says), "{text}: {at} {what}");
        }
    }

    #[test]
    fn a_raised_roof_changes_every_percentage() {
        let mut report = report();
        report.roof.compute.giga_per_s = 200.0;
        report.roof.memory.giga_per_s = 80.0;
        report.set_roof();
        let percent = |row: &Row| row.timing.and_then(|timing| timing.percent);
        let percents: Vec<_> = report.kernels.iter().map(percent).collect();
        assert_eq!(percents, [Some(4.0), Some(20.0), Some(10.0), None]);
        let cells = &report.model.expect("a model").cells;
        assert_eq!(cells[0].timing.and_then(|timing| timing.percent), Some(2.5));
    }

    #[test]
    fn lists_in_place_of_objects_are_refused() {
        let report = report();
        let mut value: Value = serde_json::from_str(&report.json()).expect("JSON");
        value["device"] = serde_json::json!(["a", "b", "c", "d", 2]);
        let (_, what) = Report::parse(&value.to_string()).expect_err("a list");
        assert!(what.ends_with("expected an object, got a list in `device`"), "{what}");
        let mut value: Value = serde_json::from_str(&report.json()).expect("JSON");
        value["kernels"][1]["check"] = serde_json::json!([64, 1e-6, null]);
        let (_, what) = Report::parse(&value.to_string()).expect_err("a list");
        assert!(what.ends_with("got a list in `kernels` in `check`"), "{what}");
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format_utc(seconds), date);
        }
    }

    #[test]
    fn wgpu_is_the_one_in_the_lock_file() {
        let lock = include_str!("../../../../Cargo.lock");
        let found = lock.split("name = \"wgpu\"\nversion = \"").nth(1).expect("wgpu is locked");
        assert!(found.starts_with(&format!("{WGPU}.")), "{WGPU}");
    }
}
