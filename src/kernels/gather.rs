//! Gathers rows of a matrix.  Shader: `shaders/gather.wgsl`.

use super::{KernelVariant, MOVE, Tier, WIDTHS, specialise};
use crate::recording::{Const, Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Invocations per workgroup.
    pub wg: u32,
    /// D
    pub d: u32,
    /// Storage format of `x` and `y`.
    pub x: Format,
}

impl Spec {
    /// Default constants for rows of `d` elements of the residual stream.
    pub fn new(variant: impl Into<KernelVariant>, d: u32) -> Self {
        Self { wg: 64, d, x: variant.into().stream() }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![("WG", self.wg.into()), ("D", self.d.into())]
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// n
    pub count: u32,
}
abi!(Params { count });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, D\]
    pub x: &'a Tensor,
    /// Rows of `x` to gather, \[n\], `u32`.
    pub rows: &'a Tensor,
    /// Output, \[n, D\].
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, rows: Read, y: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file =
        if spec.x.texture() { source!("texture/gather.wgsl") } else { source!("gather.wgsl") };
    let bindings = (BINDINGS, &[("x", spec.x), ("y", spec.x)][..]);
    specialise::<_, Params>(KernelId::Gather, file, bindings, spec, vec![], spec.constants())
}

/// Programs of every width, buffers and textures.
pub fn programs() -> Vec<Program> {
    let specs = WIDTHS.iter().flat_map(|&d| [Tier::Tiled, Tier::Texture].map(|t| Spec::new(t, d)));
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, with one invocation per four elements.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let Spec { wg, d, .. } = kernel.spec;
    let ([t, _], count) = (args.x.shape2(), args.rows.shape1());
    args.x.expect([t, d]);
    args.y.expect([count, d]);
    let flops = 2.0 * MOVE * f64::from(count) * f64::from(d);
    let groups = (u64::from(count) * u64::from(d / 4)).div_ceil(u64::from(wg));
    rec.dispatch(kernel, Params { count }, &args.list(), grid(groups as u32), flops);
}
