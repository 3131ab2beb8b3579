//! Shader text in the drivers' languages, written by naga with the options of wgpu's backends, so
//! that compilers can be tested without a device.

use super::{ZERO_INITIALIZE_WORKGROUP_MEMORY, assemble::assemble};
use crate::recording::{Access, Binding, Program};
use naga::{
    Module, ResourceBinding, ShaderStage,
    back::{glsl, hlsl, msl, pipeline_constants::process_overrides, spv},
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{
        Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
    },
};
use std::collections::BTreeMap;

/// Input language of a driver's compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// WGSL, as passed to wgpu.
    Wgsl,
    /// SPIR-V of a version; 1.6 and later for drivers that check bounds themselves.
    Spirv(u8, u8),
    /// HLSL of shader model 5.1, for FXC.
    Hlsl51,
    /// HLSL of shader model 6.6, for DXC.
    Hlsl66,
    /// Metal Shading Language of a version.
    Msl(u8, u8),
    /// GLSL ES 3.10.
    Glsl,
}

impl Language {
    /// All languages, in each version that matters to devices.
    pub const ALL: [Self; 10] = [
        Self::Wgsl,
        Self::Spirv(1, 0),
        Self::Spirv(1, 3),
        Self::Spirv(1, 6),
        Self::Hlsl51,
        Self::Hlsl66,
        Self::Msl(2, 0),
        Self::Msl(2, 4),
        Self::Msl(3, 1),
        Self::Glsl,
    ];

    /// Usual file extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wgsl => "wgsl",
            Self::Spirv(..) => "spv",
            Self::Hlsl51 | Self::Hlsl66 => "hlsl",
            Self::Msl(..) => "metal",
            Self::Glsl => "comp",
        }
    }

    /// First feature of a program that the language lacks.
    fn lacks(self, text: &str) -> Option<&'static str> {
        let subgroups = match self {
            Self::Wgsl | Self::Hlsl66 => true,
            Self::Spirv(major, minor) => (major, minor) >= (1, 3),
            Self::Msl(major, minor) => (major, minor) >= (2, 1),
            Self::Hlsl51 | Self::Glsl => false,
        };
        let matrices: &[&str] = match self {
            Self::Wgsl => &["8x8", "16x16"],
            Self::Spirv(major, minor) if (major, minor) >= (1, 3) => &["8x8", "16x16"],
            Self::Msl(major, minor) if (major, minor) >= (2, 3) => &["8x8"],
            _ => &[],
        };
        let uses = |word: &str| {
            let mut code = text.lines().filter_map(|line| line.split("//").next());
            code.any(|code| code.contains(word))
        };
        let size = ["8x8", "16x16"].iter().find(|size| uses(&format!("coop_mat{size}")));
        match size {
            Some(size) if !matrices.contains(size) => Some("matrices of that size"),
            _ if uses("subgroup") && !subgroups => Some("subgroups"),
            _ => None,
        }
    }
}

/// A program in a target language.
#[derive(Debug)]
pub struct Written {
    /// Text, or SPIR-V words in little-endian order.
    pub bytes: Vec<u8>,
    /// Name of the entry point; some languages change it.
    pub entry: String,
}

/// Reason why a program cannot be written in a language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// The language lacks a feature that the program uses.
    #[error("the language has no {0}")]
    Unsupported(&'static str),
    /// The assembler or naga rejects it, which is a bug in the program.
    #[error("{0}")]
    Fault(String),
}

/// Writes a program in a language, as wgpu's backend for the language does.
///
/// # Errors
/// See [`NotWritten`].
pub fn write(program: &Program, language: Language) -> Result<Written, NotWritten> {
    let text = assemble(program).map_err(NotWritten::Fault)?.text;
    if let Some(missing) = language.lacks(&text) {
        return Err(NotWritten::Unsupported(missing));
    }
    let entry = program.name().to_owned();
    if language == Language::Wgsl {
        return Ok(Written { bytes: text.into_bytes(), entry });
    }
    parsed(program, &text, language).map_err(NotWritten::Fault)
}

