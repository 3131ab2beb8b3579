//! 16-bit floats, as files and devices have them.

use half::{bf16, f16};

/// The largest f16.
pub const F16_MAX: f32 = f16::MAX.to_f32_const();

/// Little-endian f16.
pub fn from_f16(bytes: &[u8]) -> Vec<f32> {
    halves(bytes).map(|b| f16::from_le_bytes(b).to_f32()).collect()
}

/// Little-endian bf16.
pub fn from_bf16(bytes: &[u8]) -> Vec<f32> {
    halves(bytes).map(|b| bf16::from_le_bytes(b).to_f32()).collect()
}

/// Little-endian f16, rounded to nearest even; beyond [`F16_MAX`], infinite.
pub fn to_f16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    bytes.as_chunks::<2>().0.iter().copied()
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
}
