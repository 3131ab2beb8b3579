//! Real numbers as stored in files and on devices: in 32 or 16 bits.

pub use half::f16;
use half::{bf16, slice::HalfFloatSliceExt};
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};

/// Elements per unit of parallel work.
const PART: usize = 1 << 16;

/// The largest f16.
pub const F16_MAX: f32 = f16::MAX.to_f32_const();

/// Real numbers in their stored type: borrowed, if this machine can read them in place.
#[derive(Clone, Debug)]
pub enum TensorData<'a> {
    /// 32 bits.
    F32(Cow<'a, [f32]>),
    /// 16 bits, 5 of them the exponent.
    F16(Cow<'a, [f16]>),
    /// 16 bits, 8 of them the exponent.
    BF16(Cow<'a, [bf16]>),
}

/// Reorders elements of any type: `$values` is the old slice, `$result` a slice or vector of the
/// same type.
macro_rules! reordered {
    ($elements:expr, $values:ident => $result:expr) => {{
        use $crate::elements::TensorData;
        match $elements {
            TensorData::F32($values) => TensorData::F32($result.into()),
            TensorData::F16($values) => TensorData::F16($result.into()),
            TensorData::BF16($values) => TensorData::BF16($result.into()),
        }
    }};
}
pub(crate) use reordered;

impl<'a> TensorData<'a> {
    /// Reads little-endian f32.
    pub fn f32(bytes: &'a [u8]) -> Self {
        Self::F32(stored(bytes, f32::from_le_bytes))
    }

    /// Reads little-endian f16.
    pub fn f16(bytes: &'a [u8]) -> Self {
        Self::F16(stored(bytes, f16::from_le_bytes))
    }

    /// Reads little-endian bf16.
    pub fn bf16(bytes: &'a [u8]) -> Self {
        Self::BF16(stored(bytes, bf16::from_le_bytes))
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::BF16(values) => values.len(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `n` as f32.
    pub fn at(&self, n: usize) -> f32 {
        match self {
            Self::F32(values) => values[n],
            Self::F16(values) => values[n].to_f32(),
            Self::BF16(values) => values[n].to_f32(),
        }
    }

    /// A range of elements.
    pub fn slice(&self, range: Range<usize>) -> TensorData<'_> {
        reordered!(self, values => &values[range])
    }

    /// Concatenates lists; as f32, if their types differ.
    pub fn concat(lists: &[TensorData]) -> TensorData<'static> {
        macro_rules! if_all {
            ($kind:ident) => {
                let lists = lists.iter().map(|list| match list {
                    TensorData::$kind(values) => Some(&values[..]),
                    _ => None,
                });
                if let Some(lists) = lists.collect::<Option<Vec<_>>>() {
                    return TensorData::$kind(lists.concat().into());
                }
            };
        }
        if_all!(F16);
        if_all!(BF16);
        let lists: Vec<_> = lists.iter().map(TensorData::widened).collect();
        TensorData::F32(lists.concat().into())
    }

    /// Index of the first infinite or NaN element.
    pub fn first_odd(&self) -> Option<usize> {
        // Branch-free: an exponent of all ones is the largest one.
        let most = match self {
            Self::F32(values) => {
                odd_part(values, |x| x.to_bits() << 1, f32::INFINITY.to_bits() << 1)
            }
            Self::F16(values) => {
                odd_part(values, |x| x.to_bits() << 1, f16::INFINITY.to_bits() << 1)
            }
            Self::BF16(values) => {
                odd_part(values, |x| x.to_bits() << 1, bf16::INFINITY.to_bits() << 1)
            }
        };
        most.and_then(|first| (first..self.len()).find(|&n| !self.at(n).is_finite()))
    }

    /// Index of the first element beyond the range of f16.
    pub fn first_beyond_f16(&self) -> Option<usize> {
        match self {
            Self::F16(_) => None,
            _ => self.widened().iter().position(|x| x.abs() > F16_MAX),
        }
    }

    /// Reads elements from `first` on as f32, to fill `out`.
    pub fn read(&self, first: usize, out: &mut [f32]) {
        let range = first..first + out.len();
        match self {
            Self::F32(values) => out.copy_from_slice(&values[range]),
            Self::F16(values) => values[range].convert_to_f32_slice(out),
            Self::BF16(values) => values[range].convert_to_f32_slice(out),
        }
    }

    /// Converts to f32, on all cores.
    pub fn widened(&self) -> Cow<'_, [f32]> {
        if let Self::F32(values) = self {
            return Cow::Borrowed(values);
        }
        let mut out = vec![0.0; self.len()];
        self.write_f32(&mut out);
        out.into()
    }

    /// Writes all elements as f32, on all cores.
    pub fn write_f32(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.len(), "elements");
        let parts = out.par_chunks_mut(PART).enumerate();
        parts.for_each(|(n, out)| self.read(n * PART, out));
    }

    /// Writes all as f16 on all cores, rounded to nearest even; beyond [`F16_MAX`], infinite.
    pub fn write_f16(&self, out: &mut [f16]) {
        assert_eq!(out.len(), self.len(), "elements");
        let values = match self {
            Self::F16(values) => {
                let parts = out.par_chunks_mut(PART).zip(values.par_chunks(PART));
                return parts.for_each(|(out, values)| out.copy_from_slice(values));
            }
            _ => self.widened(),
        };
        let parts = out.par_chunks_mut(PART).zip(values.par_chunks(PART));
        parts.for_each(|(out, values)| out.convert_from_f32_slice(values));
    }

    /// Writes all as bf16, rounded to nearest even.
    pub fn write_bf16(&self, out: &mut [bf16]) {
        assert_eq!(out.len(), self.len(), "elements");
        match self {
            Self::BF16(values) => out.copy_from_slice(values),
            _ => out.convert_from_f32_slice(&self.widened()),
        }
    }

    /// Little-endian bytes in bf16, rounded as in [`TensorData::write_bf16`].
    pub fn to_bf16(&self) -> Cow<'_, [u8]> {
        if let (Self::BF16(values), true) = (self, cfg!(target_endian = "little")) {
            return bytemuck::cast_slice(values).into();
        }
        let mut out = vec![bf16::ZERO; self.len()];
        self.write_bf16(&mut out);
        out.into_iter().flat_map(bf16::to_le_bytes).collect()
    }

    /// Little-endian bytes in f16, rounded as in [`TensorData::write_f16`].
    pub fn to_f16(&self) -> Cow<'_, [u8]> {
        if let (Self::F16(values), true) = (self, cfg!(target_endian = "little")) {
            return bytemuck::cast_slice(values).into();
        }
        let mut out = vec![f16::ZERO; self.len()];
        self.write_f16(&mut out);
        out.into_iter().flat_map(f16::to_le_bytes).collect()
    }
}

