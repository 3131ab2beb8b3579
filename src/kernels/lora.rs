//! Low-rank product of the adapter that each token chooses (Hu et al. 2021, arXiv:2106.09685), with
//! or without a residual.  Shaders: `shaders/lora.wgsl`, `shaders/texture/lora.wgsl`.

use super::{Dtype, KernelVariant, MOVE, Tier, specialise};
use crate::recording::{Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// R, a multiple of 4
    pub rank: u32,
    /// Storage format of `x`.
    pub x: Format,
    /// Storage format of `r` and `y`; both are textures or neither is.
    pub y: Format,
    /// Add `r`.
    pub residual: bool,
}

impl Spec {
    /// Constants beside a product from the residual stream into a temporary, or back with a
    /// residual.
    pub fn new(variant: impl Into<KernelVariant>, rank: u32, residual: bool) -> Self {
        let variant = variant.into();
        let (x, y) = if residual {
            (variant.wide(), variant.stream())
        } else {
            (variant.stream(), variant.wide())
        };
        Self { rank, x, y, residual }
    }

    /// Constants for rows in buffers of f32, in every tier.
    pub fn buffers(rank: u32) -> Self {
        Self { rank, x: Format::F32, y: Format::F32, residual: false }
    }

    /// Storage format of `r`: that of the `x` bound in its place if there is no residual.
    fn r(&self) -> Format {
        if self.residual { self.y } else { self.x }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub tokens: u32,
    /// K
    pub inner: u32,
    /// N
    pub outer: u32,
}
abi!(Params { tokens, inner, outer });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, K\]
    pub x: &'a Tensor,
    /// R rows for each adapter, \[n·R, K\]
    pub a: &'a Tensor,
    /// The same, \[n·R, N\]
    pub b: &'a Tensor,
    /// Adapter of each token, less than n, \[T\], `u32`.
    pub adapters: &'a Tensor,
    /// Residual, \[T, N\]; `x` again if the Spec has no residual.
    pub r: &'a Tensor,
    /// Output, \[T, N\].
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, a: Read, b: Read, adapters: Read, r: Read, y: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = if spec.y.texture() { source!("texture/lora.wgsl") } else { source!("lora.wgsl") };
    let constants =
        vec![("WG", WG.into()), ("R", spec.rank.into()), ("RESIDUAL", spec.residual.into())];
    let bindings = (BINDINGS, &[("x", spec.x), ("r", spec.r()), ("y", spec.y)][..]);
    specialise::<_, Params>(KernelId::Lora, file, bindings, spec, vec![], constants)
}

/// Invocations per workgroup.
const WG: u32 = 64;

/// Programs of the published models' ranks, buffers and textures, with and without a residual.
pub fn programs() -> Vec<Program> {
    let half = KernelVariant::new(Tier::Tiled, Dtype::F16);
    let variants = [Tier::Tiled.into(), Tier::Texture.into(), half];
    let specs = [4, 8].into_iter().flat_map(|rank| {
        variants.into_iter().flat_map(move |variant| {
            [true, false].map(|residual| Spec::new(variant, rank, residual))
        })
    });
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, with one workgroup per token.  K and N must be multiples of 4.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let Spec { rank, .. } = kernel.spec;
    let ([t, k], [rows, n]) = (args.x.shape2(), args.b.shape2());
    assert!(k.is_multiple_of(4) && n.is_multiple_of(4), "sizes {n} and {k} of a product");
    assert!(rank.is_multiple_of(4) && rows.is_multiple_of(rank), "{rows} rows of rank {rank}");
    args.x.expect([t, k]);
    args.a.expect([rows, k]);
    args.b.expect([rows, n]);
    args.adapters.expect([t]);
    args.y.expect([t, n]);
    if kernel.spec.residual {
        args.r.expect([t, n]);
    }
    let params = Params { tokens: t, inner: k, outer: n };
    let flops = (2.0 * MOVE + 2.0 * f64::from(rank)) * f64::from(t) * f64::from(k + n);
    rec.dispatch(kernel, params, &args.list(), grid(t), flops);
}
