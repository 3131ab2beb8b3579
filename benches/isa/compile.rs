//! Compilation of every kernel's programs, and statistics from the driver.

use crate::{
    assembly,
    drivers::{self, Kind},
    report::{Figures, Row},
    vulkan::{Compiled, Compiler, Shader},
};
use ash::vk;
use jinabert::{
    gpu::{self, Language},
    programs,
    recording::{Access, Binding, Program},
};
use std::fs;

/// Constants that differ between programs only by the model's size, with their values for the base
/// size; programs of other sizes are skipped.
const BASE: &[(&str, u32)] = &[("D", 768), ("E", 64)];

/// Subgroup sizes of software drivers, whose tiles are sized for caches and not for registers.
const SOFTWARE_LANES: [u32; 2] = [4, 8];

/// Programs of the base size that the device can compile.
pub fn chosen(compiler: &Compiler, filter: &str) -> Vec<Program> {
    let software = |program: &Program| {
        programs::number(program, "S").is_some_and(|lanes| SOFTWARE_LANES.contains(&lanes))
    };
    let runs = |program: &Program| {
        programs::number(program, "M").is_none_or(|size| compiler.matrices.contains(&size))
    };
    let base = |program: &Program| {
        BASE.iter().all(|&(constant, value)| {
            programs::number(program, constant).is_none_or(|found| found == value)
        })
    };
    let mut all = programs::all();
    all.retain(|program| !software(program) && runs(program) && base(program));
    all.retain(|program| programs::name(program).contains(filter));
    all
}

/// Compiles a program; returns its figures, and its disassembly if there is one.
pub fn compile(
    compiler: &Compiler,
    kind: Kind,
    program: &Program,
) -> Result<(Figures, String), String> {
    // As in wgpu: the shader checks the bounds that the driver does not.
    let language = if compiler.robust { Language::Spirv(1, 6) } else { Language::Spirv(1, 3) };
    let written = gpu::write(program, language).map_err(|e| e.to_string())?;
    let words: Vec<u32> = written
        .bytes
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let start = processor_time()?;
    let shader = Shader { spirv: &words, entry: &written.entry, bindings: &bindings(program) };
    let log = drivers::said_until_now(kind)?;
    let made = compiler.compile(&shader)?;
    let hundredths = processor_time()? - start;
    let mut figures = figures(kind, &made, log)?;
    figures.hundredths = Some(hundredths);
    Ok((figures, made.assembly.unwrap_or_default()))
}

/// Parses cycles, threads, spills and fills from a line such as `SHADER-DB: … shader: 419 inst,
/// 26.0 cycles, …, 2 threads, 1 loops, 0:0 spills:fills`.
fn shader_db(said: &str) -> Result<[u32; 4], String> {
    let line = said.lines().rev().find(|line| line.starts_with("SHADER-DB:"));
    let line = line.ok_or_else(|| format!("the driver says nothing of its shader: {said}"))?;
    let value = |unit: &str| -> Option<&str> {
        line.split([',', ':']).map(str::trim).find_map(|part| part.strip_suffix(unit))
    };
    let whole = |unit| value(unit)?.trim().parse::<f64>().ok().map(|n| n as u32);
    let spilled = || {
        let (_, last) = line.rsplit_once(", ")?;
        let (spills, fills) = last.strip_suffix(" spills:fills")?.split_once(':')?;
        Some((spills.parse().ok()?, fills.parse().ok()?))
    };
    let all = || {
        let (spills, fills) = spilled()?;
        Some([whole(" cycles")?, whole(" threads")?, spills, fills])
    };
    all().ok_or_else(|| format!("expected cycles, threads and spills:fills, got `{line}`"))
}

