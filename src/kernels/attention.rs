//! Attention, `softmax(q·kᵀ/√E + b_hij)·v`.  Shaders: `shaders/attention.wgsl` and its
//! variants in `shaders/any_width/`, `shaders/naive/`, `shaders/texture/`.

use super::{HEAD_WIDTHS, KernelVariant, Tier, elem, gpu_versions, lanes, share, specialise};
use crate::recording::{Const, Format, Kernel, KernelId, Program, Recording, Tensor, grid, slices};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// E
    pub e: u32,
    /// Storage format of `q`, `k`, `v` and `context`.
    pub format: Format,
    /// Tiling.
    pub tile: Tiling,
    /// Biases of the scores.
    pub bias: Bias,
}

/// Biases of the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bias {
    /// ALiBi: slope times distance, of a slope for each head.
    Alibi,
    /// A number for each head and distance ([`relative_bias`](super::relative_bias)).
    Table {
        /// Distance from which the numbers are equal.
        reach: u32,
    },
}

impl Bias {
    /// Numbers for each head.
    pub fn width(self) -> u32 {
        match self {
            Self::Alibi => 1,
            Self::Table { reach } => 2 * reach + 1,
        }
    }

    fn reach(self) -> u32 {
        match self {
            Self::Alibi => 0,
            Self::Table { reach } => reach,
        }
    }

    fn import(self) -> &'static str {
        match self {
            Self::Alibi => "bias_alibi",
            Self::Table { .. } => "bias_table",
        }
    }
}

/// Tiling of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tiling {
    /// One query per invocation, keys one at a time.
    Naive,
    /// Tiles of both products in workgroup memory and registers; heads of 64.
    Tiled {
        /// Queries per invocation: 4 or 8.
        rows: u32,
    },
    /// One query per invocation, keys staged in workgroup memory; heads of any width.
    Staged {
        /// Keys staged at a time.
        bk: u32,
    },
    /// A few queries and keys per invocation at a time, all operands in textures.
    Texture {
        /// Lanes that share their loads; 1 for no sharing.
        s: u32,
        /// Queries per invocation.
        tq: u32,
        /// Keys at a time.
        tk: u32,
    },
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Naive => f.write_str("a query an invocation"),
            Self::Tiled { rows } => write!(f, "64 queries, {rows} an invocation, 16 keys"),
            Self::Staged { bk } => write!(f, "64 queries, {bk} keys staged"),
            Self::Texture { s, tq, tk } => {
                write!(f, "{tq} queries × {tk} keys")?;
                if s > 1 { write!(f, ", {s} share") } else { Ok(()) }
            }
        }
    }
}

impl Spec {
    /// Default constants for heads of `e` elements: K and V tiles together take at most 16 KiB.
    pub fn new(variant: impl Into<KernelVariant>, e: u32) -> Self {
        let variant = variant.into();
        let tier = variant.tier;
        let tile = match tier {
            Tier::Reference | Tier::Blocked | Tier::Naive => Tiling::Naive,
            Tier::Tiled | Tier::Matrix { .. } if e == 64 => Tiling::Tiled { rows: 4 },
            Tier::Tiled | Tier::Matrix { .. } => {
                let most = if e < 8 { TILE } else { 32 };
                Tiling::Staged { bk: (2048 / e).next_power_of_two().min(most) }
            }
            Tier::Texture | Tier::Subgroup(_) => {
                let s = tier.lanes();
                // Software drivers keep four queries and their outputs in cache; a GPU has
                // registers for one.
                let tq = if s > 1 { 4 } else { 1 };
                Tiling::Texture { s, tq, tk: (2 * s).max(8) }
            }
        };
        Self { e, format: variant.wide(), tile, bias: Bias::Alibi }
    }

