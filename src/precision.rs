//! Quantisation of vectors: the arithmetic of sentence-transformers' `quantize_embeddings`,
//! bit-identical, and float16.
//!
//! Two points that it leaves open are defined here: values outside a range take the code at its
//! end, where NumPy's cast may give any; and bits are padded to whole bytes per vector.
//!
//! Loss of each precision, measured with the shipped model on 1,034 paragraphs (Debian's package
//! descriptions): the share of a text's ten nearest neighbours that stay among its ten nearest, and
//! the maximum change of a cosine.  Binary vectors are compared by Hamming distance.
//!
//! | precision | bytes of 384 components | ten nearest kept | change of a cosine |
//! |---|---|---|---|
//! | float32 | 1536 | 1.000 | 0 |
//! | float16 | 768 | 1.000 | 0.0001 |
//! | int8, uint8: one range, [`Ranges::unit`] | 384 | 0.988, 0.993 | 0.007, 0.005 |
//! | int8, uint8: a range per component, [`Ranges::of`], decoded | 384 | 0.993 | 0.015 |
//! | int8: a range per component, cosines of the codes themselves | 384 | 0.849 | 0.31 |
//! | binary, ubinary | 48 | 0.697 | – |
//! | the same, 40 candidates rescored in float32 | 48 | 0.948 | – |
//!
//! Codes of int8 over one symmetric range are scaled components, so cosines of the codes are valid.
//! With a range per component every one is shifted and scaled differently: decode the codes before
//! comparing them.  Code `c` of uint8 stands for `start + (c + 1/2) · step`, code `c` of int8 for
//! `start + (c + 128 + sign(c)/2) · step`, since sentence-transformers rounds both toward zero.

use crate::{
    elements::{F16_MAX, TensorData, f16},
    error::Error,
};
use std::{borrow::Cow, fmt, str::FromStr};

/// Storage type of a vector's components.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32, as computed.
    #[default]
    Float32,
    /// 16 bits, rounded to nearest even.
    Float16,
    /// One of 256 steps of a range, -128 to 127.
    Int8,
    /// One of 256 steps of a range, 0 to 255.
    Uint8,
    /// One bit, set if the component is positive: eight per byte as in NumPy's `packbits`, the
    /// first in the highest bit, zeros after the last; minus 128, so -128 to 127.
    Binary,
    /// The bytes of [`Precision::Binary`] without the offset, 0 to 255.
    Ubinary,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 6] =
        [Self::Float32, Self::Float16, Self::Int8, Self::Uint8, Self::Binary, Self::Ubinary];

    /// Name in sentence-transformers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }

    /// Number of stored values for `dims` components: an eighth, rounded up, for bits.
    pub fn width(self, dims: usize) -> usize {
        match self {
            Self::Binary | Self::Ubinary => dims.div_ceil(8),
            _ => dims,
        }
    }

    /// True if the precision needs [`Ranges`].
    pub fn has_ranges(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|precision| precision.name() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Option(format!("precision `{name}`: {names} are known"))
        })
    }
}

/// Range of each component, cut into 255 steps: for [`Precision::Int8`] and [`Precision::Uint8`].
/// Values outside take the nearest code.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges {
    starts: Vec<f32>,
    ends: Vec<f32>,
    steps: Vec<f32>,
}

impl Ranges {
    /// Ranges for unit vectors: ±6/√`dims`, at most ±1.
    ///
    /// Components of unit vectors have a root mean square of 1/√`dims`; with the shipped model none
    /// exceeds 4.7/√`dims`.  The ranges depend on nothing else, so that a text's codes depend only
    /// on the text.
    pub fn unit(dims: usize) -> Self {
        let limit = (6.0 / (dims as f32).sqrt()).min(1.0);
        Self::symmetric(dims, limit).expect("a range from 0 to 1")
    }

    /// Ranges from -`limit` to `limit` for every component.
    ///
    /// # Errors
    /// [`Error::Option`] for a limit that is not a positive number.
    pub fn symmetric(dims: usize, limit: f32) -> Result<Self, Error> {
        if !(limit > 0.0 && limit.is_finite()) {
            return Err(Error::Option(format!("expected a positive range, got {limit}")));
        }
        Self::new(vec![-limit; dims], vec![limit; dims])
    }

