//! Shaders that reach the limits of a device, in `shaders/roof/`: multiply-adds on registers, and a
//! copy.  They are not part of the model and have no reference.

use crate::{
    kernels::Interface,
    recording::{
        Access, Binding, Const, Format, Kernel, KernelId, Program, Recording, Tensor, grid,
    },
};
use bytemuck::{Pod, Zeroable};
use std::{mem::offset_of, sync::Arc};

const MULTIPLY_ADD: &[Access] = &[Access::Write];
const COPY: &[Access] = &[Access::Read, Access::Write];
const FMA_WG: u32 = 64;
const COPY_WG: u32 = 256;
const COPY_PER: u32 = 4;

/// Operations of one invocation of `multiply_add` in one round.
const ROUND_FLOPS: f64 = 256.0;
/// Workgroups of `multiply_add`.
const FMA_GROUPS: u32 = 4096;

/// Elements of the output of [`multiply_add`].
pub const FMA_ELEMENTS: u32 = 4 * FMA_GROUPS * FMA_WG;

/// `Params` of `multiply_add`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FmaParams {
    rounds: u32,
    m: f32,
    c: f32,
}

/// `Params` of `copy`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CopyParams {
    n: u32,
}

/// Interfaces of the shaders, for the checks in `tests/abi`.
pub const INTERFACES: &[Interface] = &[
    Interface {
        kernel: KernelId::MultiplyAdd,
        params: &[
            ("rounds", offset_of!(FmaParams, rounds)),
            ("m", offset_of!(FmaParams, m)),
            ("c", offset_of!(FmaParams, c)),
        ],
        params_bytes: size_of::<FmaParams>(),
        bindings: &[("y", Access::Write)],
        programs: || {
            [true, false].map(|fused| (*multiply_add_kernel(fused).program).clone()).to_vec()
        },
    },
    Interface {
        kernel: KernelId::Copy,
        params: &[("n", offset_of!(CopyParams, n))],
        params_bytes: size_of::<CopyParams>(),
        bindings: &[("x", Access::Read), ("y", Access::Write)],
        programs: || vec![(*copy_kernel().program).clone()],
    },
];

fn bindings(access: &[Access]) -> Vec<Binding> {
    access.iter().map(|&access| Binding { access, format: Format::F32 }).collect()
}

fn multiply_add_kernel(fused: bool) -> Kernel<()> {
    let program = Program {
        kernel: KernelId::MultiplyAdd,
        file: "roof/multiply_add.wgsl",
        text: include_str!("../../shaders/roof/multiply_add.wgsl"),
        imports: Vec::new(),
        constants: vec![("WG", Const::U32(FMA_WG)), ("FUSED", Const::Bool(fused))],
        bindings: bindings(MULTIPLY_ADD),
        params_bytes: size_of::<FmaParams>() as u32,
    };
    Kernel { spec: (), program: Arc::new(program) }
}

fn copy_kernel() -> Kernel<()> {
    let program = Program {
        kernel: KernelId::Copy,
        file: "roof/copy.wgsl",
        text: include_str!("../../shaders/roof/copy.wgsl"),
        imports: Vec::new(),
        constants: vec![("WG", Const::U32(COPY_WG)), ("PER", Const::U32(COPY_PER))],
        bindings: bindings(COPY),
        params_bytes: size_of::<CopyParams>() as u32,
    };
    Kernel { spec: (), program: Arc::new(program) }
}

/// Operations of [`multiply_add`] with `rounds`; a multiply-add counts as two.
pub fn multiply_add_flops(rounds: u32) -> f64 {
    ROUND_FLOPS * f64::from(FMA_GROUPS * FMA_WG) * f64::from(rounds)
}

/// One dispatch of `rounds` of multiply-adds, fused or separate; `y` has [`FMA_ELEMENTS`].
pub fn multiply_add(fused: bool, rounds: u32, y: &Tensor) -> Recording {
    let params = FmaParams { rounds, m: 0.75, c: 0.5 };
    let flops = multiply_add_flops(rounds);
    let mut recording = Recording::new();
    recording.dispatch(&multiply_add_kernel(fused), params, &[*y], grid(FMA_GROUPS), flops);
    recording
}

/// One dispatch that copies `x` to `y`.
pub fn copy(x: &Tensor, y: &Tensor) -> Recording {
    let n = (x.shape.len() / 4) as u32;
    let groups = n.div_ceil(COPY_WG * COPY_PER);
    let mut recording = Recording::new();
    let kernel = copy_kernel();
    recording.dispatch(&kernel, CopyParams { n }, &[*x, *y], grid(groups), f64::from(n));
    recording
}
