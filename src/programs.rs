//! All programs of the engines, by name: the kernels' own, and the candidates of a tuning search.

use crate::{
    activation::Activation,
    kernels::{self, Dtype, KernelVariant, Tier, Tile, attention, linear, linear_geglu},
    recording::{Const, Program},
};
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    sync::Arc,
};

/// Tiers that are tuned, and the maximum rows of each class in the search.
const SEARCHED: [Tier; 4] = [Tier::Tiled, Tier::Texture, Tier::Subgroup(4), Tier::Subgroup(8)];
const ROWS: [u32; 3] = [16, 64, u32::MAX];

/// All programs, each text once: for all row lengths and head widths that the kernels cover.
pub fn all() -> Vec<Program> {
    let own = kernels::ALL.iter().flat_map(|interface| (interface.programs)());
    let mut known = HashSet::new();
    let mut new = |program: &Program| {
        known.insert((program.file, program.imports.clone(), program.constants.clone()))
    };
    own.chain(searched()).filter(|program| new(program)).collect()
}

/// Programs for the candidate tiles of a tuning search.
fn searched() -> impl Iterator<Item = Program> {
    // Texture and subgroup tiers have the same text for all weight formats.
    let variants = SEARCHED.into_iter().flat_map(|tier| {
        let plain = KernelVariant::from(tier);
        let stored =
            [KernelVariant::new(tier, Dtype::F16), KernelVariant { half_weights: true, ..plain }];
        std::iter::once(plain).chain(stored.into_iter().filter(move |_| tier == Tier::Tiled))
    });
    variants.flat_map(|variant| products(variant).into_iter().chain(attentions(variant)))
}

fn products(variant: KernelVariant) -> Vec<Program> {
    let tiles = ROWS.iter().flat_map(|&rows| Tile::candidates(variant.tier, rows));
    tiles.flat_map(|tile| products_with(variant, tile)).map(|program| (*program).clone()).collect()
}

fn products_with(variant: KernelVariant, tile: Tile) -> [Arc<Program>; 3] {
    let linear = |residual| linear::Spec { tile, ..linear::Spec::new(variant, residual) };
    let geglu = linear_geglu::Spec::new(variant, true, Activation::Gelu);
    [
        linear::kernel(linear(false)).program,
        linear::kernel(linear(true)).program,
        linear_geglu::kernel(linear_geglu::Spec { tile, ..geglu }).program,
    ]
}

fn attentions(variant: KernelVariant) -> Vec<Program> {
    let usual = (attention::programs)().into_iter();
    let widths: BTreeSet<u32> = usual.filter_map(|program| number(&program, "E")).collect();
    let programs = widths.into_iter().flat_map(|e| {
        let spec = attention::Spec::new(variant, e);
        let tiles = attention::Spec::candidates(variant.tier, e).into_iter();
        tiles.map(move |tile| attention::kernel(attention::Spec { tile, ..spec }).program)
    });
    programs.map(|program| (*program).clone()).collect()
}

/// Value of a numeric constant, if the program has it.
pub fn number(program: &Program, name: &str) -> Option<u32> {
    let found = program.constants.iter().find(|(known, _)| *known == name);
    found.and_then(|(_, value)| if let Const::U32(value) = value { Some(*value) } else { None })
}

/// Tier of the program's kernel.  A tier without its own variant of a kernel uses the tiled one.
pub fn tier(program: &Program) -> &'static str {
    match program.file.split_once('/').map(|(directory, _)| directory) {
        Some("naive") => "naive",
        Some("matrix") => "matrix",
        Some("texture") if number(program, "S").is_some_and(|lanes| lanes > 1) => "subgroup",
        Some("texture") => "texture",
        _ => "tiled",
    }
}

/// True if some of its buffers hold f16.
pub fn half(program: &Program) -> bool {
    program.imports.iter().any(|(_, file)| *file == "elem_f16")
}

/// Unique file name of a program: `linear-tiled-f16-bm64-bn64-bk16-slices1-residual-x_f16-w_f16`.
/// Programs with different texts have different names.
pub fn name(program: &Program) -> String {
    let dtype = if half(program) { "f16" } else { "f32" };
    let mut name = format!("{}-{}-{dtype}", program.name(), tier(program));
    if program.file.starts_with("any_width/") {
        name += "-any_width";
    }
    for (constant, value) in &program.constants {
        let constant = constant.to_lowercase();
        let _ = match value {
            Const::U32(0) | Const::Bool(false) => Ok(()),
            Const::U32(value) => write!(name, "-{constant}{value}"),
            Const::Bool(true) => write!(name, "-{constant}"),
        };
    }
    // The other imports follow from the constants.
    for (generic, file) in &program.imports {
        let _ = match (*generic, *file) {
            (_, "elem_f16") => write!(name, "-{generic}_f16"),
            (_, "elem_bf16") => write!(name, "-{generic}_bf16"),
            ("activation", "identity") => Ok(()),
            ("activation", activation) => write!(name, "-{activation}"),
            _ => Ok(()),
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_are_fit_for_files() {
        let programs = all();
        let names: HashSet<_> = programs.iter().map(name).collect();
        assert_eq!(names.len(), programs.len());
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        for name in &names {
            assert!(name.chars().all(fit), "{name}");
        }
    }

    /// All candidates of a tuning search, on a device of each tier and for each number of rows.
    #[test]
    fn every_candidate_is_listed() {
        let programs: HashSet<_> = all().iter().map(name).collect();
        for (tier, rows) in SEARCHED.into_iter().flat_map(|tier| ROWS.map(|rows| (tier, rows))) {
            for tile in Tile::candidates(tier, rows) {
                let spec = linear::Spec { tile, ..linear::Spec::new(tier, true) };
                let wanted = name(&linear::kernel(spec).program);
                assert!(programs.contains(&wanted), "{wanted}");
            }
            for tile in attention::Spec::candidates(tier, 64) {
                let spec = attention::Spec { tile, ..attention::Spec::new(tier, 64) };
                let wanted = name(&attention::kernel(spec).program);
                assert!(programs.contains(&wanted), "{wanted}");
            }
        }
        for interface in kernels::ALL {
            for program in (interface.programs)() {
                assert!(programs.contains(&name(&program)), "{}", name(&program));
            }
        }
    }
}
