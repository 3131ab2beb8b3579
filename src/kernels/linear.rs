//! Matrix product `y = activation(x·Wᵀ + bias)`, or with a residual `y = activation(x·Wᵀ + bias +
//! r)`.  Shaders: `shaders/linear.wgsl`; variants in `shaders/{naive,texture,matrix}/`.

use super::{KernelVariant, Tile, row_slices, specialise};
use crate::{
    activation::Activation,
    recording::{Format, Kernel, KernelId, Program, Recording, Tensor, grid},
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
    /// Storage format of `y` and `r`.
    pub y: Format,
    /// Activation after product, bias and residual.
    pub activation: Activation,
    /// Add `r` before the activation.
    pub residual: bool,
}

impl Spec {
    /// Default constants of a variant for a product from the residual stream into a temporary, or
    /// back with a residual; no activation.
    pub fn new(variant: impl Into<KernelVariant>, residual: bool) -> Self {
        let variant = variant.into();
        let (x, y) = if residual {
            (variant.wide(), variant.stream())
        } else {
            (variant.stream(), variant.wide())
        };
        let tile = Tile::new(variant.tier);
        let activation = Activation::Identity;
        Self { tile, x, w: variant.weights(), y, activation, residual }
    }

    /// Storage format of `r`, or that of the `x` bound in its place.
    fn r(&self) -> Format {
        if self.residual { self.y } else { self.x }
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
    /// N
    pub outer: u32,
    /// K
    pub inner: u32,
}
abi!(Params { first, rows, outer, inner });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, K\]
    pub x: &'a Tensor,
    /// Weights, \[N, K\], in the order of [`super::Layout`].
    pub w: &'a Tensor,
    /// \[N\]
    pub bias: &'a Tensor,
    /// Residual, \[T, N\]; `x` again if the Spec has no residual.
    pub r: &'a Tensor,
    /// Output, \[T, N\].
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, w: Read, bias: Read, r: Read, y: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = match spec.tile {
        Tile::Naive { .. } => source!("naive/linear.wgsl"),
        Tile::Tiled { .. } => source!("linear.wgsl"),
        Tile::Texture { .. } => source!("texture/linear.wgsl"),
        Tile::Matrix { .. } => source!("matrix/linear.wgsl"),
    };
    let mut constants = spec.tile.constants();
    constants.push(("RESIDUAL", spec.residual.into()));
    let formats = [("x", spec.x), ("w", spec.w), ("y", spec.y), ("r", spec.r())];
    let mut imports = spec.tile.imports();
    imports.push(("activation", spec.activation.import()));
    let bindings = (BINDINGS, &formats[..]);
    specialise::<_, Params>(KernelId::Linear, file, bindings, spec, imports, constants)
}

/// Programs of every variant and tile: with and without residual, and with an activation.
pub fn programs() -> Vec<Program> {
    let specs = Tile::all().flat_map(|(variant, tile)| {
        let [add, plain] =
            [true, false].map(|residual| Spec { tile, ..Spec::new(variant, residual) });
        [add, plain, Spec { activation: Activation::Gelu, ..plain }]
    });
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, or one per slice of the rows.  N and K must be multiples of 4.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let ([t, k], n) = (args.x.shape2(), args.bias.shape1());
    assert!(k.is_multiple_of(4) && n.is_multiple_of(4), "sizes {n} and {k} of a product");
    args.x.expect([t, k]);
    assert_eq!(args.w.shape.len(), n as usize * k as usize, "weights");
    args.y.expect([t, n]);
    if kernel.spec.residual {
        args.r.expect([t, n]);
    }
    for (rows, flops) in row_slices(t, 2.0 * f64::from(n) * f64::from(k), rec.limits.product) {
        let grid = grid(kernel.spec.tile.groups(rows.len() as u32, n));
        let params = Params { first: rows.start, rows: rows.end, outer: n, inner: k };
        rec.dispatch(kernel, params, &args.list(), grid, flops);
    }
}
