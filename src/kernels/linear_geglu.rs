//! Gated product `h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ)`, both halves in one product.  Shaders:
//! `shaders/linear_geglu.wgsl` and its variants in `shaders/naive/`, `shaders/texture/`,
//! `shaders/matrix/`.

use super::{KernelVariant, PANEL, Tier, Tile, row_slices, specialise};
use crate::{
    activation::Activation,
    elements::{TensorData, reordered},
    recording::{Format, Kernel, KernelId, Program, Recording, Shape, Tensor, grid},
};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Tiling of the product.
    pub tile: Tile,
    /// Storage format of `x`.
    pub x: Format,
    /// Storage format of `w`.
    pub w: Format,
    /// Storage format of `h`.
    pub h: Format,
    /// True if the first half of the matrix is the gate; on a GPU [`arrange`] has already reordered
    /// the halves for the kernel.
    pub gate_first: bool,
    /// Activation of the gate.
    pub activation: Activation,
}

impl Spec {
    /// Default constants of a variant.
    pub fn new(
        variant: impl Into<KernelVariant>,
        gate_first: bool,
        activation: Activation,
    ) -> Self {
        let variant = variant.into();
        let x = variant.stream();
        let w = variant.weights();
        let h = variant.wide();
        Self { tile: Tile::new(variant.tier), x, w, h, gate_first, activation }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// First row of the dispatch.
    pub first: u32,
    /// End of the rows, exclusive; at most T.
    pub rows: u32,
    /// 2F
    pub outer: u32,
    /// K
    pub inner: u32,
    /// 1: the first half of the matrix is the gate.  Read only on the CPU, where the matrix keeps
    /// its natural order.
    pub gate_first: u32,
}
abi!(Params { first, rows, outer, inner, gate_first });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, K\]
    pub x: &'a Tensor,
    /// Weights, \[2F, K\], in the order of [`arrange`].
    pub w: &'a Tensor,
    /// Output, \[T, F\].
    pub h: &'a Tensor,
}
bindings!(Args { x: Read, w: Read, h: Write });

/// Reorders \[2F, K\] for the kernels of a tier.  On a GPU four rows of the gate alternate with the
/// four rows of the other half that they multiply, so that one invocation has both; on the CPU the
/// halves stay separate.
pub fn arrange(
    tier: Tier,
    gate_first: bool,
    w: TensorData<'_>,
    [n, k]: [u32; 2],
) -> (Shape, TensorData<'_>) {
    let layout = Tile::new(tier).layout();
    let half = w.len() / 2;
    if matches!(tier, Tier::Reference | Tier::Blocked) {
        if (n as usize / 2).is_multiple_of(PANEL) {
            return layout.arrange(w, [n, k]); // each panel has rows of one half only
        }
        let halves = [0..half, half..w.len()];
        let halves = halves.map(|half| layout.arrange(w.slice(half), [n / 2, k]).1);
        return ([n, k].into(), TensorData::concat(&halves));
    }
    let mixed = reordered!(&w, w => {
        let (first, second) = w.split_at(half);
        let (gate, up) = if gate_first { (first, second) } else { (second, first) };
        let fours = gate.chunks_exact(4 * k as usize).zip(up.chunks_exact(4 * k as usize));
        fours.flat_map(|(gate, up)| [gate, up]).collect::<Vec<_>>().concat()
    });
    layout.arrange(mixed, [n, k])
}

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = match spec.tile {
        Tile::Naive { .. } => source!("naive/linear_geglu.wgsl"),
        Tile::Tiled { .. } => source!("linear_geglu.wgsl"),
        Tile::Texture { .. } => source!("texture/linear_geglu.wgsl"),
        Tile::Matrix { .. } => source!("matrix/linear_geglu.wgsl"),
    };
    let mut imports = spec.tile.imports();
    imports.push(("activation", spec.activation.import()));
    let formats = [("x", spec.x), ("w", spec.w), ("h", spec.h)];
    let bindings = (BINDINGS, &formats[..]);
    let constants = spec.tile.constants();
    specialise::<_, Params>(KernelId::LinearGeglu, file, bindings, spec, imports, constants)
}

/// Programs of every variant, tile and activation.
pub fn programs() -> Vec<Program> {
    let specs = Tile::all().flat_map(|(variant, tile)| {
        let activations = [Activation::Gelu, Activation::Relu];
        activations.map(|activation| Spec { tile, ..Spec::new(variant, true, activation) })
    });
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, or one per slice of the rows.  F and K must be multiples of 4.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let ([t, k], [_, f]) = (args.x.shape2(), args.h.shape2());
    assert!(k.is_multiple_of(4) && f.is_multiple_of(4), "sizes {f} and {k} of a product");
    args.x.expect([t, k]);
    assert_eq!(args.w.shape.len(), 2 * f as usize * k as usize, "weights");
    args.h.expect([t, f]);
    let gate_first = kernel.spec.gate_first.into();
    for (rows, flops) in row_slices(t, 4.0 * f64::from(f) * f64::from(k), rec.limits.product) {
        let grid = grid(kernel.spec.tile.groups(rows.len() as u32, 2 * f));
        let params =
            Params { first: rows.start, rows: rows.end, outer: 2 * f, inner: k, gate_first };
        rec.dispatch(kernel, params, &args.list(), grid, flops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_alternate_by_fours() {
        let w: Vec<f32> = (0..16).map(|n| n as f32).collect(); // F = 8, K = 1
        let arrange = |tier, gate_first| {
            arrange(tier, gate_first, w.clone().into(), [16, 1]).1.widened().into_owned()
        };
        let arranged = arrange(Tier::Naive, true);
        assert_eq!(arranged[..8], [0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0]);
        let arranged = arrange(Tier::Tiled, false);
        assert_eq!(arranged[8..], [12.0, 13.0, 14.0, 15.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(arrange(Tier::Reference, true), w);
    }
}