    /// Minimum and maximum of each component in some vectors, as in the `calibration_embeddings` of
    /// sentence-transformers.
    ///
    /// # Errors
    /// [`Error::Option`] if there are no rows, if they differ in length, if a component is not
    /// finite, or if a component is the same in all rows.
    pub fn of<R: AsRef<[f32]>>(rows: impl IntoIterator<Item = R>) -> Result<Self, Error> {
        let mut ranges: Option<(Vec<f32>, Vec<f32>)> = None;
        for (n, row) in rows.into_iter().enumerate() {
            let row = row.as_ref();
            if let Some(at) = row.iter().position(|x| !x.is_finite()) {
                let value = row[at];
                return Err(Error::Option(format!("row {n}, component {at}: {value}")));
            }
            let (starts, ends) = ranges.get_or_insert_with(|| (row.to_vec(), row.to_vec()));
            if row.len() != starts.len() {
                let dims = row.len();
                let first = starts.len();
                return Err(Error::Option(format!(
                    "row {n}: {dims} components, but the first row has {first}"
                )));
            }
            for ((start, end), &x) in starts.iter_mut().zip(ends.iter_mut()).zip(row) {
                *start = start.min(x);
                *end = end.max(x);
            }
        }
        match ranges {
            Some((starts, ends)) => Self::new(starts, ends),
            None => Err(Error::Option("no rows to take ranges from".to_owned())),
        }
    }

    fn new(starts: Vec<f32>, ends: Vec<f32>) -> Result<Self, Error> {
        let steps: Vec<f32> =
            starts.iter().zip(&ends).map(|(start, end)| (end - start) / 255.0).collect();
        match steps.iter().position(|step| !(*step > 0.0 && step.is_finite())) {
            None => Ok(Self { starts, ends, steps }),
            Some(n) => {
                let start = starts[n];
                let end = ends[n];
                Err(Error::Option(format!(
                    "component {n} ranges from {start} to {end}: no range to cut into 255 steps"
                )))
            }
        }
    }

    /// Number of components of the vectors.
    pub fn dims(&self) -> usize {
        self.starts.len()
    }

    /// Number of components of a vector outside their ranges.
    pub fn outside(&self, row: &[f32]) -> usize {
        let ranges = self.starts.iter().zip(&self.ends);
        row.iter().zip(ranges).filter(|(x, (start, end))| *x < start || *x > end).count()
    }

    /// Steps from the start of each range; f32 throughout, as in NumPy.
    fn buckets(&self, row: &[f32]) -> impl Iterator<Item = f32> {
        assert_eq!(row.len(), self.dims(), "components and ranges");
        let ranges = self.starts.iter().zip(&self.steps);
        row.iter().zip(ranges).map(|(x, (start, step))| (x - start) / step)
    }
}

/// A precision, with ranges if it needs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantizer {
    precision: Precision,
    ranges: Ranges,
}

impl Quantizer {
    /// Creates a quantizer for unit vectors of `dims` components, with [`Ranges::unit`].
    pub fn new(precision: Precision, dims: usize) -> Self {
        Self::with_ranges(precision, Ranges::unit(dims))
    }

    /// Creates a quantizer with given ranges.
    pub fn with_ranges(precision: Precision, ranges: Ranges) -> Self {
        Self { precision, ranges }
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of stored values per vector.
    pub fn width(&self) -> usize {
        self.precision.width(self.ranges.dims())
    }

    /// Number of components of a vector that are clipped because they are outside their range.
    pub fn outside(&self, row: &[f32]) -> usize {
        if self.precision.has_ranges() { self.ranges.outside(row) } else { 0 }
    }

    /// Quantizes a vector.
    ///
    /// # Errors
    /// [`Error::Input`] for a component beyond the range of float16.
    ///
    /// # Panics
    /// If the vector has a different number of components.
    pub fn quantize<'a>(&self, row: &'a [f32]) -> Result<Quantized<'a>, Error> {
        assert_eq!(row.len(), self.ranges.dims(), "components of a vector");
        let int8 = |bucket: f32| (bucket - 128.0) as i8; // both casts truncate, and saturate
        Ok(match self.precision {
            Precision::Float32 => Quantized::Float32(row),
            Precision::Float16 => Quantized::Float16(halves(row)?),
            Precision::Int8 => Quantized::Int8(self.ranges.buckets(row).map(int8).collect()),
            Precision::Uint8 => {
                Quantized::Uint8(self.ranges.buckets(row).map(|bucket| bucket as u8).collect())
            }
            Precision::Binary => {
                Quantized::Int8(signs(row).map(|byte| byte.wrapping_sub(128) as i8).collect())
            }
            Precision::Ubinary => Quantized::Uint8(signs(row).collect()),
        })
    }
}

