//! Kernels whose workgroup memory holds NaN when a workgroup begins: it may hold anything, since it
//! is not zeroed (`src/gpu/pipeline.rs`).

use jinabert::{
    gpu,
    recording::{Command, Program, Recording},
};
use naga::{AddressSpace, ArraySize, Handle, Module, ScalarKind, Type, TypeInner};
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

/// Recording with workgroup memory filled first in each kernel; `None` if no kernel has any.
pub fn poisoned(recording: &Recording) -> Option<Recording> {
    let mut any = false;
    let commands = recording.commands.iter().map(|command| {
        let filled = filled(&command.program);
        any |= filled.is_some();
        let program = filled.unwrap_or_else(|| Arc::clone(&command.program));
        Command { program, ..command.clone() }
    });
    let commands = commands.collect();
    any.then(|| Recording { commands, ..recording.clone() })
}

/// Filled copy of a program, made once, since engines identify programs by their address.
fn filled(program: &Arc<Program>) -> Option<Arc<Program>> {
    static KNOWN: Mutex<Option<HashMap<Program, Option<Arc<Program>>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(HashMap::new);
    let entry = known.entry((**program).clone()).or_insert_with(|| {
        let text = gpu::assemble(program).expect("a good program").text;
        let text = with_prologue(&text)?.leak();
        let imports = Vec::new();
        let constants = Vec::new();
        Some(Arc::new(Program { text, imports, constants, ..(**program).clone() }))
    });
    entry.clone()
}

fn with_prologue(text: &str) -> Option<String> {
    let module = naga::front::wgsl::parse_str(text).expect("a good program");
    let size = module.entry_points[0].workgroup_size[0];
    let mut prologue = String::new();
    for (_, variable) in module.global_variables.iter() {
        if variable.space == AddressSpace::WorkGroup {
            let name = variable.name.as_deref().expect("a name");
            fill(&mut prologue, &module, name, variable.ty, 0, size);
        }
    }
    if prologue.is_empty() {
        return None;
    }
    let (before, after) = text.split_once("@compute").expect("an entry point");
    let (head, body) = after.split_once(") {\n").expect("its body");
    let poison = "var<private> poison_bits: u32 = 0x7fc00000u;\n\
                  fn poison() -> f32 { return bitcast<f32>(poison_bits); }\n";
    Some(format!("{before}{poison}@compute{head}) {{\n{prologue}workgroupBarrier();\n{body}"))
}

/// Writes loops that set every element of a variable; the outermost is divided among the workgroup.
fn fill(out: &mut String, module: &Module, path: &str, ty: Handle<Type>, depth: u32, size: u32) {
    let written = match module.types[ty].inner {
        TypeInner::Array { base, size: ArraySize::Constant(n), .. } => {
            let i = format!("p{depth}");
            let (first, step) = if depth == 0 { ("lid", size) } else { ("0u", 1) };
            let begin = writeln!(out, "for (var {i} = {first}; {i} < {n}u; {i} += {step}u) {{");
            fill(out, module, &format!("{path}[{i}]"), base, depth + 1, size);
            begin.and_then(|()| writeln!(out, "}}"))
        }
        TypeInner::Struct { ref members, .. } => {
            for member in members {
                let name = member.name.as_deref().expect("a name");
                fill(out, module, &format!("{path}.{name}"), member.ty, depth + 1, size);
            }
            Ok(())
        }
        TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Uint => {
            writeln!(out, "{path} = poison_bits;")
        }
        TypeInner::Vector { size, scalar } if scalar.kind == ScalarKind::Float => {
            writeln!(out, "{path} = vec{}<f32>(poison());", size as u8)
        }
        TypeInner::Scalar(scalar) if scalar.width == 2 => writeln!(out, "{path} = f16(poison());"),
        TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Float => {
            writeln!(out, "{path} = poison();")
        }
        ref other => panic!("workgroup memory of another type: {other:?}"),
    };
    written.expect("room");
}