impl<'a> From<&'a [f32]> for TensorData<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values.into())
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for TensorData<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::F32(values.into())
    }
}

impl From<Vec<f32>> for TensorData<'_> {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values.into())
    }
}

/// Elements of a little-endian file, in this machine's byte order.
fn stored<T: bytemuck::Pod, const N: usize>(
    bytes: &[u8],
    one: impl Fn([u8; N]) -> T,
) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) if cfg!(target_endian = "little") => elements.into(),
        _ => bytes.as_chunks().0.iter().map(|bytes| one(*bytes)).collect(),
    }
}

/// Start of the first part with an element whose bits are at least `least`.
fn odd_part<T: Copy + Sync, B: Ord + Default + Copy + Send + Sync>(
    values: &[T],
    bits: impl Fn(T) -> B + Sync,
    least: B,
) -> Option<usize> {
    let most = |part: &[T]| part.iter().fold(B::default(), |most, &x| most.max(bits(x)));
    Some(PART * values.par_chunks(PART).position_first(|part| most(part) >= least)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_to_nearest_even() {
        let given = [1.0, -0.1, 65_504.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1e6, 2e-8];
        let meant = [1.0, -0.099_975_586, F16_MAX, 1.0, 1.0 + 2.0 / 1024.0, f32::INFINITY, 0.0];
        let given = TensorData::from(&given);
        assert_eq!(TensorData::f16(&given.to_f16()).widened()[..], meant);
        assert_eq!(given.first_beyond_f16(), Some(5));
        assert_eq!(TensorData::bf16(&[0x80, 0x3f, 0x00, 0xc0]).widened()[..], [1.0, -2.0]);
    }

    #[test]
    fn elements_are_read_from_any_place() {
        let bytes: Vec<u8> = [0.0, 1.0f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        let halves = TensorData::f32(&bytes).to_f16().into_owned();
        for first in 0..4 {
            let shifted = [&[7; 4][..first], &bytes].concat();
            assert_eq!(TensorData::f32(&shifted[first..]).widened()[..], [0.0, 1.0, -2.5]);
            let shifted = [&[7; 4][..first], &halves].concat();
            let elements = TensorData::f16(&shifted[first..]);
            assert_eq!((elements.at(2), elements.slice(1..2).at(0)), (-2.5, 1.0));
        }
    }

    #[test]
    fn the_first_odd_one_is_found() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![-1e4; 2 * PART + 3];
            assert_eq!(TensorData::from(&values[..]).first_odd(), None);
            values[PART + 7] = odd;
            values[2 * PART + 1] = f32::NAN;
            assert_eq!(TensorData::from(&values[..]).first_odd(), Some(PART + 7));
            let bytes = TensorData::from(&values[..]).to_f16().into_owned();
            assert_eq!(TensorData::f16(&bytes).first_odd(), Some(PART + 7));
            let bytes: Vec<u8> =
                values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
            assert_eq!(TensorData::bf16(&bytes).first_odd(), Some(PART + 7));
        }
    }

    #[test]
    fn unlike_lists_are_joined_as_f32() {
        let ones = [1.0f32, 2.0];
        let bytes = [0x00, 0x3c];
        let joined = TensorData::concat(&[TensorData::f16(&bytes), TensorData::from(&ones)]);
        assert_eq!(joined.widened()[..], [1.0, 1.0, 2.0]);
        let joined = TensorData::concat(&[TensorData::f16(&bytes), TensorData::f16(&bytes)]);
        assert!(matches!(joined, TensorData::F16(_)) && joined.len() == 2);
    }
}
