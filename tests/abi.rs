//! Every kernel against its host file, by reflection on the assembled WGSL; no GPU is needed.
//!
//! Each program must be core WGSL that the SPIR-V, MSL and HLSL writers accept, and its entry
//! point, `Params`, bindings, constants, workgroup size and workgroup memory must be what the host
//! file says.  Each shader file must have the header, and keep to the subset, that all have.

use jinabert::{
    gpu,
    kernels::{self, Interface},
    recording::{Access, Const, Program},
};
use naga::{
    AddressSpace, Expression, Handle, Literal, Module, ShaderStage, StorageAccess, Type, TypeInner,
    back::{hlsl, msl, spv},
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// WebGPU's default limit is 256 invocations and 16 KiB per workgroup, 8 storage buffers per stage.
const MAX_WORKGROUP: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_STORAGE_BUFFERS: usize = 8;

/// Longest line of a shader, in characters.
const MAX_WIDTH: usize = 120;

/// The line before the constants that the host sets.
const SPEC: &str = "// Spec:";

type Check = Result<(), String>;

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(message()) }
}

// ---- Programs ----

/// All checks of one program; `text` is what it assembles to.
fn check(interface: &Interface, program: &Program, text: &str) -> Check {
    let (module, info) = parse(text)?;
    check_writers(&module, &info)?;
    check_entry(interface, program, &module)?;
    check_params(interface, program, &module)?;
    check_bindings(interface, program, &module)?;
    check_workgroup(program, &module)?;
    check_memory(&module)?;
    check_spec(program)
}

/// Parses and validates; nothing beyond core WGSL may be needed.
fn parse(text: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
    let overrides: Vec<_> = module.overrides.iter().map(|(_, found)| &found.name).collect();
    ensure(overrides.is_empty(), || format!("overrides {overrides:?}; constants are meant"))?;
    Ok((module, info))
}

/// The backends accept it, with bounds checks on.
fn check_writers(module: &Module, info: &ModuleInfo) -> Check {
    let bounds_check_policies = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        ..Default::default()
    };
    for lang_version in [(1, 0), (1, 3), (1, 6)] {
        let options = spv::Options { lang_version, bounds_check_policies, ..Default::default() };
        let written = spv::write_vec(module, info, &options, None);
        written.map_err(|e| format!("SPIR-V {lang_version:?}: {e}"))?;
    }
    for lang_version in [(2, 0), (2, 4)] {
        let options = msl::Options { lang_version, bounds_check_policies, ..Default::default() };
        let written = msl::write_string(module, info, &options, &Default::default());
        let (_, translation) = written.map_err(|e| format!("MSL {lang_version:?}: {e}"))?;
        for name in translation.entry_point_names {
            name.map_err(|e| format!("MSL {lang_version:?}: {e}"))?;
        }
    }
    for shader_model in [hlsl::ShaderModel::V5_1, hlsl::ShaderModel::V6_0] {
        let (mut out, pipeline) = (String::new(), hlsl::PipelineOptions::default());
        let options = hlsl::Options { shader_model, ..Default::default() };
        let written = hlsl::Writer::new(&mut out, &options, &pipeline).write(module, info, None);
        let reflection = written.map_err(|e| format!("HLSL {shader_model:?}: {e}"))?;
        for name in reflection.entry_point_names {
            name.map_err(|e| format!("HLSL {shader_model:?}: {e}"))?;
        }
    }
    Ok(())
}

/// One compute entry point, named as the file and the kernel.
fn check_entry(interface: &Interface, program: &Program, module: &Module) -> Check {
    let names: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    ensure(names == [interface.word], || {
        format!("entry points {names:?}, not [{:?}]", interface.word)
    })?;
    let stage = module.entry_points[0].stage;
    ensure(stage == ShaderStage::Compute, || format!("entry point of stage {stage:?}"))?;
    ensure(program.word == interface.word, || format!("program of word `{}`", program.word))?;
    let stem = stem(program.file);
    ensure(stem == interface.word, || format!("file stem `{stem}`, not `{}`", interface.word))
}

/// `struct Params` is the host's, field by field.
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

/// A binding as both sides can express it.
#[derive(Debug, PartialEq)]
struct Binding {
    group: u32,
    index: u32,
    name: String,
    /// `None` for a uniform.
    access: Option<Access>,
}

