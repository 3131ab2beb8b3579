//! Tests that the checks detect errors.

use super::{assert_refused, check, programs, spec_constants};
use jinabert::{
    gpu,
    kernels::Interface,
    recording::{Access, Const, Format, KernelId, Program},
};

/// Interface of `layer_norm`, its first program, and the assembled WGSL of that.
fn sample() -> (&'static Interface, Program, String) {
    let (interface, program) =
        programs().find(|(interface, _)| interface.name() == "layer_norm").expect("a kernel");
    let text = gpu::assemble(&program).expect("an assembled program").text;
    (interface, program, text)
}

#[test]
fn broken_text_is_refused() {
    let (interface, program, text) = sample();
    assert_eq!(check(interface, &program, &text), Ok(()));
    let broken = |from: &str, to: &str, named: &str| {
        assert!(text.contains(from), "nothing to break: `{from}`");
        assert_refused(check(interface, &program, &text.replace(from, to)), named);
    };
    broken("var mean", "var", "expected");
    broken("fn layer_norm(", "fn main(", "main");
    broken("rows: u32, // T\n    eps: f32,", "eps: f32,\n rows: u32,", "(\"rows\", 4)");
    broken("eps: f32,\n}", "eps: f32,\n spare: u32,\n}", "spare");
    broken("eps: f32,\n}", "@size(12) eps: f32,\n}", "16 bytes in the shader");
    broken("@binding(3)", "@binding(9)", "name: \"beta\"");
    broken("@group(0) @binding(5)", "@group(1) @binding(5)", "group: 1");
    broken("var<storage, read> r", "var<storage, read_write> r", "name: \"r\"");
    broken("var<uniform> params", "var<storage, read> params", "binding 0");
    broken("@workgroup_size(WG)", "@workgroup_size(WG, 2)", "expected a @workgroup_size");
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
    added("@group(0) @binding(6) var picture: texture_depth_2d;\n", "picture");
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
    broken(|p| p.bindings[4].access = Access::Read, "access");
    broken(|p| p.bindings[0].format = Format::Texture, "Some((Read, true))");
    broken(|p| p.params_bytes = 12, "12 in the program");
    broken(|p| p.file = "naive/norm.wgsl", "`norm`");
    broken(|p| p.kernel = KernelId::Gather, "`gather`");
}

#[test]
fn the_spec_section_ends_with_its_block() {
    let text = "const A: u32 = 1u;\n// Spec: fixed.\nconst B: u32 = 2u;\nconst C: bool = true;\n\n\
                const D: u32 = 3u;\n";
    assert_eq!(spec_constants(text), ["B", "C"]);
}
