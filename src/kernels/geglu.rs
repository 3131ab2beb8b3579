//! `h = activation(gate) ⊙ up`.  Shader: `shaders/geglu.wgsl`.

use super::{ELEM, WIDTHS, specialise};
use crate::recording::{Const, Kernel, Program, Recording, Tensor, grid};
pub use crate::reference::Activation;
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Invocations per workgroup.
    pub wg: u32,
    /// F
    pub f: u32,
    /// Which half is activated.
    pub gate_first: bool,
    /// By which function.
    pub activation: Activation,
}

impl Spec {
    /// The usual constants for rows of `f` results.
    pub fn new(f: u32, gate_first: bool, activation: Activation) -> Self {
        Self { wg: 64, f, gate_first, activation }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![("WG", self.wg.into()), ("F", self.f.into()), ("GATE_FIRST", self.gate_first.into())]
    }

    fn imports(&self) -> Vec<(&'static str, &'static str)> {
        let activation = match self.activation {
            Activation::Gelu => "gelu",
            Activation::Relu => "relu",
        };
        vec![ELEM, ("activation", activation)]
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub rows: u32,
}
abi!(Params { rows });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, 2F\]
    pub gate_up: &'a Tensor,
    /// \[T, F\], written
    pub h: &'a Tensor,
}
bindings!(Args { gate_up: Read, h: Write });

/// Makes a Spec runnable.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let (file, constants) = (source!("geglu.wgsl"), spec.constants());
    specialise::<_, Params>("geglu", file, ACCESS, spec, spec.imports(), constants)
}

/// Programs of every width, half and activation.
pub fn programs() -> Vec<Program> {
    let mut programs = Vec::new();
    for f in WIDTHS.map(|d| 4 * d) {
        for gate_first in [true, false] {
            for activation in [Activation::Gelu, Activation::Relu] {
                programs.push((*kernel(Spec::new(f, gate_first, activation)).program).clone());
            }
        }
    }
    programs
}

/// Appends one dispatch.  One invocation per vec4 of the result.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let Spec { f, wg, .. } = kernel.spec;
    let [t, _] = args.h.shape2();
    args.gate_up.expect([t, 2 * f]);
    args.h.expect([t, f]);
    rec.dispatch(kernel, Params { rows: t }, &args.list(), grid((t * (f / 4)).div_ceil(wg)));
}
