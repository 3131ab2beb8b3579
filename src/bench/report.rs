//! Everything that was measured, as it is written to JSON and read back.

use super::{kernels::Row, roof::Roof, stats::Spread};
use crate::probe::Clock;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// The number that changes with the meaning of a field.
pub const SCHEMA: u32 = 1;

/// wgpu's version; a test holds it against `Cargo.lock`.
pub const WGPU: &str = "30.0";

/// A device, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Version of this crate.
    pub jinabert: String,
    /// Version of wgpu.
    pub wgpu: String,
    /// When, in UTC.
    pub date: String,
    /// Whether fewer and shorter runs were asked for.
    pub quick: bool,
    /// What was measured.
    pub device: Device,
    /// How kernels were timed.
    pub clock: Clock,
    /// What the device can do at all.
    pub roof: Roof,
    /// Every kernel.
    pub kernels: Vec<Row>,
    /// The whole model, if there was one.
    pub model: Option<Model>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// As the driver names it.
    pub name: String,
    /// Which API: "vulkan", …; "cpu" for the cores.
    pub backend: String,
    /// "discrete", "integrated", "virtual", "software", "other"; "cpu" for the cores.
    pub kind: String,
    /// Driver name and version.
    pub driver: String,
    /// Threads of this process: what the CPU and the host's part run on.
    pub threads: usize,
}

/// A model, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name of its directory.
    pub name: String,
    /// Encoder layers.
    pub layers: u32,
    /// D
    pub hidden: u32,
    /// Largest difference of a component from the CPU device, where that is another one.
    pub error: Option<f32>,
    /// Batches of several shapes.
    pub cells: Vec<Cell>,
}

/// A batch of sequences of one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// B
    pub sequences: u32,
    /// Tokens of each.
    pub length: u32,
    /// Missing where it would take too long.
    pub timing: Option<CellTiming>,
}

/// How fast a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellTiming {
    /// From ids to vectors, in milliseconds of the wall clock.
    pub ms: Spread,
    /// The first run, with whatever is made on first use.
    pub first_ms: f64,
    /// Tokens over the median.
    pub tokens_per_s: f64,
    /// 10⁹ operations of the matrix products and the attention a second.
    pub gflops: f64,
    /// Percent of the device's arithmetic.
    pub percent: f64,
}

impl Report {
    /// Reads JSON.
    ///
    /// # Errors
    /// The line, from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        /// Read first, so that another schema is named instead of its first new field.
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let line = |error: serde_json::Error| {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            (error.line().max(1), format!("not a report of `jinabert bench`: {what}"))
        };
        let head: Head = serde_json::from_str(text).map_err(line)?;
        if head.schema != SCHEMA {
            return Err((1, format!("schema {}, where {SCHEMA} is meant", head.schema)));
        }
        serde_json::from_str(text).map_err(line)
    }

    /// Writes JSON.
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("keys are strings");
        text + "\n"
    }

    /// Kernels that are wrong or failed.
    pub fn faults(&self) -> usize {
        self.kernels.iter().filter(|row| row.check.fault.is_some()).count()
    }
}

/// The time as `2026-01-31T23:59:59Z`.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_utc(since.as_secs())
}

/// Days to civil dates by eras of 400 years that begin in March (Hinnant 2013).
fn format_utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153; // months since March
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            kernels::{Check, Timing},
            roof::{Bound, tests::roof},
        },
        *,
    };
    use std::time::Duration;

    /// A kernel at so many GFLOP/s and operations a byte, under the roof of `roof()`.
    pub fn row(kernel: &str, tier: &str, gflops: f64, intensity: f64) -> Row {
        let bound = if intensity < 10.0 { Bound::Memory } else { Bound::Compute };
        Row {
            kernel: kernel.into(),
            tier: tier.into(),
            size: "small".into(),
            shape: "N512 K512".into(),
            tokens: 64,
            problem: format!("{kernel} T64 N512 K512"),
            check: Check { tokens: 64, error: 1e-6, fault: None },
            timing: Some(Timing {
                ms: Spread::of([1, 2, 3].map(Duration::from_millis)),
                flops: 2e6 * gflops,
                bytes: 2e6 * gflops / intensity,
                intensity,
                gflops,
                gbps: gflops / intensity,
                bound,
                percent: 100.0 * gflops / roof().gflops(intensity),
            }),
        }
    }

    /// Four kernels, one of them wrong, and a model.
    pub fn report() -> Report {
        let ms = Spread::of([Duration::from_millis(2)]);
        let timing =
            CellTiming { ms, first_ms: 9.0, tokens_per_s: 64e3, gflops: 5.0, percent: 5.0 };
        let cell = |length, timing| Cell { sequences: 1, length, timing };
        let mut wrong = row("geglu", "tiled", 1.0, 2.0);
        wrong.timing = None;
        wrong.check.fault = Some("3 of 9 elements wrong, as [0]: NaN where 1.0 is <meant>".into());
        Report {
            schema: SCHEMA,
            jinabert: "0.0.0".into(),
            wgpu: WGPU.into(),
            date: format_utc(0),
            quick: true,
            device: Device {
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
            model: Some(Model {
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
        let error = |text: &str| Report::parse(text).expect_err(text);
        assert_eq!(error("{\"schema\": 7}"), (1, "schema 7, where 1 is meant".to_owned()));
        let (line, what) = error("{\n\"schema\": 1,\n]");
        assert!(line == 3 && what.starts_with("not a report"), "{line} {what}");
        let (_, what) = error("{\"schema\": 1}");
        assert!(what.contains("missing field `jinabert`"), "{what}");
        assert_eq!(error("").0, 1);
    }

    #[test]
    fn dates_by_hand() {
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
        let lock = include_str!("../../Cargo.lock");
        let found = lock.split("name = \"wgpu\"\nversion = \"").nth(1).expect("wgpu is locked");
        assert!(found.starts_with(&format!("{WGPU}.")), "{WGPU}");
    }
}