/// Figures of a pipeline from the driver's statistics, whose names differ between drivers.
fn figures(kind: Kind, made: &Compiled, log: u64) -> Result<Figures, String> {
    let count = |name: &str| made.statistic(name).map(Some);
    Ok(match kind {
        Kind::Radv => {
            let assembly = made.assembly.as_deref().unwrap_or_default();
            let mix = assembly::mix(assembly);
            if !assembly.contains("s_endpgm") {
                let why = "no disassembly: this driver was built without a disassembler";
                return Err(why.to_owned());
            }
            if mix.valu == 0 {
                return Err("the compiled program computes nothing".to_owned());
            }
            let spills = made.statistic("Spilled VGPRs")? + made.statistic("Spilled SGPRs")?;
            Figures {
                registers: count("VGPRs")?,
                spills: Some(spills),
                local: count("Scratch size")?,
                lds: count("LDS size")?,
                width: Some(made.subgroup),
                waves: count("Subgroups per SIMD")?,
                bytes: count("Code size")?,
                instructions: count("Instructions")?,
                cycles: count("Latency")?,
                loop_fmas: Some(mix.fmas),
                loop_valu: Some(mix.valu),
                lds_wide: Some(mix.lds[0]),
                lds_narrow: Some(mix.lds[1]),
                memory_wide: Some(mix.memory[0]),
                memory_narrow: Some(mix.memory[1]),
                ..Figures::default()
            }
        }
        Kind::Anv => Figures {
            registers: count("Max live registers")?,
            spills: count("Spill Count")?,
            fills: count("Fill Count")?,
            local: count("Scratch Memory Size")?,
            lds: count("Workgroup Memory Size")?,
            width: count("Max dispatch width")?,
            instructions: count("Instruction Count")?,
            cycles: count("Cycle Count")?,
            ..Figures::default()
        },
        Kind::Nvk => Figures {
            registers: count("Number of GPRs")?,
            // Local memory in bytes, for both spills and indexed arrays.
            local: count("SLM Size")?,
            spills: count("SLM Size")?,
            bytes: count("Code Size")?,
            instructions: count("Instruction count")?,
            ..Figures::default()
        },
        Kind::Turnip => Figures {
            registers: count("Registers used")?,
            spills: count("STP Count")?,
            fills: count("LDP Count")?,
            waves: count("Max Waves Per Core")?,
            instructions: count("Instruction Count")?,
            ..Figures::default()
        },
        Kind::Panvk => {
            let [cycles, threads, spills, fills] = shader_db(&drivers::said(log)?)?;
            Figures {
                spills: Some(spills),
                fills: Some(fills),
                waves: Some(threads),
                bytes: count("Code Size")?,
                cycles: Some(cycles),
                ..Figures::default()
            }
        }
    })
}

/// Rows of one family.
pub fn rows(compiler: &Compiler, kind: Kind, family: &str, filter: &str) -> Vec<Row> {
    let row = |program: Program| {
        let (figures, refused) = match compile(compiler, kind, &program) {
            Ok((figures, _)) => (figures, None),
            Err(why) => (Figures::default(), Some(why.replace(['\n', '\t'], " "))),
        };
        Row { family: family.to_owned(), program: programs::name(&program), figures, refused }
    };
    chosen(compiler, filter).into_iter().map(row).collect()
}

/// CPU time of this process in hundredths of a second, from Linux.
fn processor_time() -> Result<u32, String> {
    let stat =
        fs::read_to_string("/proc/self/stat").map_err(|e| format!("/proc/self/stat: {e}"))?;
    // The name may contain anything; after it come the state and, later, user and system time.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let times: Option<Vec<u32>> = fields.skip(11).take(2).map(|n| n.parse().ok()).collect();
    times.map(|times| times.iter().sum()).ok_or_else(|| "/proc/self/stat: no times".to_owned())
}

/// Descriptors of the program's bindings; `params` has a dynamic offset.
fn bindings(program: &Program) -> Vec<(u32, vk::DescriptorType)> {
    let kind = |binding: &Binding| match (binding.format.texture(), binding.access) {
        (false, _) => vk::DescriptorType::STORAGE_BUFFER,
        (true, Access::Read) => vk::DescriptorType::SAMPLED_IMAGE,
        (true, Access::Write) => vk::DescriptorType::STORAGE_IMAGE,
    };
    let params = std::iter::once(vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC);
    (0..).zip(params.chain(program.bindings.iter().map(kind))).collect()
}
