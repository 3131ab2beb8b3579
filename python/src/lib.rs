//! `jinabert._native`: the native part of `jinabert/_embedder.py`, which is the public API.

mod call;
mod errors;
mod model;
mod opening;
mod vectors;

use jinabert::Error;
use model::Model;
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vectors::{Matrix, Pair};

/// Sets the number of CPU threads of this process.
#[pyfunction]
fn set_num_threads(py: Python<'_>, threads: usize) -> PyResult<()> {
    call::not_forked(py)?;
    let refused = |what: String| errors::raise(py, Error::Option(what));
    if threads == 0 {
        return Err(refused("0 threads compute nothing".to_owned()));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|_| {
        let there = rayon::current_num_threads();
        refused(format!(
            "the {there} threads of this process are at work already: set_num_threads comes before \
             the first Embedder"
        ))
    })
}

/// Converts vectors to another precision.
#[pyfunction]
fn quantize<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray2<'py, f32>,
    precision: &str,
    ranges: Option<Pair>,
) -> PyResult<Bound<'py, PyAny>> {
    let [count, dims] = [0, 1].map(|axis| rows.shape()[axis]);
    let quantizer = vectors::quantizer(precision, dims, ranges);
    let quantizer = quantizer.map_err(|error| errors::raise(py, error))?;
    let mut matrix = Matrix::new(quantizer, count)?;
    let rows = rows.as_slice()?;
    call::briefly(py, || rows.chunks_exact(dims.max(1)).try_for_each(|row| matrix.push(row)))?;
    Ok(matrix.into_array(py))
}

/// Waits for work that Ctrl-C abandoned.
#[pyfunction]
fn settle(py: Python<'_>) {
    call::settle(py);
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Model>()?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(quantize, module)?)?;
    module.add_function(wrap_pyfunction!(settle, module)?)
}
