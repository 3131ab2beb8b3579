//! `jinabert shaders`: shaders in the languages of the compilers.

use crate::{atomic_file::write_file, error::CliError, options::kernel_names};
use clap::ValueEnum;
use jinabert::{
    Error,
    gpu::{self, Language, NotWritten},
    programs,
    recording::{Const, Program},
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// `jinabert shaders`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert shaders kernels                                    every program, in WGSL
  jinabert shaders kernels --as hlsl --width 768 --head-width 64
  jinabert shaders --list --kernel attention                  list them as lines of JSON

Shaders are assembled as at run time and translated as by wgpu's backends: with bounds checks, all
loops bounded, workgroup memory not zeroed.  `programs.json` in DIR lists kernel, tier, constants
and entry point of each file, and the programs that the language cannot express.  No device is used.
JINABERT_SHADERS names a directory from which shaders are read instead.")]
pub struct Shaders {
    /// Output directory; created if it does not exist.
    #[arg(value_name = "DIR", required_unless_present = "list")]
    pub dir: Option<PathBuf>,
    /// Shading language of the files.
    #[arg(long = "as", value_name = "LANGUAGE", default_value = "wgsl")]
    pub language: ShadingLanguage,
    /// Only kernels of this tier.
    #[arg(long, value_name = "TIER")]
    pub tier: Option<ShaderTier>,
    /// Only this kernel; may be repeated.
    #[arg(long, value_name = "WORD", value_parser = kernel_names())]
    pub kernel: Vec<String>,
    /// Only this row width in elements, for kernels that are compiled for a width.
    #[arg(long, value_name = "N")]
    pub width: Option<u32>,
    /// Only this head width in elements, for kernels that are compiled for a head width.
    #[arg(long, value_name = "N")]
    pub head_width: Option<u32>,
    /// Print the list of programs as lines of JSON instead of writing files.
    #[arg(long, conflicts_with = "dir")]
    pub list: bool,
}

/// Shading language.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShadingLanguage {
    /// WGSL, for Tint and for human readers.
    Wgsl,
    /// SPIR-V 1.6, for Vulkan 1.3 drivers.
    Spirv,
    /// HLSL of shader model 5.1, for FXC, wgpu's default compiler on Direct3D 12.
    Hlsl,
    /// HLSL of shader model 6.6, for DXC.
    Hlsl6,
    /// Metal Shading Language 3.1.
    Msl,
    /// GLSL ES 3.10, for OpenGL.
    Glsl,
}

impl From<ShadingLanguage> for Language {
    fn from(language: ShadingLanguage) -> Self {
        match language {
            ShadingLanguage::Wgsl => Self::Wgsl,
            ShadingLanguage::Spirv => Self::Spirv(1, 6),
            ShadingLanguage::Hlsl => Self::Hlsl51,
            ShadingLanguage::Hlsl6 => Self::Hlsl66,
            ShadingLanguage::Msl => Self::Msl(3, 1),
            ShadingLanguage::Glsl => Self::Glsl,
        }
    }
}

/// Kernel tier.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShaderTier {
    /// The shortest correct versions.
    Naive,
    /// Tiles in workgroup memory and registers.
    Tiled,
    /// Matrices in textures, tiles in registers, no barriers.
    Texture,
    /// As texture, with loads shared by the lanes of a subgroup.
    Subgroup,
    /// Matrix units of GPUs; experimental.
    Matrix,
}

/// Writes or lists the programs.
pub fn run(args: &Shaders) -> Result<(), CliError> {
    let programs: Vec<_> = programs::all().into_iter().filter(|p| chosen(args, p)).collect();
    if programs.is_empty() {
        return Err(CliError::Usage(none(args)));
    }
    let Some(dir) = &args.dir else {
        let mut out = io::stdout().lock();
        for program in &programs {
            writeln!(out, "{}", row(program))?;
        }
        return Ok(out.flush()?);
    };
    fs::create_dir_all(dir).map_err(|source| CliError::Create { path: dir.clone(), source })?;
    let rows: Result<Vec<_>, _> =
        programs.iter().map(|program| write(dir, program, args.language.into())).collect();
    let list = serde_json::to_string_pretty(&rows?).expect("names and numbers") + "\n";
    write_file(&dir.join("programs.json"), &[list.as_bytes()])
}

/// Error for options that select no program.
fn none(args: &Shaders) -> String {
    let sizes = |constant| {
        let mut sizes: Vec<_> =
            programs::all().iter().filter_map(|p| programs::number(p, constant)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    };
    let or_any = |size: Option<u32>| size.map_or("any".to_owned(), |n| n.to_string());
    format!(
        "no such program: expected a width of {:?}, got {}; a head width of {:?}, got {}; and a tier \
         that has the kernel",
        sizes("D"),
        or_any(args.width),
        sizes("E"),
        or_any(args.head_width),
    )
}

/// True if the options select the program.
fn chosen(args: &Shaders, program: &Program) -> bool {
    let tier = args.tier.and_then(|tier| tier.to_possible_value());
    let tier_fits = tier.is_none_or(|tier| tier.get_name() == programs::tier(program));
    let kernel_fits =
        args.kernel.is_empty() || args.kernel.iter().any(|word| word == program.name());
    let sized = |asked: Option<u32>, constant| {
        asked.is_none_or(|n| programs::number(program, constant).is_none_or(|found| found == n))
    };
    tier_fits && kernel_fits && sized(args.width, "D") && sized(args.head_width, "E")
}

/// Writes a program's file, if the language has it; returns its row of the list.
fn write(dir: &Path, program: &Program, language: Language) -> Result<Value, CliError> {
    let mut row = row(program);
    match gpu::write(program, language) {
        Ok(written) => {
            let file = format!("{}.{}", programs::name(program), language.extension());
            write_file(&dir.join(&file), &[&written.bytes])?;
            row["file"] = file.into();
            row["entry"] = written.entry.into();
        }
        Err(NotWritten::Unsupported(missing)) => {
            row["left_out"] = NotWritten::Unsupported(missing).to_string().into();
        }
        Err(NotWritten::Fault(fault)) => {
            let what = format!("shaders/{}: {fault}", program.file);
            return Err(Error::Gpu(what).into());
        }
    }
    Ok(row)
}

/// Record of a program in the list.
fn row(program: &Program) -> Value {
    let value = |value: &Const| match *value {
        Const::U32(value) => json!(value),
        Const::Bool(value) => json!(value),
    };
    let constants: Map<_, _> =
        program.constants.iter().map(|(name, v)| ((*name).to_owned(), value(v))).collect();
    let imports: Map<_, _> =
        program.imports.iter().map(|(name, file)| ((*name).to_owned(), json!(file))).collect();
    json!({
        "name": programs::name(program),
        "kernel": program.name(),
        "tier": programs::tier(program),
        "dtype": if programs::half(program) { "f16" } else { "f32" },
        "shader": program.file,
        "constants": constants,
        "imports": imports,
    })
}
