//! Residual add and LayerNorm: `y = LN(x + r)`.  Shader: `shaders/layer_norm.wgsl`.

use super::{ELEM, WIDTHS, row_workgroup, specialise};
use crate::recording::{Const, Kernel, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Invocations per workgroup.
    pub wg: u32,
    /// D
    pub d: u32,
    /// Whether there is an `r`.
    pub residual: bool,
}

impl Spec {
    /// The usual constants for rows of `d` elements.
    pub fn new(d: u32, residual: bool) -> Self {
        Self { wg: row_workgroup(d), d, residual }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![("WG", self.wg.into()), ("D", self.d.into()), ("RESIDUAL", self.residual.into())]
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub rows: u32,
    /// Added to the variance.
    pub eps: f32,
}
abi!(Params { rows, eps });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, D\]
    pub x: &'a Tensor,
    /// \[T, D\]; `x` again where the Spec has no residual.
    pub r: &'a Tensor,
    /// \[D\]
    pub gamma: &'a Tensor,
    /// \[D\]
    pub beta: &'a Tensor,
    /// \[T, D\], written
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, r: Read, gamma: Read, beta: Read, y: Write });

/// Makes a Spec runnable.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let (file, constants) = (source!("layer_norm.wgsl"), spec.constants());
    specialise::<_, Params>("layer_norm", file, ACCESS, spec, vec![ELEM], constants)
}

/// Programs of every width.
pub fn programs() -> Vec<Program> {
    let specs = WIDTHS.iter().flat_map(|&d| [Spec::new(d, true), Spec::new(d, false)]);
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Appends one dispatch.  One workgroup per row.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args, eps: f32) {
    let [t, d] = args.x.shape2();
    assert_eq!(d, kernel.spec.d, "width");
    args.r.expect([t, d]);
    args.gamma.expect([d]);
    args.beta.expect([d]);
    args.y.expect([t, d]);
    rec.dispatch(kernel, Params { rows: t, eps }, &args.list(), grid(t));
}
