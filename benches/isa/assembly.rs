//! Analysis of a disassembly: instruction mix of the hottest loop, and width of loads.

use std::collections::BTreeMap;

/// Instruction counts.
#[derive(Default)]
pub struct Mix {
    /// Fused multiply-adds in the hottest loop.
    pub fmas: u32,
    /// Vector arithmetic instructions in the same loop.
    pub valu: u32,
    /// Loads from workgroup memory in the whole program: of 128 bits, and narrower.
    pub lds: [u32; 2],
    /// Vector loads from buffers and textures in the whole program: of 128 bits, and narrower.
    pub memory: [u32; 2],
}

/// Counts instructions.  The hottest loop is the one with the most multiply-adds among the
/// innermost loops; if no loop has any, the whole program is used instead.
pub fn mix(assembly: &str) -> Mix {
    let lines: Vec<&str> = assembly.lines().map(instruction).collect();
    let hottest =
        innermost_loops(&lines).into_iter().map(|(from, to)| arithmetic(&lines[from..to]));
    let hottest = hottest.max().filter(|(fmas, _)| *fmas > 0);
    let (fmas, valu) = hottest.unwrap_or_else(|| arithmetic(&lines));
    let mut mix = Mix { fmas, valu, ..Mix::default() };
    for line in lines {
        if let Some(wide) = lds_load(line) {
            mix.lds[usize::from(!wide)] += 1;
        }
        if let Some(wide) = memory_load(line) {
            mix.memory[usize::from(!wide)] += 1;
        }
    }
    mix
}

/// Strips the encoding from a line.
fn instruction(line: &str) -> &str {
    line.split(';').next().unwrap_or_default().trim()
}

/// Innermost loops: ranges of lines from a label to the last branch back to it.
fn innermost_loops(lines: &[&str]) -> Vec<(usize, usize)> {
    let labels: BTreeMap<&str, usize> = lines
        .iter()
        .zip(0..)
        .filter_map(|(line, at)| Some((line.strip_suffix(':')?, at)))
        .collect();
    let mut loops = BTreeMap::new();
    for (line, at) in lines.iter().zip(0..) {
        let Some((op, target)) = line.split_once(' ') else { continue };
        let branch = op == "s_branch" || op.starts_with("s_cbranch");
        match labels.get(target.trim()) {
            Some(&from) if branch && from <= at => loops.insert(from, at),
            _ => None,
        };
    }
    let inside = |outer: (usize, usize), inner: (usize, usize)| {
        outer != inner && outer.0 <= inner.0 && inner.1 <= outer.1
    };
    let loops: Vec<(usize, usize)> = loops.into_iter().collect();
    let innermost = |outer: &&(usize, usize)| !loops.iter().any(|&inner| inside(**outer, inner));
    loops.iter().filter(innermost).copied().collect()
}

/// Numbers of multiply-adds and of all vector instructions; a dual-issue pair counts as two.
fn arithmetic(lines: &[&str]) -> (u32, u32) {
    let ops = lines.iter().flat_map(|line| line.split("::")).map(str::trim);
    let valu: Vec<_> = ops.filter_map(|op| op.strip_prefix("v_")).collect();
    let fmas = valu.iter().filter(|op| is_fma(op)).count();
    (fmas as u32, valu.len() as u32)
}

fn is_fma(op: &str) -> bool {
    let op = op.trim_start_matches("dual_").trim_start_matches("pk_");
    ["fma", "mac_f", "mad_f", "mad_mix", "dot", "wmma"].iter().any(|start| op.starts_with(start))
}

/// True for a load of 128 bits a lane from workgroup memory; `None` for other instructions.
fn lds_load(line: &str) -> Option<bool> {
    let op = line.strip_prefix("ds_read").or_else(|| line.strip_prefix("ds_load"))?;
    let op = op.split(' ').next().unwrap_or_default();
    let pair = op.starts_with('2') || op.starts_with("_2addr");
    Some(op.ends_with("b128") || pair && op.ends_with("b64"))
}

/// True for a vector load of 128 bits a lane from memory; `None` for other instructions.
fn memory_load(line: &str) -> Option<bool> {
    let (op, rest) = line.split_once(' ')?;
    if op.starts_with("image_load") || op.starts_with("image_sample") {
        return Some(rest.contains("dmask:0xf"));
    }
    let load =
        ["buffer_load_", "global_load_", "flat_load_"].iter().find_map(|s| op.strip_prefix(s));
    load.map(|size| ["dwordx4", "b128", "format_xyzw"].contains(&size))
}
