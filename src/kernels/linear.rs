//! `y = activation(x·Wᵀ + bias)`, or with a residual `y = activation(x·Wᵀ + bias) + r`.  Shaders:
//! `shaders/linear.wgsl` and the same in `shaders/naive/`, `shaders/texture/`, `shaders/matrix/`.

use super::{row_slices, Tile, Version, specialise};
use crate::{
    recording::{Format, Kernel, Program, Recording, Tensor, grid},
    reference::Activation,
};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// How the product is tiled.
    pub tile: Tile,
    /// How `x` is stored.
    pub x: Format,
    /// How `w` is stored.
    pub w: Format,
    /// How `y` is stored; `r` is like the residual stream.
    pub y: Format,
    /// Of the product and its bias.
    pub activation: Activation,
    /// Whether `r` is added after it.
    pub residual: bool,
}

impl Spec {
    /// The usual constants of a version for a product from the residual stream into what is only
    /// read once, or back with a residual; no activation.
    pub fn new(version: impl Into<Version>, residual: bool) -> Self {
        let version = version.into();
        let (x, y) = match residual {
            false => (version.stream(), version.wide()),
            true => (version.wide(), version.stream()),
        };
        let (tile, activation) = (Tile::new(version.tier), Activation::Identity);
        Self { tile, x, w: version.weights(), y, activation, residual }
    }

    /// How `r` is stored: as the residual stream, or as the `x` that stands in for it.
    fn r(&self) -> Format {
        if self.residual { self.y } else { self.x }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Row that the dispatch begins with.
    pub first: u32,
    /// Row that it ends before, at most T.
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
    /// \[N, K\], in the order of [`super::Layout`]
    pub w: &'a Tensor,
    /// \[N\]
    pub bias: &'a Tensor,
    /// \[T, N\]; `x` again where the Spec has no residual.
    pub r: &'a Tensor,
    /// \[T, N\], written
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, w: Read, bias: Read, r: Read, y: Write });

/// Makes a Spec runnable.
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
    imports.push(("activation", super::activation(spec.activation)));
    let bindings = (BINDINGS, &formats[..]);
    specialise::<_, Params>("linear", file, bindings, spec, imports, constants)
}

/// Programs of every version and tile: with and without residual, and with an activation.
pub fn programs() -> Vec<Program> {
    let specs = Tile::all().flat_map(|(version, tile)| {
        let [add, plain] =
            [true, false].map(|residual| Spec { tile, ..Spec::new(version, residual) });
        [add, plain, Spec { activation: Activation::Gelu, ..plain }]
    });
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Appends one dispatch, or one for each slice of the rows.  N and K must be multiples of 4.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let ([t, k], n) = (args.x.shape2(), args.bias.shape1());
    assert!(k.is_multiple_of(4) && n.is_multiple_of(4), "sizes {n} and {k} of a product");
    args.x.expect([t, k]);
    assert_eq!(args.w.shape.len(), n as usize * k as usize, "weights");
    args.y.expect([t, n]);
    if kernel.spec.residual {
        args.r.expect([t, n]);
    }
    for (rows, flops) in row_slices(t, 2.0 * f64::from(n) * f64::from(k), rec.most) {
        let grid = grid(kernel.spec.tile.groups(rows.len() as u32, n));
        let params = Params { first: rows.start, rows: rows.end, outer: n, inner: k };
        rec.dispatch(kernel, params, &args.list(), grid, flops);
    }
}
