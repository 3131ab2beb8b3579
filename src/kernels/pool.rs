//! One vector per span of tokens: mean, truncation, L2 norm.  Shader: `shaders/pool.wgsl`.

use super::{KernelVariant, MOVE, Tier, WIDTHS, row_workgroup, specialise};
use crate::recording::{Const, Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Invocations per workgroup.
    pub wg: u32,
    /// D
    pub d: u32,
    /// Storage format of `x`.
    pub x: Format,
}

impl Spec {
    /// Default constants for rows of `d` elements.
    pub fn new(variant: impl Into<KernelVariant>, d: u32) -> Self {
        Self { wg: row_workgroup(d), d, x: variant.into().stream() }
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
    pub spans: u32,
    /// Number of leading components kept.
    pub dims: u32,
    /// 1: divide by the L2 norm.
    pub normalize: u32,
}
abi!(Params { spans, dims, normalize });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, D\]
    pub x: &'a Tensor,
    /// Spans, \[n, 2\], `u32`: first token and end, exclusive.
    pub spans: &'a Tensor,
    /// Output, \[n, dims\].
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, spans: Read, y: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = if spec.x.texture() { source!("texture/pool.wgsl") } else { source!("pool.wgsl") };
    let bindings = (BINDINGS, &[("x", spec.x)][..]);
    specialise::<_, Params>(KernelId::Pool, file, bindings, spec, vec![], spec.constants())
}

/// Programs of every width, buffers and textures.
pub fn programs() -> Vec<Program> {
    let specs = WIDTHS.iter().flat_map(|&d| [Tier::Tiled, Tier::Texture].map(|t| Spec::new(t, d)));
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, with one workgroup per span; no span may be empty.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args, normalize: bool) {
    let [t, _] = args.x.shape2();
    let [n, dims] = args.y.shape2();
    args.x.expect([t, kernel.spec.d]);
    args.spans.expect([n, 2]);
    assert!(dims <= kernel.spec.d, "{dims} components of {}", kernel.spec.d);
    let params = Params { spans: n, dims, normalize: normalize.into() };
    let flops = MOVE * f64::from(t) * f64::from(kernel.spec.d);
    rec.dispatch(kernel, params, &args.list(), grid(n), flops);
}
