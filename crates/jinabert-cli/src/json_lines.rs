//! Output as lines of JSON.

use crate::{atomic_file::AtomicFile, error::CliError, item::Fields};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{io, path::Path};

/// Text with a vector for each of its tokens.
#[derive(Serialize)]
pub struct TokenVectorsLine<'a> {
    /// Position in the input, from 0.
    pub index: u64,
    /// Id that the caller gave the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a RawValue>,
    /// Fields of the input that are copied.
    #[serde(flatten)]
    pub fields: &'a Fields,
    /// Token ids.
    pub ids: &'a [u32],
    /// Vectors of the tokens.
    pub embeddings: Vec<&'a [f32]>,
}

/// Writes each record as a line of JSON to standard output.
pub fn write<T: Serialize>(records: impl Iterator<Item = T>) -> Result<(), CliError> {
    write_to(AtomicFile::open(Path::new("-"))?, records)
}

/// Writes each record as a line of JSON to a file, and completes it.
pub fn write_to<T: Serialize>(
    mut file: AtomicFile,
    records: impl Iterator<Item = T>,
) -> Result<(), CliError> {
    for record in records {
        serde_json::to_writer(file.bytes(), &record).map_err(io::Error::from)?;
        file.bytes().write_all(b"\n")?;
    }
    file.finish()
}