    /// Tiles for a tuning search, the default first.
    pub fn candidates(tier: Tier, e: u32) -> Vec<Tiling> {
        let usual = Self::new(tier, e).tile;
        let s = tier.lanes();
        let texture = |(tq, tk)| Tiling::Texture { s, tq, tk };
        let other: Vec<_> = match (tier, usual) {
            (Tier::Texture, _) => [(1, 16), (2, 8), (4, 8)].map(texture).into(),
            (Tier::Subgroup(_), _) => [(2, 2 * s), (4, 4 * s), (2, 4 * s)].map(texture).into(),
            (_, Tiling::Tiled { .. }) => vec![Tiling::Tiled { rows: 8 }],
            _ => vec![],
        };
        let other = other.into_iter().filter(|tile| *tile != usual);
        std::iter::once(usual).chain(other).collect()
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = match self.tile {
            Tiling::Naive => vec![("WG", TILE)],
            Tiling::Tiled { rows } => vec![("R", rows)],
            Tiling::Staged { bk } => vec![("WG", TILE), ("BK", bk)],
            Tiling::Texture { s, tq, tk } => {
                vec![("TILE", TILE), ("S", s), ("TQ", tq), ("TK", tk)]
            }
        };
        constants.push(("E", self.e));
        constants.push(("REACH", self.bias.reach()));
        constants.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

/// Queries per workgroup, hence per entry of the tile list.
pub const TILE: u32 = 64;

/// Maximum head width: tiles fit into 16 KiB, and a query and its output fit into registers.
pub const MAX_HEAD_WIDTH: u32 = 128;

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// First entry of the tile list in the dispatch.
    pub first: u32,
    /// End of the entries, exclusive.
    pub tiles: u32,
    /// H
    pub heads: u32,
    /// Factor of q·k: 1/√E.
    pub scale: f32,
    /// Logarithm of the share of a row's mass to skip at most on each side; above 0 for none.
    pub skip: f32,
    /// First column of `q` in its rows, in vec4s.
    pub q_column: u32,
    /// First column of `k`.
    pub k_column: u32,
    /// First column of `v`.
    pub v_column: u32,
    /// Stride of the rows of `q`, in vec4s.
    pub q_step: u32,
    /// Stride of the rows of `k`.
    pub k_step: u32,
    /// Stride of the rows of `v`.
    pub v_step: u32,
}
abi!(Params {
    first,
    tiles,
    heads,
    scale,
    skip,
    q_column,
    k_column,
    v_column,
    q_step,
    k_step,
    v_step
});

/// Buffers, in binding order.
pub struct Args<'a> {
    /// Queries, \[T, D\]; may be columns of a wider tensor.
    pub q: &'a Tensor,
    /// Keys, likewise.
    pub k: &'a Tensor,
    /// Values, likewise.
    pub v: &'a Tensor,
    /// Biases of the scores, \[H·[`Bias::width`]\]: ALiBi's slopes, or a table.
    pub biases: &'a Tensor,
    /// Tile list, \[n, 4\], `u32`.  For each tile of [`TILE`] queries: the first query, the end of
    /// the sequence, its first key and the end of its keys.
    pub tiles: &'a Tensor,
    /// Maximum norm of the keys of each tile, \[n, H\], from `key_norm`.
    pub norms: &'a Tensor,
    /// Output, \[T, D\].
    pub context: &'a Tensor,
}
bindings!(Args {
    q: Read,
    k: Read,
    v: Read,
    biases: Read,
    tiles: Read,
    norms: Read,
    context: Write
});

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let (file, mut imports) = match spec.tile {
        Tiling::Naive => (source!("naive/attention.wgsl"), vec![]),
        Tiling::Tiled { .. } => (source!("attention.wgsl"), vec![("elem", elem(spec.format))]),
        Tiling::Staged { .. } => {
            (source!("any_width/attention.wgsl"), vec![("elem", elem(spec.format))])
        }
        Tiling::Texture { s, .. } => {
            (source!("texture/attention.wgsl"), vec![("share", share(s)), ("lanes", lanes(s))])
        }
    };
    imports.push(("bias", spec.bias.import()));
    let formats = ["q", "k", "v", "context"].map(|name| (name, spec.format));
    let bindings = (BINDINGS, &formats[..]);
    let constants = spec.constants();
    specialise::<_, Params>(KernelId::Attention, file, bindings, spec, imports, constants)
}

/// Programs of every tier and head width, with all tiles of a tuning search.
pub fn programs() -> Vec<Program> {
    let variants = gpu_versions();
    let tiles = |variant: KernelVariant, e| {
        let candidates = Spec::candidates(variant.tier, e).into_iter();
        candidates.map(move |tile| Spec { tile, ..Spec::new(variant, e) })
    };
    let of = |&e| variants.iter().flat_map(move |&variant| tiles(variant, e));
    let alibi = HEAD_WIDTHS.iter().flat_map(of);
    // T5's heads are 64 wide.
    let bias = Bias::Table { reach: 91 };
    let table = variants.iter().flat_map(|&variant| tiles(variant, 64));
    let table = table.map(|spec| Spec { bias, ..spec });
    let specs = alibi.chain(table);
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Default share of a softmax row that may be skipped: below the rounding of f32.
pub const SKIP_EPS: f32 = 1.0 / (1 << 24) as f32;

/// [`Params::skip`] for skipping at most the share `eps` of a row's mass; 0 skips nothing.
pub fn skip(eps: f32) -> f32 {
    if eps > 0.0 { (eps / 2.0).ln() } else { 1.0 }
}

/// Factor of the scores before the bias: 1/√E.
pub fn scale(e: u32) -> f32 {
    1.0 / (e as f32).sqrt()
}

/// Records one dispatch, or one per slice of the tile list, with one workgroup per tile and head.
/// `scale` is the factor of the scores, usually [`scale`]; `skip` comes from [`skip`]; `keys` has
/// the number of keys for each tile.
pub fn record(
    rec: &mut Recording,
    kernel: &Kernel<Spec>,
    args: Args,
    [scale, skip]: [f32; 2],
    keys: &[u32],
) {
    let [t, d] = args.q.shape2();
    let Spec { e, bias, .. } = kernel.spec;
    assert!(d.is_multiple_of(e), "heads of {e} in rows of {d}");
    let heads = d / e;
    args.biases.expect([heads * bias.width()]);
    for tensor in [args.q, args.k, args.v] {
        tensor.expect_columns([t, d]);
    }
    args.context.expect([t, d]);
    let [tiles, _] = args.tiles.shape2();
    args.tiles.expect([tiles, 4]);
    args.norms.expect([tiles, heads]);
    assert_eq!(keys.len(), tiles as usize, "counts of keys");
    let mut params = Params {
        first: 0,
        tiles,
        heads,
        scale,
        skip,
        q_column: args.q.column / 4,
        k_column: args.k.column / 4,
        v_column: args.v.column / 4,
        q_step: args.q.step / 4,
        k_step: args.k.step / 4,
        v_step: args.v.step / 4,
    };
    // Upper bound, without skipped keys.
    let costs = keys.iter().map(|&keys| 4.0 * f64::from(d * TILE) * f64::from(keys));
    for (range, flops) in slices(costs, rec.limits.attention) {
        (params.first, params.tiles) = (range.start, range.end);
        let [x, y, _] = grid(range.len() as u32);
        // Software drivers give each core one run of workgroups: heads that skip much must not be
        // adjacent.  On GPUs the tiles of one head share their loads.
        let grid = match kernel.spec.tile {
            Tiling::Texture { .. } => [heads, x, y],
            Tiling::Naive | Tiling::Tiled { .. } | Tiling::Staged { .. } => [x, y, heads],
        };
        rec.dispatch(kernel, params, &args.list(), grid, flops);
    }
}