fn halves(row: &[f32]) -> Result<Vec<f16>, Error> {
    let elements = TensorData::from(row);
    if let Some(at) = elements.first_beyond_f16() {
        let value = row[at];
        let what = format!("component {at} is {value}, over float16's limit of {F16_MAX}");
        return Err(Error::Input { index: 0, what });
    }
    let mut halves = vec![f16::ZERO; row.len()];
    elements.write_f16(&mut halves);
    Ok(halves)
}

/// Packs the sign bit of each component, eight per byte.
fn signs(row: &[f32]) -> impl Iterator<Item = u8> {
    row.chunks(8).map(sign_byte)
}

/// Packs the sign bits of up to eight components, the first in the highest bit.
fn sign_byte(eight: &[f32]) -> u8 {
    let bits = eight.iter().enumerate();
    bits.fold(0, |byte, (n, &x)| byte | u8::from(x > 0.0) << (7 - n))
}

/// A quantized vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantized<'a> {
    /// [`Precision::Float32`]
    Float32(&'a [f32]),
    /// [`Precision::Float16`]
    Float16(Vec<f16>),
    /// [`Precision::Int8`], [`Precision::Binary`]
    Int8(Vec<i8>),
    /// [`Precision::Uint8`], [`Precision::Ubinary`]
    Uint8(Vec<u8>),
}

impl Quantized<'_> {
    /// Stored values in order, little-endian.
    pub fn to_le_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Float32(values) if cfg!(target_endian = "little") => {
                bytemuck::cast_slice(values).into()
            }
            Self::Float32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Float16(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Int8(values) => bytemuck::cast_slice(values).into(),
            Self::Uint8(values) => values.into(),
        }
    }

    /// Stored values in decimal, the shortest that read back the same.
    pub fn to_decimals(&self) -> Vec<String> {
        match self {
            Self::Float32(values) => values.iter().map(f32::to_string).collect(),
            Self::Float16(values) => values.iter().map(|x| x.to_f32().to_string()).collect(),
            Self::Int8(values) => values.iter().map(i8::to_string).collect(),
            Self::Uint8(values) => values.iter().map(u8::to_string).collect(),
        }
    }
}

