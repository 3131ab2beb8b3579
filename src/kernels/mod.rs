//! Host side of the kernels: one file per shader, of the same name.
//!
//! Each file has the same parts: `Spec` (constants fixed when the pipeline is built), `Params`
//! (values fixed per dispatch), `Args` (buffers, by name), [`kernel`](layer_norm::kernel) (creates
//! a kernel from a `Spec`) and [`record`](layer_norm::record) (records one dispatch, with shape
//! checks). `tests/abi/main.rs` compares every file with its shader.

pub mod alibi;
mod config;
pub mod relative_bias;
mod tier;
mod tile;
pub mod work_list;

use crate::recording::{Access, Binding, Const, Format, Kernel, KernelId, Program, slices};
pub use config::{KernelConfig, Tiles};
use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};
pub use tier::{Dtype, KernelVariant, Tier};
pub use tile::{Layout, PANEL, Tile};

/// Interface of a kernel, as declared by its host file; `tests/abi/main.rs` compares it with the
/// shader's reflection.
pub struct Interface {
    /// The kernel.
    pub kernel: KernelId,
    /// Names and byte offsets of the fields of `Params`.
    pub params: &'static [(&'static str, usize)],
    /// Size of `Params` in bytes.
    pub params_bytes: usize,
    /// Names and access of the bindings after `params`.
    pub bindings: &'static [(&'static str, Access)],
    /// A program for each tier and each width of the published models.
    pub programs: fn() -> Vec<Program>,
}

impl Interface {
    /// Name of the kernel.
    pub fn name(&self) -> &'static str {
        self.kernel.name()
    }
}

/// Interface of a kernel, from its host file.
macro_rules! interface {
    ($kernel:ident, $module:ident) => {
        Interface {
            kernel: KernelId::$kernel,
            params: $module::FIELDS,
            params_bytes: size_of::<$module::Params>(),
            bindings: $module::BINDINGS,
            programs: $module::programs,
        }
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

/// Lists the buffers of `Args` in binding order, and converts between names and positions.
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

/// Path and text of a kernel: `source!("naive/linear.wgsl")`.
macro_rules! source {
    ($file:literal) => {
        ($file, include_str!(concat!("../../shaders/", $file)))
    };
}

pub mod attention;
pub mod embed;
pub mod gather;
pub mod key_norm;
pub mod layer_norm;
pub mod linear;
pub mod linear_geglu;
pub mod lora;
pub mod pool;
pub mod rope;

/// Interfaces of all kernels.
pub const ALL: &[Interface] = &[
    interface!(Embed, embed),
    interface!(Linear, linear),
    interface!(LinearGeglu, linear_geglu),
    interface!(Lora, lora),
    interface!(Rope, rope),
    interface!(KeyNorm, key_norm),
    interface!(Attention, attention),
    interface!(LayerNorm, layer_norm),
    interface!(Pool, pool),
    interface!(Gather, gather),
];

type Source = (&'static str, &'static str);
type Formats<'a> = &'a [(&'static str, Format)];

/// Builds a kernel from its parts.  The constants and imports come from the Spec; `formats` has the
/// bindings other than plain buffers of f32 or integers.  The storage of a buffer's elements is
/// imported under the buffer's name.
fn specialise<S, P>(
    kernel: KernelId,
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
    let program = Program { kernel, file, text, imports, constants, bindings, params_bytes };
    Kernel { spec, program: shared(program) }
}

/// Operations that take about as long as reading or writing one element: GPUs read or write one per
/// 30 to 100 operations.
const MOVE: f64 = 50.0;

/// Splits rows of `flops` operations each into ranges of at most `most` operations; returns each
/// range with its operations.
fn row_slices(rows: u32, flops: f64, most: f64) -> Vec<(Range<u32>, f64)> {
    const STEP: u32 = 64; // whole tiles
    let steps = (0..rows).step_by(STEP as usize);
    let slices = slices(steps.map(|row| f64::from(STEP.min(rows - row)) * flops), most);
    let rows = |range: Range<u32>| range.start * STEP..rows.min(range.end * STEP);
    slices.into_iter().map(|(range, flops)| (rows(range), flops)).collect()
}

/// Shares one `Arc` per program, so that engines compile each program once.
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

/// Invocations of a workgroup for one row of `d` elements: about 3 vec4s each, 32 to 256.
fn row_workgroup(d: u32) -> u32 {
    (d / 12).next_power_of_two().clamp(32, 256)
}

/// Import for reading and writing the elements of a buffer.
fn elem(format: Format) -> &'static str {
    match format {
        Format::F16 | Format::Texture16 => "elem_f16",
        Format::BF16 => "elem_bf16",
        Format::F32 | Format::Texture => "elem_f32",
    }
}

/// Import for sharing loads between lanes.
fn share(lanes: u32) -> &'static str {
    if lanes == 1 { "share_one" } else { "share_many" }
}

/// Import for agreement between lanes.
fn lanes(lanes: u32) -> &'static str {
    if lanes == 1 { "lanes_one" } else { "lanes_many" }
}

/// Tiers covered by `programs()`.
const GPU_TIERS: [Tier; 5] =
    [Tier::Naive, Tier::Tiled, Tier::Texture, Tier::Subgroup(4), Tier::Subgroup(8)];

/// Versions covered by `programs()`.  Texture and subgroup tiers have the same text for f16.
fn gpu_versions() -> Vec<KernelVariant> {
    let half = KernelVariant::new(Tier::Tiled, Dtype::F16);
    GPU_TIERS.iter().map(|&tier| tier.into()).chain([half]).collect()
}

/// Row lengths covered by `programs()`: the fixtures', the shipped model's, small, base, large.
const WIDTHS: [u32; 6] = [32, 64, 384, 512, 768, 1024];
/// Head widths covered by `programs()`, of the same models.
const HEAD_WIDTHS: [u32; 6] = [8, 16, 32, 48, 64, 128];
