//! Every kernel against its host file, by reflection on the assembled WGSL; needs no GPU.
//!
//! Each program must be core WGSL that the SPIR-V, MSL, HLSL and GLSL writers accept, and its entry
//! point, `Params`, bindings, constants, workgroup size and workgroup memory must match the host
//! file.  Each shader file must have the common header, and keep to the common subset.

use jinabert::{
    gpu::{self, Language, NotWritten},
    kernel_check::roof,
    kernels::{self, Interface},
    recording::{Access, Binding, Const, Program},
};
use naga::{
    AddressSpace, Expression, Handle, ImageClass, Literal, Module, ShaderStage, StorageAccess,
    StorageFormat, Type, TypeInner,
    valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator},
};
use std::{collections::BTreeSet, path::Path};

mod broken;
mod expectations;
mod files;

/// WebGPU's default limit is 256 invocations and 16 KiB per workgroup, 8 storage buffers per stage.
const MAX_WORKGROUP: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_STORAGE_BUFFERS: usize = 8;
/// The limit that `gpu::open` requests.
const MAX_STORAGE_TEXTURES: usize = 1;

/// Line before the constants that the host sets.
const SPEC: &str = "// Spec:";

type Check = Result<(), String>;

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(message()) }
}

// ---- Programs ----

/// Runs all checks of one program; `text` is its assembled WGSL.
fn check(interface: &Interface, program: &Program, text: &str) -> Check {
    let module = parse(text)?;
    check_entry(interface, program, &module)?;
    check_params(interface, program, &module)?;
    check_bindings(interface, program, &module)?;
    check_workgroup(program, &module)?;
    check_memory(&module)?;
    check_spec(program)
}

/// Parses and validates WGSL; only core features are allowed.
fn parse(text: &str) -> Result<Module, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(text));
    validator.subgroup_stages(ShaderStages::COMPUTE);
    validator.subgroup_operations(SubgroupOperationSet::all());
    validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
    let overrides: Vec<_> = module.overrides.iter().map(|(_, found)| &found.name).collect();
    ensure(overrides.is_empty(), || format!("expected constants, got overrides {overrides:?}"))?;
    Ok(module)
}

/// Capabilities for subgroups, packed f16 and f16 matrices, if the text uses them; the host runs
/// such a program only on devices that support them.
fn capabilities(text: &str) -> Capabilities {
    let half = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let matrix = Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX;
    let used =
        [("subgroup", Capabilities::SUBGROUP), ("pack2x16float", half), ("coop_mat", matrix)];
    used.into_iter().filter(|(used, _)| text.contains(used)).map(|(_, needed)| needed).collect()
}

/// Checks that every backend's language can express the program, or lacks a feature it uses;
/// workgroup memory is not zeroed, since a single lane would do that before all others.
fn check_writers(program: &Program) -> Check {
    for language in Language::ALL {
        let written = match gpu::write(program, language) {
            Ok(written) => written,
            Err(NotWritten::Unsupported(_)) => continue,
            Err(fault) => return Err(format!("{language:?}: {fault}")),
        };
        let text = String::from_utf8_lossy(&written.bytes);
        let zeroing = [
            "metal::all(__local",
            "all(__local_invocation_id",
            "gl_LocalInvocationID == uvec3(0u)",
        ];
        for zeroing in zeroing {
            ensure(!text.contains(zeroing), || format!("{language:?}: zeroes workgroup memory"))?;
        }
    }
    Ok(())
}

/// Checks that there is one compute entry point, with the name of the file and the kernel.
fn check_entry(interface: &Interface, program: &Program, module: &Module) -> Check {
    let names: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    ensure(names == [interface.name()], || {
        format!("entry points {names:?}, not [{:?}]", interface.name())
    })?;
    let stage = module.entry_points[0].stage;
    ensure(stage == ShaderStage::Compute, || format!("entry point of stage {stage:?}"))?;
    ensure(program.name() == interface.name(), || format!("program `{}`", program.name()))?;
    let stem = stem(program.file);
    ensure(stem == interface.name(), || format!("file stem `{stem}`, not `{}`", interface.name()))
}

/// Checks that `struct Params` equals the host's, field by field.
fn check_params(interface: &Interface, program: &Program, module: &Module) -> Check {
    let (_, params) = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some("Params"))
        .ok_or("no `struct Params`")?;
    let TypeInner::Struct { members, span } = &params.inner else {
        return Err("`Params` is not a struct".to_owned());
    };
    let shader: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize))
        .collect();
    ensure(shader == interface.params, || {
        format!("`Params` is {shader:?} in the shader, {:?} in the host file", interface.params)
    })?;
    let sizes = [*span as usize, program.params_bytes as usize];
    ensure(sizes == [interface.params_bytes; 2], || {
        format!(
            "`Params` takes {} bytes in the shader, {} in the program, {} in the host file",
            sizes[0], sizes[1], interface.params_bytes
        )
    })
}

