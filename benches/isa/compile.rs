//! From the programs of every kernel to what the driver makes of them.

use crate::{
    assembly,
    report::{Figures, Row},
    vulkan::{Compiler, Shader},
};
use ash::vk;
use jinabert::{gpu, kernels, recording::Program};
use naga::{
    AddressSpace, ImageClass, Module, ShaderStage, TypeInner,
    back::spv,
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ValidationFlags, Validator},
};

/// Constants that differ between programs by the model's size alone, and their values for the base
/// size; other sizes are left out.
const BASE: &[(&str, &str)] = &[("D", "768u"), ("E", "64u"), ("F", "3072u")];

/// Subgroups of software drivers, whose tiles are made for caches and not for registers.
const SOFTWARE_LANES: [&str; 2] = ["4u", "8u"];

/// Programs of the base size that a device can compile, by name.
pub fn programs(compiler: &Compiler, filter: &str) -> Vec<(String, Program)> {
    let all = kernels::ALL.iter().flat_map(|interface| (interface.programs)());
    let software = |program: &Program| {
        let mut lanes = program.constants.iter().filter(|(name, _)| *name == "S");
        lanes.any(|(_, value)| SOFTWARE_LANES.contains(&value.to_string().as_str()))
    };
    let runs = |program: &Program| {
        let mut sizes = program.constants.iter().filter(|(name, _)| *name == "M");
        let known = |size| compiler.matrices.iter().any(|m| format!("{m}u") == size);
        sizes.all(|(_, value)| known(value.to_string()))
    };
    let all = all.filter(|program| !software(program) && runs(program));
    let base = all.filter(|program| {
        program.constants.iter().all(|(name, value)| {
            let value = value.to_string();
            BASE.iter().all(|(known, base)| known != name || *base == value)
        })
    });
    let named = base.map(|program| (name(&program), program));
    named.filter(|(name, _)| name.contains(filter)).collect()
}

/// The imports that go without saying.
const USUAL: [&str; 2] = ["elem_f32", "identity"];

/// `linear.wgsl BM=64 BN=64 BK=16`, and the imports that are not the usual ones.
fn name(program: &Program) -> String {
    let mut name = program.file.to_owned();
    for (constant, value) in &program.constants {
        name += &format!(" {constant}={}", value.to_string().trim_end_matches('u'));
    }
    for (generic, import) in program.imports.iter().filter(|(_, import)| !USUAL.contains(import)) {
        name += &match *import {
            "elem_f16" => format!(" {generic}:f16"),
            import => format!(" {import}"),
        };
    }
    name
}

/// Compiles a program; returns its row of the table, and its disassembly.
pub fn compile(compiler: &Compiler, program: &Program) -> Result<(Figures, String), String> {
    let text = gpu::assemble(program)?.text;
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    let shader = Shader {
        spirv: &spirv(&module, &text, program.word)?,
        entry: program.word,
        bindings: &bindings(&module)?,
        subgroups: text.contains("subgroup"),
    };
    let made = compiler.compile(&shader)?;
    let mix = assembly::mix(&made.assembly);
    if mix.valu == 0 {
        return Err("no disassembly: this driver was built without a disassembler".to_owned());
    }
    let figures = Figures {
        vgprs: made.statistic("VGPRs")?,
        sgprs: made.statistic("SGPRs")?,
        vgpr_spills: made.statistic("Spilled VGPRs")?,
        sgpr_spills: made.statistic("Spilled SGPRs")?,
        scratch: made.statistic("Scratch size")?,
        lds: made.statistic("LDS size")?,
        waves: made.statistic("Subgroups per SIMD")?,
        bytes: made.statistic("Code size")?,
        instructions: made.statistic("Instructions")?,
        latency: made.statistic("Latency")?,
        inverse_throughput: made.statistic("Inverse Throughput")?,
        loop_fmas: mix.fmas,
        loop_valu: mix.valu,
        lds_wide: mix.lds[0],
        lds_narrow: mix.lds[1],
        memory_wide: mix.memory[0],
        memory_narrow: mix.memory[1],
    };
    Ok((figures, made.assembly))
}

/// All rows of one family.
pub fn rows(compiler: &Compiler, family: &str, filter: &str) -> Result<Vec<Row>, String> {
    let rows = programs(compiler, filter).into_iter().map(|(name, program)| {
        let (figures, _) = compile(compiler, &program).map_err(|e| format!("{name}: {e}"))?;
        Ok(Row { family: family.to_owned(), program: name, figures })
    });
    rows.collect()
}

/// As wgpu 30 writes it for RADV: buffers and textures are checked by the device
/// (`robustBufferAccess2`, `robustImageAccess`), arrays by clamps, and every loop is bounded.
fn spirv(module: &Module, text: &str, entry: &str) -> Result<Vec<u32>, String> {
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(module).map_err(|e| e.emit_to_string(text))?;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::Native,
        force_loop_bounding: true,
        emit_int_div_checks: true,
        ..Default::default()
    };
    let entry =
        spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
    spv::write_vec(module, &info, &options, Some(&entry)).map_err(|e| e.to_string())
}

/// The module's bindings as descriptors, uniforms with dynamic offsets.
fn bindings(module: &Module) -> Result<Vec<(u32, vk::DescriptorType)>, String> {
    let variables = module.global_variables.iter().map(|(_, variable)| variable);
    let bound = variables.filter_map(|variable| Some((variable.binding?, variable)));
    let bindings = bound.map(|(at, variable)| {
        let kind = match (variable.space, &module.types[variable.ty].inner) {
            (AddressSpace::Uniform, _) => vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC,
            (AddressSpace::Storage { .. }, _) => vk::DescriptorType::STORAGE_BUFFER,
            (_, TypeInner::Image { class: ImageClass::Storage { .. }, .. }) => {
                vk::DescriptorType::STORAGE_IMAGE
            }
            (_, TypeInner::Image { .. }) => vk::DescriptorType::SAMPLED_IMAGE,
            (_, TypeInner::Sampler { .. }) => vk::DescriptorType::SAMPLER,
            (space, inner) => return Err(format!("binding {at:?}: {inner:?} in {space:?}")),
        };
        match at.group {
            0 => Ok((at.binding, kind)),
            group => Err(format!("binding in group {group}")),
        }
    });
    bindings.collect()
}
