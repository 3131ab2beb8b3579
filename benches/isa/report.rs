//! Figures as a table, as lines between processes, and against the figures expected.

use std::fmt::Write as _;

/// Declares the figures of a program, in the order in which they are written.
macro_rules! figures {
    ($($(#[$doc:meta])* $field:ident),+ $(,)?) => {
        /// What is known of one compiled program.
        #[derive(Clone, Debug, Default)]
        pub struct Figures {
            $($(#[$doc])* pub $field: u32),+
        }

        impl Figures {
            fn values(&self) -> Vec<u32> {
                vec![$(self.$field),+]
            }

            fn parse(values: &[u32]) -> Option<Self> {
                let mut values = values.iter().copied();
                Some(Self { $($field: values.next()?),+ })
            }
        }
    };
}

figures! {
    /// Vector registers.
    vgprs,
    /// Scalar registers.
    sgprs,
    /// Vector registers that did not fit.
    vgpr_spills,
    /// Scalar registers that did not fit.
    sgpr_spills,
    /// Bytes of memory for spills and indexed arrays.
    scratch,
    /// Bytes of workgroup memory.
    lds,
    /// Waves that a SIMD can hold.
    waves,
    /// Size of the code.
    bytes,
    /// Instructions of the code.
    instructions,
    /// The compiler's estimate, in cycles.
    latency,
    /// Likewise.
    inverse_throughput,
    /// Multiply-adds in the hottest loop.
    loop_fmas,
    /// Vector arithmetic in the hottest loop.
    loop_valu,
    /// Loads of 128 bits from workgroup memory.
    lds_wide,
    /// Narrower ones.
    lds_narrow,
    /// Vector loads of 128 bits from buffers and textures.
    memory_wide,
    /// Narrower ones.
    memory_narrow,
}

impl Figures {
    fn spills(&self) -> u32 {
        self.vgpr_spills + self.sgpr_spills
    }

    /// Multiply-adds among the vector arithmetic of the hottest loop, in percent.
    fn fma_share(&self) -> f64 {
        100.0 * f64::from(self.loop_fmas) / f64::from(self.loop_valu.max(1))
    }
}

/// A program on a family of chips.
pub struct Row {
    pub family: String,
    pub program: String,
    pub figures: Figures,
}

impl Row {
    /// One line, for [`Row::parse`].
    pub fn line(&self) -> String {
        let values: Vec<_> = self.figures.values().iter().map(u32::to_string).collect();
        format!("{}\t{}\t{}", self.family, self.program, values.join("\t"))
    }

    /// A line written by [`Row::line`].
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (family, program) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let values: Vec<u32> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
        Some(Self { family, program, figures: Figures::parse(&values)? })
    }

    fn cells(&self) -> [String; 13] {
        let f = &self.figures;
        [
            self.program.clone(),
            f.vgprs.to_string(),
            f.sgprs.to_string(),
            format!("{}/{}", f.vgpr_spills, f.sgpr_spills),
            f.scratch.to_string(),
            f.lds.to_string(),
            f.waves.to_string(),
            f.bytes.to_string(),
            f.instructions.to_string(),
            format!("{}/{}", f.latency, f.inverse_throughput),
            format!("{}/{} {:5.1}%", f.loop_fmas, f.loop_valu, f.fma_share()),
            format!("{}/{}", f.lds_wide, f.lds_narrow),
            format!("{}/{}", f.memory_wide, f.memory_narrow),
        ]
    }
}

const TITLES: [&str; 13] = [
    "program", "vgpr", "sgpr", "spill", "scratch", "lds", "waves", "bytes", "instr", "cycles",
    "fma/valu", "lds 128", "mem 128",
];

/// The rows in aligned columns.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![TITLES.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |n: usize| lines.iter().map(|cells| cells[n].len()).max().unwrap_or_default();
    let widths: Vec<_> = (0..TITLES.len()).map(width).collect();
    let mut table = String::new();
    for cells in &lines {
        let _ = write!(table, "{:<1$}", cells[0], widths[0]);
        for (cell, width) in cells.iter().zip(&widths).skip(1) {
            let _ = write!(table, "  {cell:>width$}");
        }
        table.push('\n');
    }
    table
}

/// Columns of the expectation file.
const COLUMNS: &str = "family\tprogram\tvgprs\tspills\tlds\twaves\tfma %";

/// Most by which registers may grow, as a factor, and by which the share may fall, in points.
const MORE_VGPRS: f64 = 1.1;
const LESS_FMA: f64 = 3.0;

/// What a program is expected to need.
#[derive(Debug)]
struct Expected {
    family: String,
    program: String,
    vgprs: u32,
    spills: u32,
    waves: u32,
    fma_share: f64,
}

impl Expected {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split('\t').collect();
        let [family, program, vgprs, spills, _lds, waves, fma_share] = fields[..] else {
            return None;
        };
        Some(Self {
            family: family.to_owned(),
            program: program.to_owned(),
            vgprs: vgprs.parse().ok()?,
            spills: spills.parse().ok()?,
            waves: waves.parse().ok()?,
            fma_share: fma_share.parse().ok()?,
        })
    }

    /// What of `found` is worse; only spills where `strict` is not set.
    fn worse(&self, found: &Figures, strict: bool) -> Vec<String> {
        let share = found.fma_share();
        let vgprs = f64::from(found.vgprs) > f64::from(self.vgprs) * MORE_VGPRS;
        let rules = [
            (found.spills() > self.spills, format!("spills {} -> {}", self.spills, found.spills())),
            (
                strict && found.waves < self.waves,
                format!("waves {} -> {}", self.waves, found.waves),
            ),
            (strict && vgprs, format!("vgprs {} -> {}", self.vgprs, found.vgprs)),
            (
                strict && share < self.fma_share - LESS_FMA,
                format!("fma {:.1} % -> {share:.1} %", self.fma_share),
            ),
        ];
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, text)| text).collect()
    }
}

