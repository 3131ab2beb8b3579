//! Maximum norm of the keys of each tile and head, with which `attention` decides which keys to
//! skip.  Shaders: `shaders/key_norm.wgsl`, `shaders/texture/key_norm.wgsl`.

use super::{Dtype, HEAD_WIDTHS, KernelVariant, MOVE, Tier, attention::TILE, elem, specialise};
use crate::recording::{Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// E
    pub e: u32,
    /// Storage format of `k`.
    pub k: Format,
}

impl Spec {
    /// The constants for heads of `e` elements.
    pub fn new(variant: impl Into<KernelVariant>, e: u32) -> Self {
        Self { e, k: variant.into().wide() }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of entries in the tile list.
    pub tiles: u32,
    /// H
    pub heads: u32,
    /// First column of `k` in its rows, in vec4s.
    pub k_column: u32,
    /// Stride of the rows of `k`, in vec4s.
    pub k_step: u32,
}
abi!(Params { tiles, heads, k_column, k_step });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// Keys, \[T, D\]; may be columns of a wider tensor.
    pub k: &'a Tensor,
    /// Tile list of `attention`, \[n, 4\], `u32`, one entry per tile of [`TILE`] tokens.
    pub tiles: &'a Tensor,
    /// Output, \[n, H\].
    pub norms: &'a Tensor,
}
bindings!(Args { k: Read, tiles: Read, norms: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file =
        if spec.k.texture() { source!("texture/key_norm.wgsl") } else { source!("key_norm.wgsl") };
    let imports = vec![("elem", elem(spec.k))];
    let constants = vec![("WG", WG.into()), ("TILE", TILE.into()), ("E", spec.e.into())];
    let bindings = (BINDINGS, &[("k", spec.k)][..]);
    specialise::<_, Params>(KernelId::KeyNorm, file, bindings, spec, imports, constants)
}

/// Invocations per workgroup.
const WG: u32 = 64;

/// Programs of every head width, buffers and textures.
pub fn programs() -> Vec<Program> {
    let half = KernelVariant::new(Tier::Tiled, Dtype::F16);
    let variants = [Tier::Tiled.into(), Tier::Texture.into(), half];
    let specs = HEAD_WIDTHS.iter().flat_map(|&e| variants.map(|variant| Spec::new(variant, e)));
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, with one invocation per tile and head.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let ([t, d], [tiles, heads]) = (args.k.shape2(), args.norms.shape2());
    assert_eq!(d, heads * kernel.spec.e, "width");
    args.k.expect_columns([t, d]);
    args.tiles.expect([tiles, 4]);
    args.norms.expect([tiles, heads]);
    let k_column = args.k.column / 4;
    let k_step = args.k.step / 4;
    let params = Params { tiles, heads, k_column, k_step };
    let flops = MOVE * f64::from(t) * f64::from(d);
    rec.dispatch(kernel, params, &args.list(), grid((tiles * heads).div_ceil(WG)), flops);
}