/// The module's bindings, by index.
fn reflect_bindings(module: &Module) -> Result<Vec<(Binding, Handle<Type>)>, String> {
    let mut bindings = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(at) = variable.binding else { continue };
        let name = variable.name.clone().unwrap_or_default();
        let load_store = StorageAccess::LOAD | StorageAccess::STORE;
        let access = match variable.space {
            AddressSpace::Uniform => None,
            AddressSpace::Storage { access: StorageAccess::LOAD } => Some(Access::Read),
            AddressSpace::Storage { access } if access == load_store => Some(Access::Write),
            space => return Err(format!("binding `{name}` is in {space:?}")),
        };
        bindings.push((Binding { group: at.group, index: at.binding, name, access }, variable.ty));
    }
    bindings.sort_by_key(|(binding, _)| (binding.group, binding.index));
    Ok(bindings)
}

/// `params` at 0, then the host's names and access in order, all in group 0.
fn check_bindings(interface: &Interface, program: &Program, module: &Module) -> Check {
    let shader = reflect_bindings(module)?;
    let (params, rest) = shader.split_first().ok_or("no binding")?;
    let uniform = Binding { group: 0, index: 0, name: "params".to_owned(), access: None };
    let kind = module.types[params.1].name.as_deref();
    ensure(params.0 == uniform && kind == Some("Params"), || {
        format!("binding 0 is {:?} of type {kind:?}, not the uniform `params: Params`", params.0)
    })?;
    ensure(rest.len() == interface.bindings.len(), || {
        let count = interface.bindings.len();
        format!("{} bindings after `params` in the shader, {count} in the host file", rest.len())
    })?;
    for (n, ((found, _), (name, access))) in rest.iter().zip(interface.bindings).enumerate() {
        let (name, access, index) = ((*name).to_owned(), Some(*access), n as u32 + 1);
        let meant = Binding { group: 0, index, name, access };
        ensure(*found == meant, || format!("binding {found:?}, where the host has {meant:?}"))?;
    }
    let access: Vec<_> = interface.bindings.iter().map(|(_, access)| *access).collect();
    ensure(access == program.access, || {
        format!("program has access {:?}, the host file {access:?}", program.access)
    })?;
    let count = rest.iter().filter(|(binding, _)| binding.access.is_some()).count();
    ensure(count <= MAX_STORAGE_BUFFERS, || {
        format!("{count} storage buffers, over the limit of {MAX_STORAGE_BUFFERS}")
    })
}