fn parsed(program: &Program, text: &str, language: Language) -> Result<Written, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.subgroup_stages(ShaderStages::COMPUTE);
    validator.subgroup_operations(SubgroupOperationSet::all());
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
    let entry = Some((ShaderStage::Compute, program.name()));
    let constants = Default::default();
    let processed = process_overrides(&module, &info, entry, &constants);
    let (module, info) = processed.map_err(|e| e.to_string())?;
    let named = |bytes: Vec<u8>| Written { bytes, entry: program.name().to_owned() };
    match language {
        Language::Wgsl => Ok(named(text.as_bytes().to_vec())),
        Language::Spirv(major, minor) => spirv(program, &module, &info, (major, minor)).map(named),
        Language::Hlsl51 => hlsl(program, &module, &info, hlsl::ShaderModel::V5_1),
        Language::Hlsl66 => hlsl(program, &module, &info, hlsl::ShaderModel::V6_6),
        Language::Msl(major, minor) => msl(program, &module, &info, (major, minor)),
        Language::Glsl => {
            glsl(program, &module, &info).map(|bytes| Written { bytes, entry: "main".to_owned() })
        }
    }
}

/// Writes as `wgpu_hal::vulkan`: a Vulkan 1.3 driver checks buffers and textures
/// (`robustBufferAccess2`, `robustImageAccess`), arrays are clamped, and every loop is bounded.
fn spirv(
    program: &Program,
    module: &Module,
    info: &ModuleInfo,
    lang_version: (u8, u8),
) -> Result<Vec<u8>, String> {
    let checked = if lang_version >= (1, 6) {
        BoundsCheckPolicy::Unchecked
    } else {
        BoundsCheckPolicy::Restrict
    };
    let zeroed = if !ZERO_INITIALIZE_WORKGROUP_MEMORY {
        spv::ZeroInitializeWorkgroupMemoryMode::None
    } else if lang_version >= (1, 6) {
        spv::ZeroInitializeWorkgroupMemoryMode::Native
    } else {
        spv::ZeroInitializeWorkgroupMemoryMode::Polyfill
    };
    let options = spv::Options {
        lang_version,
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: checked,
            image_load: checked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: zeroed,
        force_loop_bounding: true,
        emit_int_div_checks: true,
        ..Default::default()
    };
    let entry = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: program.name().to_owned(),
    };
    let words = spv::write_vec(module, info, &options, Some(&entry)).map_err(|e| e.to_string())?;
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// Writes as `wgpu_hal::dx12`; its root signature has reads, writes, and `params`.
fn hlsl(
    program: &Program,
    module: &Module,
    info: &ModuleInfo,
    shader_model: hlsl::ShaderModel,
) -> Result<Written, String> {
    let mut read = 0;
    let mut written = 0;
    let mut binding_map = BTreeMap::new();
    for (place, binding) in places(program) {
        let register = match binding {
            None => 0,
            Some(Binding { access: Access::Read, .. }) => next(&mut read),
            Some(Binding { access: Access::Write, .. }) => next(&mut written),
        };
        let restrict_indexing = binding.is_none();
        let target = hlsl::BindTarget { register, restrict_indexing, ..Default::default() };
        binding_map.insert(place, target);
    }
    let special = hlsl::BindTarget { register: 1, ..Default::default() };
    let options = hlsl::Options {
        shader_model,
        binding_map,
        fake_missing_bindings: false,
        special_constants_binding: Some(special),
        zero_initialize_workgroup_memory: ZERO_INITIALIZE_WORKGROUP_MEMORY,
        restrict_indexing: true,
        force_loop_bounding: true,
        ..Default::default()
    };
    let entry_point = Some((ShaderStage::Compute, program.name().to_owned()));
    let pipeline = hlsl::PipelineOptions { entry_point };
    let mut text = String::new();
    let made = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    let names = made.map_err(|e| e.to_string())?.entry_point_names;
    Ok(Written { bytes: text.into_bytes(), entry: only(names)? })
}

