//! `y = x·Wᵀ + bias`, or with a residual `y = x·Wᵀ + bias + r`.  Shaders: `shaders/linear.wgsl` and
//! the same in `shaders/naive/`, `shaders/texture/`.

use super::{Tier, Tile, specialise};
use crate::recording::{Kernel, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// How the product is tiled.
    pub tile: Tile,
    /// Whether `r` is added.
    pub residual: bool,
}

impl Spec {
    /// The usual constants of a tier.
    pub fn new(tier: Tier, residual: bool) -> Self {
        Self { tile: Tile::new(tier), residual }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub rows: u32,
    /// N
    pub outer: u32,
    /// K
    pub inner: u32,
}
abi!(Params { rows, outer, inner });

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
    let (file, textures): (_, &[_]) = match spec.tile {
        Tile::Naive { .. } => (source!("naive/linear.wgsl"), &[]),
        Tile::Tiled { .. } => (source!("linear.wgsl"), &[]),
        Tile::Texture { .. } => (source!("texture/linear.wgsl"), &["x", "w", "r", "y"]),
    };
    let mut constants = spec.tile.constants();
    constants.push(("RESIDUAL", spec.residual.into()));
    let bindings = (BINDINGS, textures);
    specialise::<_, Params>("linear", file, bindings, spec, spec.tile.imports(), constants)
}

/// Programs of every tile, with and without residual.
pub fn programs() -> Vec<Program> {
    let specs = Tile::all().into_iter();
    let specs = specs.flat_map(|tile| [true, false].map(|residual| Spec { tile, residual }));
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Appends one dispatch.  N and K must be multiples of 4.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let ([t, k], n) = (args.x.shape2(), args.bias.shape1());
    assert!(k.is_multiple_of(4) && n.is_multiple_of(4), "sizes {n} and {k} of a product");
    args.x.expect([t, k]);
    assert_eq!(args.w.shape.len(), n as usize * k as usize, "weights");
    args.y.expect([t, n]);
    if kernel.spec.residual {
        args.r.expect([t, n]);
    }
    let params = Params { rows: t, outer: n, inner: k };
    rec.dispatch(kernel, params, &args.list(), grid(kernel.spec.tile.groups(t, n)));
}
