//! Contiguous vectors in the requested precision, as a NumPy array.

use jinabert::{
    Error,
    precision::{Precision, Quantizer, Ranges},
};
use numpy::{IntoPyArray, ndarray::Array2};
use pyo3::{exceptions::PyMemoryError, prelude::*};

/// Minimum and maximum of each component.
pub type Pair = (Vec<f32>, Vec<f32>);

/// Quantizer for vectors of `dims` components; one range for all of them without `ranges`.
pub fn quantizer(precision: &str, dims: usize, ranges: Option<Pair>) -> Result<Quantizer, Error> {
    let precision: Precision = precision.parse()?;
    let Some((starts, ends)) = ranges else { return Ok(Quantizer::new(precision, dims)) };
    let ranges = Ranges::of([starts, ends])?;
    if ranges.dims() != dims {
        let given = ranges.dims();
        let what = format!("ranges of {given} components, but the vectors have {dims}");
        return Err(Error::Option(what));
    }
    Ok(Quantizer::with_ranges(precision, ranges))
}

/// Memory of a NumPy array, written once.
pub struct Matrix {
    quantizer: Quantizer,
    rows: usize,
    values: Values,
}

/// Floats, or for other precisions raw bytes, which NumPy then views as their type.
enum Values {
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
}

impl Matrix {
    /// Allocates memory for `rows` rows.
    ///
    /// # Errors
    /// [`PyMemoryError`] if the allocation fails.
    pub fn new(quantizer: Quantizer, rows: usize) -> PyResult<Self> {
        let width = quantizer.width();
        let precision = quantizer.precision();
        let too_large = || {
            let message = format!("{rows} vectors of {width} components in {precision}");
            PyMemoryError::new_err(message)
        };
        let size = rows.checked_mul(width).ok_or_else(too_large)?;
        let values = if precision == Precision::Float32 {
            let mut floats = Vec::new();
            floats.try_reserve_exact(size).map_err(|_| too_large())?;
            Values::Floats(floats)
        } else {
            let mut bytes = Vec::new();
            let size = size * if precision == Precision::Float16 { 2 } else { 1 };
            bytes.try_reserve_exact(size).map_err(|_| too_large())?;
            Values::Bytes(bytes)
        };
        Ok(Self { quantizer, rows: 0, values })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Errors of [`Quantizer::quantize`], with the index of the row.
    pub fn push(&mut self, row: &[f32]) -> Result<(), Error> {
        match &mut self.values {
            Values::Floats(floats) => floats.extend_from_slice(row),
            Values::Bytes(bytes) => {
                let quantized = self.quantizer.quantize(row);
                let quantized = quantized.map_err(|error| error.moved(|n| self.rows + n))?;
                bytes.extend_from_slice(&quantized.to_le_bytes());
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The array: of float32, or of bytes, \[rows, bytes of a row\].
    pub fn into_array(self, py: Python<'_>) -> Bound<'_, PyAny> {
        match self.values {
            Values::Floats(floats) => array(py, self.rows, self.quantizer.width(), floats),
            Values::Bytes(bytes) => {
                let width = self.quantizer.width();
                let size = if self.quantizer.precision() == Precision::Float16 { 2 } else { 1 };
                array(py, self.rows, width * size, bytes)
            }
        }
    }
}

/// NumPy array \[rows, width\], without a copy.
pub fn array<T: numpy::Element>(
    py: Python<'_>,
    rows: usize,
    width: usize,
    values: Vec<T>,
) -> Bound<'_, PyAny> {
    let array = Array2::from_shape_vec((rows, width), values).expect("rows of this width");
    array.into_pyarray(py).into_any()
}
