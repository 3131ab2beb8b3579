//! Token vectors that `multi-vector --output` has kept, scored for a query.

use crate::{error::CliError, item::Fields};
use jinabert::{Error, TokenVectors};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// Document whose vectors were kept, without them.
pub struct Kept {
    /// Position in the input of the run that kept it, from 0.
    pub index: u64,
    /// Id that the caller gave it.
    pub id: Option<Box<RawValue>>,
    /// Fields of the input that were copied.
    pub fields: Fields,
    /// Number of its vectors.
    pub tokens: usize,
}

/// Scores each document of a file for a query; one document is held at a time.
pub fn scores(query: &TokenVectors, path: &Path) -> Result<Vec<(f32, Kept)>, CliError> {
    let failed = |source| CliError::Input { path: path.to_owned(), source };
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(failed)?))
    };
    let mut scores = Vec::new();
    for (line, json) in (1..).zip(reader.lines()) {
        let json = json.map_err(failed)?;
        if json.trim().is_empty() {
            continue;
        }
        let scored = score(query, &json);
        let scored = scored.map_err(|what| CliError::File { path: path.to_owned(), line, what });
        scores.push(scored?);
    }
    Ok(scores)
}

/// Score of the document in a line.
fn score(query: &TokenVectors, json: &str) -> Result<(f32, Kept), String> {
    let mut fields: Fields = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let id = fields.take("id");
    let index = field(&mut fields, "index")?;
    let ids: Vec<u32> = field(&mut fields, "ids")?;
    let rows: Vec<Vec<f32>> = field(&mut fields, "embeddings")?;
    let vectors = TokenVectors::from_rows(ids, &rows).map_err(|error| match error {
        Error::Input { index, what } => format!("embeddings: vector {index}: {what}"),
        other => other.to_string(),
    })?;
    if vectors.dim != query.dim {
        let (query, kept) = (query.dim, vectors.dim);
        return Err(format!("expected vectors of {query} components, as the query's, got {kept}"));
    }
    let tokens = vectors.ids.len();
    Ok((query.max_sim(&vectors), Kept { index, id, fields, tokens }))
}

/// Takes a field out and parses it.
fn field<T: DeserializeOwned>(fields: &mut Fields, name: &str) -> Result<T, String> {
    let json = fields.take(name).ok_or_else(|| {
        format!("expected the fields of `multi-vector`'s output, got none named `{name}`")
    })?;
    serde_json::from_str(json.get()).map_err(|error| format!("{name}: {error}"))
}