/// The expectation file for these rows.
pub fn expectation(driver: &str, rows: &[Row]) -> String {
    let mut text = format!("# {driver}\n{COLUMNS}\n");
    for Row { family, program, figures: f } in rows {
        let (spills, share) = (f.spills(), f.fma_share());
        let line = format!("{}\t{spills}\t{}\t{}\t{share:.1}", f.vgprs, f.lds, f.waves);
        let _ = writeln!(text, "{family}\t{program}\t{line}");
    }
    text
}

/// `22.3` of `Mesa 22.3.6`.
fn release(driver: &str) -> &str {
    driver.rsplit_once('.').map_or(driver, |(release, _)| release)
}

/// What is worse than the expectation file says, a line each.  Another release of the driver
/// allocates registers differently, so there only spills count; the second value says so.
pub fn check(text: &str, driver: &str, rows: &[Row], filter: &str) -> (Vec<String>, bool) {
    let mut lines = text.lines();
    let written = lines.next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
    let strict = release(written) == release(driver);
    let all: Vec<_> = lines.filter_map(Expected::parse).collect();
    let mut worse = Vec::new();
    for row in rows {
        let same = |e: &&Expected| e.family == row.family && e.program == row.program;
        let place = format!("{} {}", row.family, row.program);
        match all.iter().find(same) {
            Some(expected) => {
                let found = expected.worse(&row.figures, strict);
                worse.extend(found.into_iter().map(|what| format!("{place}: {what}")));
            }
            None => worse.push(format!("{place}: no line in the expectation file")),
        }
    }
    for expected in all.iter().filter(|expected| expected.program.contains(filter)) {
        let same = |row: &Row| expected.family == row.family && expected.program == row.program;
        if !rows.iter().any(same) {
            let Expected { family, program, .. } = expected;
            worse.push(format!("{family} {program}: expected, but there is no such program"));
        }
    }
    (worse, strict)
}
