//! How one operation is launched: one file per shader, same word.
//!
//! Each file has the same parts: `Spec` (constants fixed when the pipeline is built), `Params`
//! (values fixed per dispatch), `Args` (buffers, by name), [`kernel`](layer_norm::kernel) (a `Spec`
//! made runnable) and [`record`](layer_norm::record) (appends one dispatch, shapes checked).
//! `tests/abi.rs` holds every file against its shader.

mod plan;
mod tier;
mod tile;

use crate::{
    recording::{Access, Binding, Const, Format, Kernel, Program, slices},
    reference::Activation,
};
pub use plan::{Plan, Tiles};
use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};
pub use tier::{Dtype, Tier, Version};
pub use tile::{Layout, PANEL, Tile};

/// What a host file promises of its shader; compared with the shader's own reflection by
/// `tests/abi.rs`.
pub struct Interface {
    /// The kernel's word.
    pub word: &'static str,
    /// Names and byte offsets of the fields of `Params`.
    pub params: &'static [(&'static str, usize)],
    /// Size of `Params` in bytes.
    pub params_bytes: usize,
    /// Names and access of the bindings after `params`.
    pub bindings: &'static [(&'static str, Access)],
    /// A program for each tier and for the widths that published models have.
    pub programs: fn() -> Vec<Program>,
}

/// Declares the modules of all kernels, and the list of their interfaces.
macro_rules! kernels {
    ($($word:ident),+ $(,)?) => {
        $(pub mod $word;)+

        /// Every kernel.
        pub const ALL: &[Interface] = &[$(Interface {
            word: stringify!($word),
            params: $word::FIELDS,
            params_bytes: size_of::<$word::Params>(),
            bindings: $word::BINDINGS,
            programs: $word::programs,
        }),+];
    };
}

/// Lists the fields of `Params`, in the order of `struct Params` in the shader.
macro_rules! abi {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        /// Names and byte offsets of the fields.
        pub const FIELDS: &[(&str, usize)] =
            &[$((stringify!($field), std::mem::offset_of!($name, $field))),+];
    };
}

/// Lists the buffers of `Args`, in binding order, and converts between names and positions.
macro_rules! bindings {
    ($args:ident { $($field:ident: $access:ident),+ $(,)? }) => {
        /// Names and access of the bindings after `params`.
        pub const BINDINGS: &[(&str, $crate::recording::Access)] =
            &[$((stringify!($field), $crate::recording::Access::$access)),+];

        impl $args<'_> {
            fn list(&self) -> [$crate::recording::Tensor; BINDINGS.len()] {
                [$(*self.$field),+]
            }
        }

        impl<'a> From<&'a $crate::recording::Command> for $args<'a> {
            fn from(command: &'a $crate::recording::Command) -> Self {
                let mut bindings = command.bindings.iter();
                $(let $field = bindings.next().expect("recorded with every binding");)+
                Self { $($field),+ }
            }
        }
    };
}

/// Where a kernel's text is: `source!("naive/linear.wgsl")`.
macro_rules! source {
    ($file:literal) => {
        ($file, include_str!(concat!("../../shaders/", $file)))
    };
}

kernels! { embed, linear, linear_geglu, key_norm, attention, layer_norm, pool, gather }

type Source = (&'static str, &'static str);
type Formats<'a> = &'a [(&'static str, Format)];

/// Builds a kernel from its parts; the constants and imports are the Spec's, and `formats` has the
/// bindings that are not plain buffers of f32 or integers.  How the elements of a buffer are stored
/// is imported under its name.
fn specialise<S, P>(
    word: &'static str,
    (file, text): Source,
    (bindings, formats): (&[(&str, Access)], Formats),
    spec: S,
    mut imports: Vec<(&'static str, &'static str)>,
    constants: Vec<(&'static str, Const)>,
) -> Kernel<S> {
    let format = |name| formats.iter().find(|(known, _)| *known == name);
    let bindings = bindings
        .iter()
        .map(|&(name, access)| Binding {
            access,
            format: format(name).map_or(Format::F32, |(_, format)| *format),
        })
        .collect();
    let buffers = formats.iter().filter(|(_, format)| !format.texture());
    imports.extend(buffers.map(|&(name, format)| (name, elem(format))));
    let params_bytes = size_of::<P>() as u32;
    let program = Program { word, file, text, imports, constants, bindings, params_bytes };
    Kernel { spec, program: shared(program) }
}

/// Operations that take about as long as reading or writing one element: cards have memory for one
/// in 30 to 100.
const MOVE: f64 = 50.0;

/// Ranges of rows, in order, whose products of `flops` a row hold at most `most` operations, and
/// what they hold.
fn row_slices(rows: u32, flops: f64, most: f64) -> Vec<(Range<u32>, f64)> {
    const STEP: u32 = 64; // whole tiles
    let steps = (0..rows).step_by(STEP as usize);
    let slices = slices(steps.map(|row| f64::from(STEP.min(rows - row)) * flops), most);
    let rows = |range: Range<u32>| range.start * STEP..rows.min(range.end * STEP);
    slices.into_iter().map(|(range, flops)| (rows(range), flops)).collect()
}

/// The one `Arc` of a program: engines compile each once, whoever asks for it.
fn shared(program: Program) -> Arc<Program> {
    static KNOWN: LazyLock<Mutex<HashSet<Arc<Program>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = known.get(&program) {
        return Arc::clone(program);
    }
    let program = Arc::new(program);
    known.insert(Arc::clone(&program));
    program
}

/// Invocations for a kernel that gives a workgroup one row of `d` elements: about 3 vec4s each, 32
/// to 256.
fn row_workgroup(d: u32) -> u32 {
    (d / 12).next_power_of_two().clamp(32, 256)
}

/// How the elements of a buffer are read and written.
fn elem(format: Format) -> &'static str {
    if format.half() { "elem_f16" } else { "elem_f32" }
}

/// The fragment of an activation.
pub fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "identity",
        Activation::Gelu => "gelu",
        Activation::Relu => "relu",
    }
}

/// The fragment by which lanes share what they load.
fn share(lanes: u32) -> &'static str {
    if lanes == 1 { "share_one" } else { "share_many" }
}

/// The functions by which lanes agree.
fn lanes(lanes: u32) -> &'static str {
    if lanes == 1 { "lanes_one" } else { "lanes_many" }
}

/// The tiers that `programs()` covers.
const GPU_TIERS: [Tier; 5] =
    [Tier::Naive, Tier::Tiled, Tier::Texture, Tier::Subgroup(4), Tier::Subgroup(8)];

/// The versions that `programs()` covers.  Texture and subgroup tiers have the same text for f16.
fn gpu_versions() -> Vec<Version> {
    let half = Version { tier: Tier::Tiled, dtype: Dtype::F16 };
    GPU_TIERS.iter().map(|&tier| tier.into()).chain([half]).collect()
}

/// Row lengths that `programs()` covers: the fixtures', the shipped model's, small, base, large.
const WIDTHS: [u32; 6] = [32, 64, 384, 512, 768, 1024];
/// Head widths likewise.
const HEAD_WIDTHS: [u32; 6] = [8, 16, 32, 48, 64, 128];