/// Binding, in a form that both sides can express.
#[derive(Debug, PartialEq)]
struct Bound {
    group: u32,
    index: u32,
    name: String,
    /// Access, and true for a texture; `None` for a uniform.
    kind: Option<(Access, bool)>,
}

/// Bindings of the module, by index.
fn reflect_bindings(module: &Module) -> Result<Vec<(Bound, Handle<Type>)>, String> {
    let mut bindings = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(at) = variable.binding else { continue };
        let name = variable.name.clone().unwrap_or_default();
        let load_store = StorageAccess::LOAD | StorageAccess::STORE;
        let buffer = |access| Some((access, false));
        let kind = match variable.space {
            AddressSpace::Uniform => None,
            AddressSpace::Storage { access: StorageAccess::LOAD } => buffer(Access::Read),
            AddressSpace::Storage { access } if access == load_store => buffer(Access::Write),
            AddressSpace::Handle => match module.types[variable.ty].inner {
                TypeInner::Image { class: ImageClass::Sampled { multi: false, .. }, .. } => {
                    Some((Access::Read, true))
                }
                TypeInner::Image {
                    class:
                        ImageClass::Storage {
                            format: StorageFormat::Rgba32Float,
                            access: StorageAccess::STORE,
                        },
                    ..
                } => Some((Access::Write, true)),
                ref other => return Err(format!("binding `{name}` is {other:?}")),
            },
            space => return Err(format!("binding `{name}` is in {space:?}")),
        };
        bindings.push((Bound { group: at.group, index: at.binding, name, kind }, variable.ty));
    }
    bindings.sort_by_key(|(binding, _)| (binding.group, binding.index));
    Ok(bindings)
}

/// Checks that `params` is at 0, then the host's names and access in order, all in group 0.
fn check_bindings(interface: &Interface, program: &Program, module: &Module) -> Check {
    let shader = reflect_bindings(module)?;
    let (params, rest) = shader.split_first().ok_or("no binding")?;
    let uniform = Bound { group: 0, index: 0, name: "params".to_owned(), kind: None };
    let kind = module.types[params.1].name.as_deref();
    ensure(params.0 == uniform && kind == Some("Params"), || {
        format!("binding 0 is {:?} of type {kind:?}, not the uniform `params: Params`", params.0)
    })?;
    ensure(rest.len() == interface.bindings.len(), || {
        let count = interface.bindings.len();
        format!("{} bindings after `params` in the shader, {count} in the host file", rest.len())
    })?;
    let access: Vec<_> = interface.bindings.iter().map(|(_, access)| *access).collect();
    let given: Vec<_> = program.bindings.iter().map(|binding| binding.access).collect();
    ensure(access == given, || format!("program has access {given:?}, the host file {access:?}"))?;
    let host = interface.bindings.iter().zip(&program.bindings);
    for (n, ((found, _), ((name, _), kind))) in rest.iter().zip(host).enumerate() {
        let kind = Some((kind.access, kind.format.texture()));
        let name = (*name).to_owned();
        let index = n as u32 + 1;
        let meant = Bound { group: 0, index, name, kind };
        ensure(*found == meant, || format!("binding {found:?}, where the host has {meant:?}"))?;
    }
    let count = |texture: bool, write: bool| {
        let is =
            |b: &&Binding| b.format.texture() == texture && (!write || b.access == Access::Write);
        program.bindings.iter().filter(is).count()
    };
    let buffers = count(false, false);
    let written = count(true, true);
    ensure(buffers <= MAX_STORAGE_BUFFERS, || {
        format!("{buffers} storage buffers, over the limit of {MAX_STORAGE_BUFFERS}")
    })?;
    ensure(written <= MAX_STORAGE_TEXTURES, || {
        format!("{written} storage textures, over the limit of {MAX_STORAGE_TEXTURES}")
    })
}