/// `@workgroup_size` is within the limit, flat, and equal to WG, given or derived.
fn check_workgroup(program: &Program, module: &Module) -> Check {
    let [x, y, z] = module.entry_points[0].workgroup_size;
    ensure(x <= MAX_WORKGROUP && y == 1 && z == 1, || {
        format!("@workgroup_size({x}, {y}, {z}); at most ({MAX_WORKGROUP}, 1, 1) is meant")
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

/// All workgroup variables fit together.
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

/// The program sets every constant of the Spec section, and no other.
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

// ---- Files ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `layer_norm` of `naive/layer_norm.wgsl`.
fn stem(file: &str) -> &str {
    Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// Every `.wgsl` file, as its path below `shaders/`.
fn shader_files() -> Vec<String> {
    let (mut files, mut dirs) = (Vec::new(), vec![root().join("shaders")]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "wgsl") {
                let below = path.strip_prefix(root().join("shaders")).expect("below shaders/");
                let parts: Vec<_> = below.iter().filter_map(|part| part.to_str()).collect();
                files.push(parts.join("/"));
            }
        }
    }
    files.sort();
    files
}

/// Nothing that would leave core WGSL, the one bind group, or the page.
fn check_subset(text: &str) -> Check {
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        for word in ["enable ", "override "] {
            ensure(!code.contains(word), || format!("line {number}: `{word}`"))?;
        }
        for group in code.split("@group").skip(1) {
            ensure(group.replace(' ', "").starts_with("(0)"), || {
                format!("line {number}: an `@group` other than 0")
            })?;
        }
        let width = line.chars().count();
        ensure(width <= MAX_WIDTH, || {
            format!("line {number}: {width} characters, over {MAX_WIDTH}")
        })?;
    }
    Ok(())
}

/// The header names the kernel and where its host file, twin, test and bench are.
fn check_header(word: &str, text: &str, exists: impl Fn(&str) -> bool) -> Check {
    ensure(text.starts_with(&format!("// {word}: ")), || {
        format!("the file does not begin with `// {word}: `")
    })?;
    let header: String =
        text.lines().map_while(|line| line.strip_prefix("//")).collect::<Vec<_>>().join("\n");
    for (label, path) in [
        ("Host", format!("src/kernels/{word}.rs")),
        ("CPU twin", format!("src/reference/{word}.rs")),
        ("Test", format!("tests/kernels/{word}.rs")),
        ("Bench", "benches/kernels.rs".to_owned()),
    ] {
        let label_at = format!(" {label} ");
        let mut named = header.split(&label_at).skip(1).map(|rest| rest.split_whitespace().next());
        ensure(named.any(|found| found == Some(path.as_str())), || {
            format!("the header does not name {label} `{path}`")
        })?;
        ensure(exists(&path), || format!("{label} `{path}` does not exist"))?;
    }
    ensure(header.contains(&format!("benches/kernels.rs \"{word}\"")), || {
        format!("the header does not name the bench id \"{word}\"")
    })
}

// ---- Tests ----

/// Every interface with every program of it.
fn programs() -> impl Iterator<Item = (&'static Interface, Program)> {
    kernels::ALL.iter().flat_map(|interface| {
        let programs = (interface.programs)();
        assert!(!programs.is_empty(), "`{}` has no program", interface.word);
        programs.into_iter().map(move |program| (interface, program))
    })
}

fn report(offenders: &[String]) {
    assert!(offenders.is_empty(), "{} offenders:\n{}", offenders.len(), offenders.join("\n"));
}

#[test]
fn every_program_is_what_its_host_file_says() {
    let mut offenders = Vec::new();
    for (interface, program) in programs() {
        let held = gpu::assemble(&program).and_then(|out| check(interface, &program, &out.text));
        if let Err(error) = held {
            offenders.push(format!("{} {:?}: {error}", program.file, program.constants));
        }
    }
    report(&offenders);
}

#[test]
fn every_file_belongs_to_a_program() {
    let mut used = BTreeSet::new();
    for (_, program) in programs() {
        let out = gpu::assemble(&program).expect("an assembled program");
        let lines = 1..=out.text.lines().count();
        used.extend(lines.filter_map(|line| out.origin(line)).map(|(file, _)| file.to_owned()));
    }
    let files: BTreeSet<_> = shader_files().into_iter().collect();
    let unused: Vec<_> = files.difference(&used).cloned().collect();
    assert!(unused.is_empty(), "no program uses {unused:?}");
}

#[test]
fn every_file_keeps_to_the_subset_and_has_its_header() {
    let mut offenders = Vec::new();
    for file in shader_files() {
        let path: PathBuf = root().join("shaders").join(&file);
        let text = fs::read_to_string(path).expect("a readable shader");
        let header = match file.starts_with("lib/") {
            true => Ok(()),
            false => check_header(stem(&file), &text, |path| root().join(path).exists()),
        };
        for error in [check_subset(&text), header].into_iter().filter_map(Result::err) {
            offenders.push(format!("shaders/{file}: {error}"));
        }
    }
    report(&offenders);
}

// ---- The checks can fail ----

/// The interface of `layer_norm`, its first program, and what that assembles to.
fn sample() -> (&'static Interface, Program, String) {
    let (interface, program) =
        programs().find(|(interface, _)| interface.word == "layer_norm").expect("a kernel");
    let text = gpu::assemble(&program).expect("an assembled program").text;
    (interface, program, text)
}

#[track_caller]
fn assert_refused(held: Check, named: &str) {
    let error = held.expect_err(named);
    assert!(error.contains(named), "`{named}` is not named in: {error}");
}

#[test]
fn broken_text_is_refused() {
    let (interface, program, text) = sample();
    assert_eq!(check(interface, &program, &text), Ok(()));
    let broken = |from: &str, to: &str, named: &str| {
        assert!(text.contains(from), "nothing to break: `{from}`");
        assert_refused(check(interface, &program, &text.replace(from, to)), named);
    };
    broken("let mean", "let", "expected");
    broken("fn layer_norm(", "fn main(", "main");
    broken("rows: u32, // T\n    eps: f32,", "eps: f32,\n rows: u32,", "(\"rows\", 4)");
    broken("eps: f32,\n}", "eps: f32,\n spare: u32,\n}", "spare");
    broken("eps: f32,\n}", "@size(12) eps: f32,\n}", "16 bytes in the shader");
    broken("@binding(3)", "@binding(9)", "name: \"beta\"");
    broken("@group(0) @binding(5)", "@group(1) @binding(5)", "group: 1");
    broken("var<storage, read> r", "var<storage, read_write> r", "name: \"r\"");
    broken("var<uniform> params", "var<storage, read> params", "binding 0");
    broken("@workgroup_size(WG)", "@workgroup_size(WG, 2)", "@workgroup_size(");
    broken("@workgroup_size(WG)", "@workgroup_size(WG / 2u)", "but WG = ");
}

#[test]
fn swapped_names_are_refused() {
    let (interface, program, text) = sample();
    let text = text.replace("@binding(3)", "@binding(0x4)").replace("@binding(4)", "@binding(3)");
    assert_refused(check(interface, &program, &text), "index: 3, name: \"beta\"");
}

#[test]
fn additions_are_refused() {
    let (interface, program, text) = sample();
    let added = |line: &str, named| {
        assert_refused(check(interface, &program, &(line.to_owned() + &text)), named)
    };
    added("enable f16;\nvar<private> half: f16;\n", "FLOAT16");
    added("override SCALE: f32;\n", "SCALE");
    added("@compute @workgroup_size(1) fn second() {}\n", "second");
    added("var<workgroup> sh_big: array<vec4<f32>, 1024>;\n", "(\"sh_big\", 16384)");
    added("@group(0) @binding(6) var<storage, read> extra: array<u32>;\n", "6 bindings after");
    added("@group(0) @binding(6) var picture: texture_2d<f32>;\n", "picture");
}

#[test]
fn broken_programs_are_refused() {
    let (interface, program, text) = sample();
    let broken = |edit: fn(&mut Program), named| {
        let mut program = program.clone();
        edit(&mut program);
        assert_refused(check(interface, &program, &text), named);
    };
    broken(|p| p.constants.truncate(2), "RESIDUAL");
    broken(|p| p.constants.push(("TWICE", true.into())), "TWICE");
    broken(|p| p.constants.push(p.constants[0]), "set twice");
    broken(|p| p.constants[0].1 = Const::U32(8), "sets WG = 8u");
    broken(|p| p.access = &[Access::Read; 5], "access");
    broken(|p| p.params_bytes = 12, "12 in the program");
    broken(|p| p.file = "naive/norm.wgsl", "`norm`");
    broken(|p| p.word = "norm", "`norm`");
}

#[test]
fn broken_files_are_refused() {
    assert_refused(check_subset("fn k() {}\nenable f16;\n"), "line 2: `enable `");
    assert_refused(check_subset("override WG: u32;\n"), "line 1: `override `");
    assert_refused(check_subset("@group(1) @binding(0) var<uniform> p: u32;\n"), "@group");
    assert_refused(check_subset(&"x".repeat(121)), "line 1: 121 characters");
    assert_eq!(check_subset("// enable nothing, @group(1)\n@group( 0 ) @binding(0)\n"), Ok(()));

    let header = "// k: what it does.\n\
                  // Host  src/kernels/k.rs    CPU twin  src/reference/k.rs\n\
                  // Test  tests/kernels/k.rs  Bench     benches/kernels.rs \"k\"\n\nfn k() {}\n";
    assert_eq!(check_header("k", header, |_| true), Ok(()));
    assert_refused(check_header("j", header, |_| true), "`// j: `");
    let unnamed = header.replace("src/reference/k.rs", "src/reference/j.rs");
    assert_refused(check_header("k", &unnamed, |_| true), "CPU twin `src/reference/k.rs`");
    let test_missing = |path: &str| !path.starts_with("tests/");
    assert_refused(check_header("k", header, test_missing), "`tests/kernels/k.rs` does not exist");
    let below = header.replace("// Test", "\n// Test"); // no longer in the header
    assert_refused(check_header("k", &below, |_| true), "Test `tests/kernels/k.rs`");
}

#[test]
fn the_spec_section_ends_with_its_block() {
    let text = "const A: u32 = 1u;\n// Spec: fixed.\nconst B: u32 = 2u;\nconst C: bool = true;\n\n\
                const D: u32 = 3u;\n";
    assert_eq!(spec_constants(text), ["B", "C"]);
}
