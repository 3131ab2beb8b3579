//! Registers, spills, occupancy and instruction mix of every kernel on AMD chips that need not be
//! there: RADV, Mesa's Vulkan driver, compiles for a chip that it is told of.
//!
//! `cargo bench --bench isa` prints a table; an argument picks programs by name.  `--check`
//! compares with `benches/isa/expected.tsv` and fails where a program got worse; `--write`
//! rewrites that file; `--asm` prints disassemblies.

mod assembly;
mod compile;
mod report;
mod vulkan;

use report::Row;
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Chips compiled for, RDNA 2 and RDNA 3, each by the names that releases of Mesa have for it.
const FAMILIES: &[&[&str]] = &[&["navi21"], &["gfx1100", "navi31"]];

/// Where distributions keep the list of drivers.
const DRIVERS: &[&str] = &["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// In a process that compiles: the family that it compiles for.
const FAMILY: &str = "JINABERT_ISA_FAMILY";

/// Relative to the manifest.
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
    let mut parsed = Arguments { mode: Mode::Table, filter: String::new() };
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--bench" => {} // from `cargo bench`
            "--check" => parsed.mode = Mode::Check,
            "--write" => parsed.mode = Mode::Write,
            "--asm" => parsed.mode = Mode::Assembly,
            flag if flag.starts_with('-') => return Err(format!("unknown option `{flag}`")),
            filter => parsed.filter = filter.to_owned(),
        }
    }
    match parsed.mode {
        Mode::Write if !parsed.filter.is_empty() => Err("--write writes every program".to_owned()),
        _ => Ok(parsed),
    }
}

// ---- The process that is started, which starts one process for each family ----

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let Some(icd) = icd() else {
        let required = env::var("JINABERT_REQUIRE").unwrap_or_default();
        let why = format!("no RADV (Mesa's driver for AMD, radeon_icd.*.json) in {DRIVERS:?}");
        if required.split(',').any(|name| name == "radv") {
            return Err(format!("{why}, and JINABERT_REQUIRE names it"));
        }
        println!("isa: not run: {why}");
        return Ok(ExitCode::SUCCESS);
    };
    let (mut driver, mut all) = (String::new(), Vec::new());
    for names in FAMILIES {
        let output = spawn(names, &icd)?;
        if arguments.mode == Mode::Assembly {
            print!("{output}");
            continue;
        }
        let (first, rest) = output.split_once('\n').ok_or("a family without a driver")?;
        let (device, version) = first.rsplit_once(", ").ok_or("a driver without a version")?;
        version.clone_into(&mut driver);
        let rows: Option<Vec<Row>> = rest.lines().map(Row::parse).collect();
        let rows = rows.ok_or("a row that is none")?;
        println!("{device}, {version}\n{}", report::table(&rows));
        all.extend(rows);
    }
    if all.is_empty() && arguments.mode != Mode::Assembly {
        return Err(format!("no program has `{}` in its name", arguments.filter));
    }
    finish(arguments, &driver, &all)
}

/// Compares, writes, or does neither.
fn finish(arguments: &Arguments, driver: &str, rows: &[Row]) -> Result<ExitCode, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXPECTED);
    match arguments.mode {
        Mode::Write => {
            let text = report::expectation(driver, rows);
            std::fs::write(&path, text).map_err(|e| format!("{EXPECTED}: {e}"))?;
            println!("isa: {} lines written to {EXPECTED}", rows.len());
        }
        Mode::Check => {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{EXPECTED}: {e}"))?;
            let (worse, strict) = report::check(&text, driver, rows, &arguments.filter);
            if !strict {
                println!("isa: {EXPECTED} is of another driver than {driver}: spills only");
            }
            if !worse.is_empty() {
                let count = worse.len();
                return Err(format!("{count} worse than {EXPECTED}:\n  {}", worse.join("\n  ")));
            }
            println!("isa: {} programs are no worse than {EXPECTED}", rows.len());
        }
        Mode::Table | Mode::Assembly => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// RADV's entry in the loader's list of drivers.
fn icd() -> Option<PathBuf> {
    let names = [format!("radeon_icd.{}.json", env::consts::ARCH), "radeon_icd.json".to_owned()];
    let places = DRIVERS.iter().flat_map(|dir| names.iter().map(move |name| (dir, name)));
    places.map(|(dir, name)| Path::new(dir).join(name)).find(|path| path.exists())
}

/// What this program prints when it compiles for a family.  The driver reads its name once, from
/// the environment.
fn spawn(names: &[&str], icd: &Path) -> Result<String, String> {
    let mut said = String::new();
    for name in names {
        let mut command = Command::new(env::current_exe().map_err(|e| e.to_string())?);
        command
            .args(env::args().skip(1))
            .env(FAMILY, names[0])
            .env("RADV_FORCE_FAMILY", name)
            .env("VK_DRIVER_FILES", icd)
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .env("NODEVICE_SELECT", "1"); // Mesa's layer that sorts devices, and writes to stderr
        let output = command.output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(|e| e.to_string());
        }
        said += &format!("\n{name}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Err(format!("cannot compile for {names:?}{said}"))
}

// ---- The process of one family ----

fn compile_for(family: &str, arguments: &Arguments) -> Result<ExitCode, String> {
    let compiler = vulkan::Compiler::open()?;
    if arguments.mode == Mode::Assembly {
        for (name, program) in compile::programs(&compiler, &arguments.filter) {
            let (_, assembly) = compile::compile(&compiler, &program)?;
            println!("== {family} {name}\n{assembly}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", compiler.driver);
    for row in compile::rows(&compiler, family, &arguments.filter)? {
        println!("{}", row.line());
    }
    Ok(ExitCode::SUCCESS)
}