/// Serialises as a list of numbers.
impl serde::Serialize for Quantized<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Float32(values) => values.serialize(serializer),
            Self::Float16(values) => serializer.collect_seq(values.iter().map(|x| x.to_f32())),
            Self::Int8(values) => values.serialize(serializer),
            Self::Uint8(values) => values.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values in these tests are from NumPy 2.4, with x = np.array(X, np.float32).
    const X: [f32; 10] = [0.5, -0.25, 0.0, 1e-8, -1e-8, 0.7, -0.9, 0.1, 0.3, -0.0];

    fn quantized(quantizer: &Quantizer, row: &[f32]) -> Vec<u8> {
        quantizer.quantize(row).expect("a vector").to_le_bytes().into_owned()
    }

    fn signed(bytes: &[u8]) -> &[i8] {
        bytemuck::cast_slice(bytes)
    }

    /// np.packbits(x > 0), and (np.packbits(x > 0) - 128).astype(np.int8)
    #[test]
    fn bits_are_packed_as_numpy_packs_them() {
        let ubinary = Quantizer::new(Precision::Ubinary, 10);
        assert_eq!(quantized(&ubinary, &X), [149, 128]);
        assert_eq!(signed(&quantized(&Quantizer::new(Precision::Binary, 10), &X)), [21, 0]);
        assert_eq!(ubinary.width(), 2);
        let all = [[1.0; 8], [-1.0; 8]].concat();
        let binary = Quantizer::new(Precision::Binary, 16);
        assert_eq!((signed(&quantized(&binary, &all)), binary.width()), (&[127, -128][..], 2));
    }

    /// x.astype("<f2").view(np.uint16), except that NumPy converts large values to infinity.
    #[test]
    fn halves_are_numpy_s() {
        let halves = quantized(&Quantizer::new(Precision::Float16, 10), &X);
        let halves: Vec<_> = halves.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let expected = [14336, 46080, 0, 0, 32768, 14746, 47923, 11878, 13517, 32768];
        assert_eq!(halves, expected);
        let quantizer = Quantizer::new(Precision::Float16, 2);
        assert!(quantizer.quantize(&[0.0, -65504.0]).is_ok());
        let error = quantizer.quantize(&[0.0, -65505.0]).expect_err("too large").to_string();
        assert_eq!(error, "input 0: component 1 is -65505, over float16's limit of 65504");
    }

    /// s = -np.float32(.5); t = (np.float32(.5) - s) / 255; y = (x - s) / t
    /// y.clip(0, 255).astype(np.uint8), and (y - 128).clip(-128, 127).astype(np.int8)
    #[test]
    fn one_range_is_numpy_s() {
        let ranges = Ranges::symmetric(10, 0.5).expect("a range");
        let uint8 = Quantizer::with_ranges(Precision::Uint8, ranges.clone());
        let int8 = Quantizer::with_ranges(Precision::Int8, ranges);
        let expected = [254, 63, 127, 127, 127, 255, 0, 153, 203, 127];
        assert_eq!(quantized(&uint8, &X), expected);
        let expected = [126, -64, 0, 0, 0, 127, -128, 25, 75, 0];
        assert_eq!(signed(&quantized(&int8, &X)), expected);
        assert_eq!((int8.outside(&X), Quantizer::new(Precision::Binary, 10).outside(&X)), (2, 0));
        // And so far outside that no integer holds the step, 0.7 / 1e-30.
        let tiny = Ranges::symmetric(10, 1e-30).expect("a range");
        let int8 = Quantizer::with_ranges(Precision::Int8, tiny);
        let expected = [127, -128, 0, 127, -128, 127, -128, 127, 127, 0];
        assert_eq!(signed(&quantized(&int8, &X)), expected);
    }

    /// cal = np.random.default_rng(7).standard_normal((4, 6)).astype(np.float32).round(2)
    /// r = np.vstack((cal.min(axis=0), cal.max(axis=0))); s = r[0, :]; t = (r[1, :] - s) / 255
    /// v = cal[0] * np.float32(.3) + cal[1] * np.float32(.7); likewise for cal[0], cal[3] and v.
    #[test]
    fn calibrated_ranges_are_numpy_s() {
        let rows = [
            [0.0, 0.3, -0.27, -0.89, -0.45, -0.99f32],
            [0.06, 1.34, -0.49, -0.62, 0.49, 0.36],
            [0.11, -0.93, -0.03, 0.7, -1.34, -0.46],
            [-1.9, -1.29, -1.84, -0.24, -1.27, 0.27],
        ];
        let mut v = [0.0; 6];
        for (v, (a, b)) in v.iter_mut().zip(rows[0].iter().zip(&rows[1])) {
            *v = a * 0.3 + b * 0.7;
        }
        let ranges = Ranges::of(rows).expect("ranges");
        let uint8 = Quantizer::with_ranges(Precision::Uint8, ranges.clone());
        let int8 = Quantizer::with_ranges(Precision::Int8, ranges);
        assert_eq!(quantized(&uint8, &rows[0]), [241, 154, 221, 0, 124, 0]);
        assert_eq!(quantized(&uint8, &rows[3]), [0, 0, 0, 104, 9, 238]);
        assert_eq!(quantized(&uint8, &v), [246, 224, 199, 30, 215, 178]);
        assert_eq!(signed(&quantized(&int8, &rows[0])), [113, 26, 93, -128, -3, -128]);
        assert_eq!(signed(&quantized(&int8, &rows[3])), [-128, -128, -128, -23, -118, 110]);
        assert_eq!(signed(&quantized(&int8, &v)), [118, 96, 71, -97, 87, 50]);
        assert!(rows.iter().all(|row| int8.outside(row) == 0));
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        let refused = |rows: &[&[f32]]| Ranges::of(rows).expect_err("no ranges").to_string();
        assert_eq!(refused(&[]), "no rows to take ranges from");
        assert!(refused(&[&[1.0, 2.0], &[1.0]]).starts_with("row 1: 1 components, but the first"));
        assert_eq!(refused(&[&[1.0], &[f32::NAN]]), "row 1, component 0: NaN");
        assert!(refused(&[&[0.0, 3.0], &[1.0, 3.0]]).starts_with("component 1 ranges from 3 to 3"));
        assert!(refused(&[&[f32::MAX], &[f32::MIN]]).starts_with("component 0 ranges from -3402"));
        for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(Ranges::symmetric(3, limit).is_err(), "{limit}");
        }
        assert_eq!(Ranges::unit(1), Ranges::symmetric(1, 1.0).expect("a range"));
        assert_eq!(Ranges::unit(576), Ranges::symmetric(576, 0.25).expect("a range"));
    }

    #[test]
    fn names_are_read_back() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().expect("known"), precision);
        }
        let error = "int4".parse::<Precision>().expect_err("unknown").to_string();
        assert!(error.starts_with("precision `int4`: float32, float16, int8"), "{error}");
    }
}
