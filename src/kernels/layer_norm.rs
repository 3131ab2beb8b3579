//! Residual add and LayerNorm or RMSNorm: `y = LN(x + r)`.  Shader: `shaders/layer_norm.wgsl`.

use super::{Dtype, KernelVariant, MOVE, Tier, WIDTHS, row_workgroup, specialise};
use crate::recording::{Const, Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Invocations per workgroup.
    pub wg: u32,
    /// D
    pub d: u32,
    /// Storage format of `x` and `r`.
    pub x: Format,
    /// Storage format of `y`.
    pub y: Format,
    /// Add the residual `r`.
    pub residual: bool,
    /// RMSNorm: the mean is left in.
    pub rms: bool,
}

impl Spec {
    /// Default constants for rows of `d` elements, from and to the residual stream.
    pub fn new(variant: impl Into<KernelVariant>, d: u32, residual: bool) -> Self {
        let x = variant.into().stream();
        // From textures, one invocation handles a row.
        let wg = if x.texture() { 16 } else { row_workgroup(d) };
        Self { wg, d, x, y: x, residual, rms: false }
    }

    /// Default constants for output into a temporary, not the residual stream.
    pub fn wide(variant: impl Into<KernelVariant>, d: u32) -> Self {
        let variant = variant.into();
        Self { y: variant.wide(), ..Self::new(variant, d, false) }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("WG", self.wg.into()),
            ("D", self.d.into()),
            ("RESIDUAL", self.residual.into()),
            ("RMS", self.rms.into()),
        ]
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub rows: u32,
    /// Epsilon, added to the variance.
    pub eps: f32,
}
abi!(Params { rows, eps });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, D\]
    pub x: &'a Tensor,
    /// Residual, \[T, D\]; `x` again if the Spec has no residual.
    pub r: &'a Tensor,
    /// \[D\]
    pub gamma: &'a Tensor,
    /// \[D\]
    pub beta: &'a Tensor,
    /// Output, \[T, D\].
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, r: Read, gamma: Read, beta: Read, y: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = if spec.x.texture() {
        source!("texture/layer_norm.wgsl")
    } else {
        source!("layer_norm.wgsl")
    };
    let formats = [("x", spec.x), ("r", spec.x), ("y", spec.y)];
    let bindings = (BINDINGS, &formats[..]);
    let constants = spec.constants();
    specialise::<_, Params>(KernelId::LayerNorm, file, bindings, spec, vec![], constants)
}

/// Programs of every width, buffers and textures.
pub fn programs() -> Vec<Program> {
    let half = KernelVariant::new(Tier::Tiled, Dtype::F16);
    let of = move |d| {
        let tiers = [Tier::Tiled, Tier::Texture].into_iter();
        let specs = tiers.flat_map(move |tier| [true, false].map(|r| Spec::new(tier, d, r)));
        let rms = [Tier::Tiled, Tier::Texture]
            .map(|tier| Spec { rms: true, ..Spec::new(tier, d, false) });
        specs.chain([Spec::wide(half, d)]).chain(rms)
    };
    WIDTHS.into_iter().flat_map(of).map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch, with one workgroup per row; from textures, one invocation.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args, eps: f32) {
    let [t, d] = args.x.shape2();
    assert_eq!(d, kernel.spec.d, "width");
    args.r.expect([t, d]);
    args.gamma.expect([d]);
    args.beta.expect([d]);
    args.y.expect([t, d]);
    let groups = if kernel.spec.x.texture() { t.div_ceil(kernel.spec.wg) } else { t };
    let flops = 3.0 * MOVE * f64::from(t) * f64::from(d);
    rec.dispatch(kernel, Params { rows: t, eps }, &args.list(), grid(groups), flops);
}
