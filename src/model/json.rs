//! JSON files of a model, with errors that name them.

use crate::{error::Error, files::Files};
use serde_json::{Map, Value};

/// Reads a JSON file, if it exists.
///
/// # Errors
/// [`Error::Read`], and [`Error::Model`] if it is not JSON.
pub fn json_file(files: &Files, name: &str) -> Result<Option<Value>, Error> {
    if !files.has(name) {
        return Ok(None);
    }
    parse(files, name).map(Some)
}

fn parse(files: &Files, name: &str) -> Result<Value, Error> {
    serde_json::from_str(&files.text(name)?).map_err(|e| bad(files, name, &e.to_string()))
}

/// Reads a file that must exist and hold an object.
///
/// # Errors
/// [`Error::Read`] and [`Error::Model`]
pub fn object(files: &Files, name: &str) -> Result<Map<String, Value>, Error> {
    match parse(files, name)? {
        Value::Object(map) => Ok(map),
        _ => Err(bad(files, name, "expected an object")),
    }
}

/// Error for a file.
pub fn bad(files: &Files, name: &str, what: &str) -> Error {
    Error::Model(format!("`{}`: {what}", files.path(name).display()))
}
