//! Registers, spills, occupancy and instruction mix of every kernel, on chips that need not be
//! present: Mesa's Vulkan drivers compile for a chip selected by name.
//!
//! `cargo bench --bench isa` prints a table; an argument selects programs by name, `--family NAME`
//! one chip.  `--check` compares with `benches/isa/expected.tsv` and fails if a program got worse,
//! spills, is refused, or takes long to compile, without a reason given there; `--write` rewrites
//! that file; `--asm` prints disassemblies.

mod assembly;
mod compile;
mod drivers;
mod report;
mod vulkan;

use drivers::{FAMILIES, Family};
use jinabert::programs;
use report::{Expectations, Row};
use std::{env, path::Path, process::ExitCode};

/// Environment variable of a compiling process: its chip family.
const FAMILY: &str = "JINABERT_ISA_FAMILY";

/// Path relative to the manifest.
const EXPECTED: &str = "benches/isa/expected.tsv";

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Table,
    Check,
    Write,
    Assembly,
}

struct Arguments {
    mode: Mode,
    filter: String,
    /// Selected families; all, if empty.
    families: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|arguments| match env::var(FAMILY) {
        Ok(family) => compile_for(&family, &arguments),
        Err(_) => run(&arguments),
    });
    outcome.unwrap_or_else(|message| {
        eprintln!("isa: {message}");
        ExitCode::FAILURE
    })
}

fn arguments() -> Result<Arguments, String> {
    let mut mode = Mode::Table;
    let mut filter = String::new();
    let mut families = Vec::new();
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {} // from `cargo bench`
            "--check" => mode = Mode::Check,
            "--write" => mode = Mode::Write,
            "--asm" => mode = Mode::Assembly,
            "--family" => {
                let name = words.next().unwrap_or_default();
                if !FAMILIES.iter().any(|family| family.name == name) {
                    let known: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
                    return Err(format!("--family: expected one of {known:?}, got `{name}`"));
                }
                families.push(name);
            }
            flag if flag.starts_with('-') => return Err(format!("unknown option `{flag}`")),
            _ => filter = word,
        }
    }
    match mode {
        Mode::Write if !filter.is_empty() => Err("--write writes every program".to_owned()),
        _ => Ok(Arguments { mode, filter, families }),
    }
}

// ---- Parent process, which starts one process for each family ----

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let required = env::var("JINABERT_REQUIRE").unwrap_or_default();
    let mut drivers = Vec::new();
    let mut all = Vec::new();
    let asked = |family: &&Family| {
        arguments.families.is_empty() || arguments.families.iter().any(|f| f == family.name)
    };
    for family in FAMILIES.iter().filter(asked) {
        if let Err(missing) = family.kind.command() {
            let driver = family.kind.name();
            if required.split(',').any(|name| name == driver) {
                return Err(format!("{missing}, and JINABERT_REQUIRE names {driver}"));
            }
            println!("isa: NOT RUN: {}: {missing}", family.name);
            continue;
        }
        let output = family.kind.spawn(family, FAMILY)?;
        if arguments.mode == Mode::Assembly {
            print!("{output}");
            continue;
        }
        let (first, rest) = output.split_once('\n').ok_or("a family without a driver")?;
        let (device, version) = first.rsplit_once(", ").ok_or("a driver without a version")?;
        drivers.push((family.name.to_owned(), version.to_owned()));
        let rows: Option<Vec<Row>> = rest.lines().map(Row::parse).collect();
        let rows = rows.ok_or("a row that is none")?;
        println!("{}: {device}, {version}\n{}", family.name, report::table(&rows));
        all.extend(rows);
    }
    if all.is_empty() && !drivers.is_empty() {
        return Err(format!("no program has `{}` in its name", arguments.filter));
    }
    finish(arguments, &drivers, &all)
}

/// Compares with the expectation file, rewrites it, or does neither.
fn finish(
    arguments: &Arguments,
    drivers: &[(String, String)],
    rows: &[Row],
) -> Result<ExitCode, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXPECTED);
    let read = || std::fs::read_to_string(&path).map_err(|e| format!("{EXPECTED}: {e}"));
    match arguments.mode {
        Mode::Write => {
            let known = Expectations::parse(&read().unwrap_or_default()).unwrap_or_default();
            let text = known.renewed(drivers, rows);
            std::fs::write(&path, text).map_err(|e| format!("{EXPECTED}: {e}"))?;
            println!("{EXPECTED}: written");
        }
        Mode::Check if !drivers.is_empty() => {
            let known = Expectations::parse(&read()?).map_err(|e| format!("{EXPECTED}: {e}"))?;
            for family in known.others(drivers) {
                println!("isa: {EXPECTED} has {family} of another driver: spills and width only");
            }
            let worse = known.check(drivers, rows, &arguments.filter);
            if !worse.is_empty() {
                let count = worse.len();
                return Err(format!("{count} worse than {EXPECTED}:\n  {}", worse.join("\n  ")));
            }
            println!("isa: {} programs are no worse than {EXPECTED}", rows.len());
        }
        Mode::Check | Mode::Table | Mode::Assembly => {}
    }
    Ok(ExitCode::SUCCESS)
}

// ---- Process of one family ----

fn compile_for(family: &str, arguments: &Arguments) -> Result<ExitCode, String> {
    let compiler = vulkan::Compiler::open()?;
    let known = FAMILIES.iter().find(|known| known.name == family);
    let kind = known.ok_or_else(|| format!("{FAMILY}: unknown family `{family}`"))?.kind;
    if arguments.mode == Mode::Assembly {
        for program in compile::chosen(&compiler, &arguments.filter) {
            let name = programs::name(&program);
            let (_, assembly) = compile::compile(&compiler, kind, &program)?;
            println!("== {family} {name}\n{assembly}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", compiler.driver);
    for row in compile::rows(&compiler, kind, family, &arguments.filter) {
        println!("{}", row.line());
    }
    Ok(ExitCode::SUCCESS)
}
