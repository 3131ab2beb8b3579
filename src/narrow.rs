//! 16-bit floats, as files and devices have them.

use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements that one core takes at a time.
const PART: usize = 1 << 16;

/// The largest f16.
pub const F16_MAX: f32 = f16::MAX.to_f32_const();

/// Little-endian f16.
pub fn from_f16(bytes: &[u8]) -> Vec<f32> {
    // The processor's own conversion, where there is one, works on many at a time.
    match bytemuck::try_cast_slice::<u8, u16>(bytes) {
        Ok(bits) if cfg!(target_endian = "little") => {
            let halves: &[f16] = bits.reinterpret_cast();
            let mut out = vec![0.0; halves.len()];
            let parts = out.par_chunks_mut(PART).zip(halves.par_chunks(PART));
            parts.for_each(|(out, halves)| halves.convert_to_f32_slice(out));
            out
        }
        _ => widened(bytes, |b| f16::from_le_bytes(b).to_f32()),
    }
}

/// Little-endian bf16.
pub fn from_bf16(bytes: &[u8]) -> Vec<f32> {
    widened(bytes, |b| bf16::from_le_bytes(b).to_f32())
}

/// Little-endian f32; where they lie as this machine reads them, the bytes themselves.
pub fn from_f32(bytes: &[u8]) -> Cow<'_, [f32]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) if cfg!(target_endian = "little") => elements.into(),
        _ => widened(bytes, f32::from_le_bytes).into(),
    }
}

/// Little-endian f16, rounded to nearest even; beyond [`F16_MAX`], infinite.
pub fn to_f16(values: &[f32]) -> Vec<u8> {
    let mut out = vec![f16::ZERO; values.len()];
    let parts = out.par_chunks_mut(PART).zip(values.par_chunks(PART));
    parts.for_each(|(out, values)| out.convert_from_f32_slice(values));
    out.into_iter().flat_map(f16::to_le_bytes).collect()
}

/// On all cores, where there is much to do.
fn widened<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let elements = bytes.as_chunks::<N>().0.par_iter().with_min_len(PART);
    elements.map(|element| one(*element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_to_nearest_even() {
        let given = [1.0, -0.1, 65_504.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1e6, 2e-8];
        let meant = [1.0, -0.099_975_586, F16_MAX, 1.0, 1.0 + 2.0 / 1024.0, f32::INFINITY, 0.0];
        assert_eq!(from_f16(&to_f16(&given)), meant);
        assert_eq!(from_bf16(&[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
    }

    #[test]
    fn f32_is_read_from_any_place() {
        let bytes: Vec<u8> = [0.0, 1.0f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        for first in 0..4 {
            let shifted = [&[7; 4][..first], &bytes].concat();
            assert_eq!(from_f32(&shifted[first..])[..], [0.0, 1.0, -2.5]);
        }
    }
}