/// Writes as `wgpu_hal::metal`, which passes the sizes of buffers after the buffers.
fn msl(
    program: &Program,
    module: &Module,
    info: &ModuleInfo,
    lang_version: (u8, u8),
) -> Result<Written, String> {
    let mut buffers = 0;
    let mut textures = 0;
    let mut resources = msl::BindingMap::default();
    for (place, binding) in places(program) {
        let mut target = msl::BindTarget::default();
        if binding.is_some_and(|binding| binding.format.texture()) {
            target.texture = Some(next(&mut textures) as u8);
        } else {
            target.buffer = Some(next(&mut buffers) as u8);
        }
        target.mutable = binding.is_some_and(|binding| binding.access == Access::Write);
        resources.insert(place, target);
    }
    let sizes_buffer = Some(next(&mut buffers) as u8);
    let here = msl::EntryPointResources { resources, immediates_buffer: None, sizes_buffer };
    let checked = BoundsCheckPolicy::Restrict;
    let options = msl::Options {
        lang_version,
        per_entry_point_map: [(program.name().to_owned(), here)].into(),
        spirv_cross_compatibility: false,
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: checked,
            buffer: checked,
            image_load: checked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: ZERO_INITIALIZE_WORKGROUP_MEMORY,
        force_loop_bounding: true,
        emit_int_div_checks: true,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, program.name().to_owned())),
        vertex_pulling_transform: true,
        ..Default::default()
    };
    let written = msl::write_string(module, info, &options, &pipeline);
    let (text, translation) = written.map_err(|e| e.to_string())?;
    Ok(Written { bytes: text.into_bytes(), entry: only(translation.entry_point_names)? })
}

/// Writes as `wgpu_hal::gles` on OpenGL ES 3.1.
fn glsl(program: &Program, module: &Module, info: &ModuleInfo) -> Result<Vec<u8>, String> {
    let [mut uniforms, mut buffers, mut textures, mut images] = [0_u32; 4];
    let mut binding_map = BTreeMap::new();
    for (place, binding) in places(program) {
        let counter = match binding {
            None => &mut uniforms,
            Some(Binding { format, .. }) if !format.texture() => &mut buffers,
            Some(Binding { access: Access::Read, .. }) => &mut textures,
            Some(Binding { access: Access::Write, .. }) => &mut images,
        };
        binding_map.insert(place, next(counter) as u8);
    }
    let options = glsl::Options {
        version: glsl::Version::Embedded { version: 310, is_webgl: false },
        writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE
            | glsl::WriterFlags::FORCE_POINT_SIZE,
        binding_map,
        zero_initialize_workgroup_memory: ZERO_INITIALIZE_WORKGROUP_MEMORY,
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: program.name().to_owned(),
        multiview: None,
    };
    let unchecked = BoundsCheckPolicy::Unchecked;
    let policies = BoundsCheckPolicies {
        index: unchecked,
        buffer: unchecked,
        image_load: unchecked,
        binding_array: unchecked,
    };
    let mut text = String::new();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write().map(drop))
        .map_err(|e| e.to_string())?;
    Ok(text.into_bytes())
}

/// Bindings of a program: first `params`, which is not in [`Program::bindings`].
fn places(program: &Program) -> impl Iterator<Item = (ResourceBinding, Option<Binding>)> {
    let all = std::iter::once(None).chain(program.bindings.iter().copied().map(Some));
    (0..).zip(all).map(|(binding, found)| (ResourceBinding { group: 0, binding }, found))
}

/// Returns a counter's value and increments the counter.
fn next(counter: &mut u32) -> u32 {
    *counter += 1;
    *counter - 1
}

/// Name of the only entry point.
fn only<E: ToString>(names: Vec<Result<String, E>>) -> Result<String, String> {
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (Some(name), None) => name.map_err(|e| e.to_string()),
        _ => Err("expected one entry point".to_owned()),
    }
}
