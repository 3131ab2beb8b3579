//! Check that a device reads f16 weights exactly.

use super::kernels::Kernels;
use crate::{
    elements::{TensorData, f16},
    error::Error,
    kernels::{KernelVariant, Tile, linear},
    recording::{Engine, Format, Recording},
};

/// f16 values that devices may misread: the smallest subnormal, which some flush to zero, the
/// largest subnormal, the largest of all, and their neighbours.
const BITS: [u16; 16] = [
    0x0001, 0x8001, 0x03ff, 0x83ff, 0x0200, 0x8155, 0x0010, 0x0400, //
    0x8400, 0x0401, 0x7bff, 0xfbff, 0x3c01, 0xb555, 0x2e66, 0x0000,
];

/// Multiplies each value by one and checks that it is unchanged; false if the device's compiler
/// refuses the product.
///
/// # Errors
/// Errors of the engine.
pub(super) fn read(
    engine: &mut dyn Engine,
    variant: KernelVariant,
    kernels: &Kernels,
) -> Result<bool, Error> {
    const N: u32 = 4;
    let numbers = BITS.map(f16::from_bits);
    let layout = Tile::new(variant.tier).layout();
    let (shape, w) = layout.arrange(TensorData::F16(numbers[..].into()), [N, N]);
    let unit: Vec<f32> = (0..N * N).map(|n| if n % (N + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let kernel = &kernels.products(N).linear;
    let x = engine.upload([N, N].into(), kernel.spec.x, unit.into())?;
    let w = engine.upload(shape, kernel.spec.w, w)?;
    let bias = engine.upload([N].into(), Format::F32, (&[0.0; N as usize]).into())?;
    let y = engine.alloc([N, N].into(), kernel.spec.y)?;
    let mut recording = Recording::new();
    let args = linear::Args { x: &x, w: &w, bias: &bias, r: &x, y: &y };
    linear::record(&mut recording, kernel, args);
    let found = engine.run(&recording, &y);
    engine.release(&[x, w, bias, y])?;
    let found = match found {
        Err(Error::Compile { .. }) => return Ok(false),
        found => found?,
    };
    let same = |(n, y): (usize, &f32)| *y == numbers[n % 4 * 4 + n / 4].to_f32();
    Ok(found.iter().enumerate().all(same))
}
