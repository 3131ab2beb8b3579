//! Errors as Python exceptions: the classes are those of `jinabert/_errors.py`.

use jinabert::Error;
use pyo3::{
    prelude::*,
    types::{PyDict, PyString},
};
use std::{io, path::Path};

/// Converts an error of the library to an exception.
pub fn raise(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    let fields = PyDict::new(py);
    let class = fill(&fields, &error);
    class.map_or_else(|failed| failed, |class| exception(py, class, &message, &fields))
}

/// Exception of one of the package's classes.
pub fn raise_as(py: Python<'_>, class: &str, message: &str) -> PyErr {
    exception(py, class, message, &PyDict::new(py))
}

/// Class of an error's exception; sets its attributes other than the message.
fn fill(fields: &Bound<'_, PyDict>, error: &Error) -> PyResult<&'static str> {
    let of_file = |class: &'static str, path: &Path, source: &io::Error| -> PyResult<_> {
        fields.set_item("path", path.to_string_lossy())?;
        fields.set_item("filename", path.to_string_lossy())?;
        fields.set_item("errno", source.raw_os_error())?;
        fields.set_item("strerror", source.to_string())?;
        Ok(class)
    };
    Ok(match error {
        Error::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
            of_file("NotFoundError", path, source)?
        }
        Error::Read { path, source } => of_file("ReadError", path, source)?,
        Error::Cache { path, source, .. } => of_file("CacheError", path, source)?,
        Error::Input { index, .. } => {
            fields.set_item("index", index)?;
            "InputError"
        }
        Error::Query { .. } => "InputError",
        Error::TooLong { index, tokens, limit } => {
            fields.set_item("index", index)?;
            fields.set_item("tokens", tokens)?;
            fields.set_item("limit", limit)?;
            "TooLongError"
        }
        Error::QueryTooLong { tokens, limit } => {
            fields.set_item("tokens", tokens)?;
            fields.set_item("limit", limit)?;
            "TooLongError"
        }
        Error::Model(_) => "ModelError",
        Error::Option(_) => "OptionError",
        Error::NoGpu { .. } => "NoGpuError",
        Error::Gpu(_) | Error::Compile { .. } => "GpuError",
        Error::Memory(_) => "GpuMemoryError",
        Error::NotFinite(_) => "NotFiniteError",
        Error::Hub(_) => "HubError",
        Error::Network(_) => "NetworkError",
        _ => "JinabertError",
    })
}

fn exception(py: Python<'_>, class: &str, message: &str, fields: &Bound<'_, PyDict>) -> PyErr {
    let make = || {
        let made = py.import("jinabert._errors")?.getattr(class)?.call1((message,))?;
        for (name, value) in fields {
            made.setattr(name.cast_into::<PyString>()?, value)?;
        }
        Ok(made)
    };
    make().map_or_else(|failed| failed, PyErr::from_value)
}