/// Checks that `@workgroup_size` is within the limit, flat, and equal to WG, given or derived.
fn check_workgroup(program: &Program, module: &Module) -> Check {
    let [x, y, z] = module.entry_points[0].workgroup_size;
    ensure(x <= MAX_WORKGROUP && y == 1 && z == 1, || {
        format!(
            "expected a @workgroup_size of at most ({MAX_WORKGROUP}, 1, 1), got ({x}, {y}, {z})"
        )
    })?;
    let shader = module_constant(module, "WG").ok_or("no `const WG: u32`")?;
    ensure(shader == x, || format!("@workgroup_size({x}), but WG = {shader}"))?;
    match program.constants.iter().find(|(name, _)| *name == "WG") {
        Some((_, Const::U32(wg))) if *wg == x => Ok(()),
        Some((_, wg)) => Err(format!("@workgroup_size({x}), but the program sets WG = {wg}")),
        None => Ok(()),
    }
}

/// Value of a `u32` constant of the module.
fn module_constant(module: &Module, name: &str) -> Option<u32> {
    let mut constants = module.constants.iter().map(|(_, constant)| constant);
    let found = constants.find(|constant| constant.name.as_deref() == Some(name))?;
    match module.global_expressions[found.init] {
        Expression::Literal(Literal::U32(value)) => Some(value),
        _ => None,
    }
}

/// Checks that all workgroup variables together fit in the limit.
fn check_memory(module: &Module) -> Check {
    let variables = module.global_variables.iter().map(|(_, variable)| variable);
    let sizes: Vec<_> = variables
        .filter(|variable| variable.space == AddressSpace::WorkGroup)
        .map(|variable| {
            let bytes = module.types[variable.ty].inner.size(module.to_ctx());
            (variable.name.as_deref().unwrap_or_default(), bytes)
        })
        .collect();
    let total: u32 = sizes.iter().map(|(_, bytes)| bytes).sum();
    ensure(total <= MAX_WORKGROUP_BYTES, || {
        format!("{total} bytes of workgroup memory {sizes:?}, over {MAX_WORKGROUP_BYTES}")
    })
}

/// Checks that the program sets every constant of the Spec section, and no other.
fn check_spec(program: &Program) -> Check {
    let file: BTreeSet<_> = spec_constants(program.text).into_iter().collect();
    let host: BTreeSet<_> = program.constants.iter().map(|(name, _)| *name).collect();
    ensure(host.len() == program.constants.len(), || {
        format!("a constant is set twice: {:?}", program.constants)
    })?;
    let unset: Vec<_> = file.difference(&host).collect();
    ensure(unset.is_empty(), || format!("the program does not set {unset:?} of the Spec section"))?;
    let unknown: Vec<_> = host.difference(&file).collect();
    ensure(unknown.is_empty(), || {
        format!("the program sets {unknown:?}, which the Spec section lacks")
    })
}

/// Names in the block of `const` lines below the `// Spec:` line.
fn spec_constants(text: &str) -> Vec<&str> {
    text.lines()
        .skip_while(|line| !line.starts_with(SPEC))
        .skip(1)
        .map_while(|line| line.strip_prefix("const ")?.split(':').next())
        .collect()
}

/// File name without extension: `layer_norm` for `naive/layer_norm.wgsl`.
fn stem(file: &str) -> &str {
    Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

// ---- Tests ----

/// All interfaces, with each of their programs.
fn programs() -> impl Iterator<Item = (&'static Interface, Program)> {
    kernels::ALL.iter().chain(roof::INTERFACES).flat_map(|interface| {
        let programs = (interface.programs)();
        assert!(!programs.is_empty(), "`{}` has no program", interface.name());
        programs.into_iter().map(move |program| (interface, program))
    })
}

fn report(offenders: &[String]) {
    assert!(offenders.is_empty(), "{} offenders:\n{}", offenders.len(), offenders.join("\n"));
}

#[test]
fn every_program_translates_to_every_language_that_supports_it() {
    let roof = roof::INTERFACES.iter().flat_map(|interface| (interface.programs)());
    let mut offenders = Vec::new();
    for program in jinabert::programs::all().into_iter().chain(roof) {
        if let Err(error) = check_writers(&program) {
            offenders.push(format!("{} {:?}: {error}", program.file, program.constants));
        }
    }
    report(&offenders);
}

#[test]
fn every_program_matches_its_host_file() {
    let mut offenders = Vec::new();
    for (interface, program) in programs() {
        let held = gpu::assemble(&program).and_then(|out| check(interface, &program, &out.text));
        if let Err(error) = held {
            offenders.push(format!("{} {:?}: {error}", program.file, program.constants));
        }
    }
    report(&offenders);
}

#[track_caller]
fn assert_refused(held: Check, named: &str) {
    let error = held.expect_err(named);
    assert!(error.contains(named), "`{named}` is not named in: {error}");
}
