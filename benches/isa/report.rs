//! Figures as a table, as lines between processes, and compared with the expected figures.

use std::{collections::BTreeMap, fmt::Write as _};

/// Declares the figures of a program, in their order in the output.
macro_rules! figures {
    ($($(#[$doc:meta])* $field:ident),+ $(,)?) => {
        /// Figures of one compiled program; each driver reports some of them.
        #[derive(Clone, Debug, Default)]
        pub struct Figures {
            $($(#[$doc])* pub $field: Option<u32>),+
        }

        impl Figures {
            fn values(&self) -> Vec<Option<u32>> {
                vec![$(self.$field),+]
            }

            fn parse(values: &[Option<u32>]) -> Option<Self> {
                let mut values = values.iter().copied();
                Some(Self { $($field: values.next()?),+ })
            }
        }
    };
}

figures! {
    /// Registers of an invocation, of the kind that limits occupancy.
    registers,
    /// Spilled registers, in the driver's unit: values, instructions or bytes.
    spills,
    /// Reads of spilled registers.
    fills,
    /// Bytes of memory for spills and indexed arrays.
    local,
    /// Bytes of workgroup memory.
    lds,
    /// Invocations in a subgroup; on Intel, in one instruction.
    width,
    /// Occupancy: maximum subgroups, or invocations, on a core.
    waves,
    /// Code size in bytes.
    bytes,
    /// Number of instructions.
    instructions,
    /// Cycles, as estimated by the compiler.
    cycles,
    /// CPU time of the compiler, in hundredths of a second.
    hundredths,
    /// Multiply-adds in the hottest loop.
    loop_fmas,
    /// Vector arithmetic in the hottest loop.
    loop_valu,
    /// Loads of 128 bits from workgroup memory.
    lds_wide,
    /// Narrower loads from workgroup memory.
    lds_narrow,
    /// Vector loads of 128 bits from buffers and textures.
    memory_wide,
    /// Narrower vector loads from buffers and textures.
    memory_narrow,
}

/// Maximum compile time of a program, in hundredths of a second.
const SLOW: u32 = 500;

impl Figures {
    /// Multiply-adds as a percentage of the vector arithmetic of the hottest loop.
    fn fma_share(&self) -> Option<f64> {
        Some(100.0 * f64::from(self.loop_fmas?) / f64::from(self.loop_valu?.max(1)))
    }
}

/// Program compiled for a family.
pub struct Row {
    pub family: String,
    pub program: String,
    pub figures: Figures,
    /// Error of the driver, if it did not compile the program.
    pub refused: Option<String>,
}

impl Row {
    /// Formats the row as a line for [`Row::parse`].
    pub fn line(&self) -> String {
        let values: Vec<_> = self.figures.values().into_iter().map(cell).collect();
        let refused = self.refused.as_deref().unwrap_or_default();
        format!("{}\t{}\t{refused}\t{}", self.family, self.program, values.join("\t"))
    }

    /// Parses a line of [`Row::line`].
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let family = fields.next()?.to_owned();
        let program = fields.next()?.to_owned();
        let refused = Some(fields.next()?.to_owned()).filter(|why| !why.is_empty());
        let values: Vec<_> = fields.map(number).collect::<Option<_>>()?;
        Some(Self { family, program, figures: Figures::parse(&values)?, refused })
    }

    fn cells(&self) -> Vec<String> {
        let f = &self.figures;
        let seconds =
            f.hundredths.map_or("-".to_owned(), |n| format!("{:.2}", f64::from(n) / 100.0));
        let pair = |a, b| format!("{}/{}", cell(a), cell(b));
        vec![
            match &self.refused {
                None => self.program.clone(),
                Some(why) => format!("{} REFUSED: {why}", self.program),
            },
            cell(f.registers),
            pair(f.spills, f.fills),
            cell(f.local),
            cell(f.lds),
            cell(f.width),
            cell(f.waves),
            cell(f.bytes),
            cell(f.instructions),
            cell(f.cycles),
            seconds,
            f.fma_share().map_or("-".to_owned(), |share| {
                format!("{} {share:5.1}%", pair(f.loop_fmas, f.loop_valu))
            }),
            pair(f.lds_wide, f.lds_narrow),
            pair(f.memory_wide, f.memory_narrow),
        ]
    }
}

/// Formats a number; `-` if there is none.
fn cell(number: Option<u32>) -> String {
    number.map_or("-".to_owned(), |n| n.to_string())
}

/// Parses a cell of [`cell`].
fn number(cell: &str) -> Option<Option<u32>> {
    if cell == "-" { Some(None) } else { cell.parse().ok().map(Some) }
}

const TITLES: [&str; 14] = [
    "program",
    "regs",
    "spill/fill",
    "local",
    "lds",
    "width",
    "waves",
    "bytes",
    "instr",
    "cycles",
    "s",
    "fma/valu",
    "lds 128",
    "mem 128",
];

/// Table with aligned columns.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![TITLES.map(str::to_owned).to_vec()];
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
pub const COLUMNS: &str =
    "family\tprogram\tregisters\tspills\tfills\tlocal\tlds\twidth\twaves\tcycles\tfma %\treason";

/// Tolerances: factor by which registers may grow, and points by which the FMA share may fall.
const MORE_REGISTERS: f64 = 1.1;
const LESS_FMA: f64 = 3.0;

/// Entry in the column of registers if the driver does not compile the program.
const REFUSED: &str = "refused";

/// Expected figures of a program.
#[derive(Debug)]
struct Expected {
    family: String,
    program: String,
    /// `None` if the driver refuses the program.
    registers: Option<Option<u32>>,
    spills: Option<u32>,
    fills: Option<u32>,
    width: Option<u32>,
    waves: Option<u32>,
    fma_share: Option<f64>,
    /// Reason why it may spill, be refused, or take long to compile.
    reason: String,
}

impl Expected {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split('\t').collect();
        let [
            family,
            program,
            registers,
            spills,
            fills,
            _local,
            _lds,
            width,
            waves,
            _cycles,
            fma,
            reason,
        ] = fields[..]
        else {
            return None;
        };
        Some(Self {
            family: family.to_owned(),
            program: program.to_owned(),
            registers: if registers == REFUSED { None } else { Some(number(registers)?) },
            spills: number(spills)?,
            fills: number(fills)?,
            width: number(width)?,
            waves: number(waves)?,
            fma_share: if fma == "-" { None } else { Some(fma.parse().ok()?) },
            reason: reason.trim().to_owned(),
        })
    }

    /// Regressions in `found`; registers, waves and the share are compared only if `strict` is set.
    fn worse(&self, found: &Row, strict: bool) -> Vec<String> {
        let f = &found.figures;
        let excused = !self.reason.is_empty();
        let mut worse = Vec::new();
        if let Some(why) = &found.refused {
            if self.registers.is_some() || !excused {
                worse.push(format!("refused, without a reason in the file: {why}"));
            }
            return worse;
        }
        if f.hundredths.is_some_and(|n| n > SLOW) && !excused {
            let seconds = f64::from(f.hundredths.unwrap_or_default()) / 100.0;
            worse.push(format!("{seconds:.1} s to compile, without a reason in the file"));
        }
        for (what, was, is) in [("spills", self.spills, f.spills), ("fills", self.fills, f.fills)] {
            let was = was.unwrap_or_default();
            let is = is.unwrap_or_default();
            if is > was {
                worse.push(format!("{what} {was} -> {is}"));
            } else if is > 0 && !excused {
                worse.push(format!("{is} {what}, without a reason in the file"));
            }
        }
        let less = |what: &str, was: Option<u32>, is: Option<u32>| match (was, is) {
            (Some(was), Some(is)) if is < was => Some(format!("{what} {was} -> {is}")),
            _ => None,
        };
        worse.extend(less("width", self.width, f.width));
        if strict {
            worse.extend(less("waves", self.waves, f.waves));
            if let (Some(Some(was)), Some(is)) = (self.registers, f.registers)
                && f64::from(is) > f64::from(was) * MORE_REGISTERS
            {
                worse.push(format!("registers {was} -> {is}"));
            }
            if let (Some(was), Some(is)) = (self.fma_share, f.fma_share())
                && is < was - LESS_FMA
            {
                worse.push(format!("fma {was:.1} % -> {is:.1} %"));
            }
        }
        worse
    }
}

/// Driver release: `22.3` for `Mesa 22.3.6`.
fn release(driver: &str) -> &str {
    driver.rsplit_once('.').map_or(driver, |(release, _)| release)
}

/// Contents of the expectation file.
#[derive(Default)]
pub struct Expectations {
    /// Driver of each family.
    drivers: BTreeMap<String, String>,
    rows: Vec<Expected>,
    /// Lines of `rows`.
    lines: Vec<String>,
}

impl Expectations {
    /// Parses `# FAMILY: DRIVER` for each family, the titles, and a line for each program.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let (family, driver) = comment
                    .split_once(": ")
                    .ok_or_else(|| format!("line {number}: expected `# FAMILY: DRIVER`"))?;
                all.drivers.insert(family.to_owned(), driver.to_owned());
            } else if line != COLUMNS {
                let row = Expected::parse(line);
                all.rows.push(row.ok_or_else(|| format!("line {number}: expected {COLUMNS:?}"))?);
                all.lines.push(line.to_owned());
            }
        }
        Ok(all)
    }

    /// New file contents: rows of the families of `drivers` are replaced, but keep their reasons.
    pub fn renewed(&self, drivers: &[(String, String)], rows: &[Row]) -> String {
        let mut all = self.drivers.clone();
        all.extend(drivers.iter().cloned());
        let mut text = String::new();
        for (family, driver) in &all {
            let _ = writeln!(text, "# {family}: {driver}");
        }
        let _ = writeln!(text, "{COLUMNS}");
        let renewed = |family: &str| drivers.iter().any(|(known, _)| known == family);
        let mut lines: Vec<_> =
            rows.iter().map(|row| (row.family.clone(), self.line(row))).collect();
        let kept = self.rows.iter().zip(&self.lines).filter(|(row, _)| !renewed(&row.family));
        lines.extend(kept.map(|(row, line)| (row.family.clone(), line.clone())));
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, line) in lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn line(&self, Row { family, program, figures: f, refused }: &Row) -> String {
        let registers = if refused.is_some() { REFUSED.to_owned() } else { cell(f.registers) };
        let share = f.fma_share().map_or("-".to_owned(), |share| format!("{share:.1}"));
        let cells = [f.spills, f.fills, f.local, f.lds, f.width, f.waves, f.cycles].map(cell);
        let reason = self.of(family, program).map_or("", |known| known.reason.as_str());
        format!("{family}\t{program}\t{registers}\t{}\t{share}\t{reason}", cells.join("\t"))
    }

    fn of(&self, family: &str, program: &str) -> Option<&Expected> {
        self.rows.iter().find(|e| e.family == family && e.program == program)
    }

    /// True if the file's figures of a family come from the same driver release.  Another release
    /// allocates registers differently.
    fn strict(&self, family: &str, driver: &str) -> bool {
        self.drivers.get(family).is_some_and(|known| release(known) == release(driver))
    }

    /// Families whose figures come from another driver release.
    pub fn others<'a>(&'a self, drivers: &'a [(String, String)]) -> impl Iterator<Item = &'a str> {
        let other = move |(family, driver): &&(String, String)| !self.strict(family, driver);
        drivers.iter().filter(other).map(|(family, _)| family.as_str())
    }

    /// Regressions against the file, one message each.
    pub fn check(&self, drivers: &[(String, String)], rows: &[Row], filter: &str) -> Vec<String> {
        let mut worse = Vec::new();
        for row in rows {
            let place = format!("{} {}", row.family, row.program);
            let driver = drivers.iter().find(|(family, _)| *family == row.family);
            let strict = driver.is_some_and(|(family, driver)| self.strict(family, driver));
            match self.of(&row.family, &row.program) {
                Some(expected) => {
                    let found = expected.worse(row, strict);
                    worse.extend(found.into_iter().map(|what| format!("{place}: {what}")));
                }
                None => worse.push(format!("{place}: no line in the expectation file")),
            }
        }
        let ran = |e: &&Expected| drivers.iter().any(|(family, _)| *family == e.family);
        for expected in self.rows.iter().filter(ran).filter(|e| e.program.contains(filter)) {
            let Expected { family, program, .. } = expected;
            if !rows.iter().any(|row| row.family == *family && row.program == *program) {
                worse.push(format!("{family} {program}: expected, but there is no such program"));
            }
        }
        worse
    }
}
