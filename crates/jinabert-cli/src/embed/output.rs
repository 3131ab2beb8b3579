//! Output of vectors, record by record.

use super::{
    args::{Encoding, Format},
    npy,
};
use crate::{
    atomic_file::{AtomicFile, replace_start},
    error::CliError,
    item::Fields,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jinabert::precision::{Precision, Quantized};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

/// One result.
pub struct Record<'a> {
    /// Position in the input, from 0.
    pub index: u64,
    /// Id that the caller gave the item.
    pub id: Option<&'a RawValue>,
    /// Fields of the input that are copied to JSON.
    pub fields: &'a Fields,
    /// Chunk of the text, if texts are split into chunks.
    pub part: Option<Part<'a>>,
    /// Tokens that the model read for it.
    pub tokens: usize,
    /// Its vector.
    pub embedding: Quantized<'a>,
}

/// Chunk of a text.
#[derive(Clone, Copy, Serialize)]
pub struct Part<'a> {
    /// Position in the text, from 0.
    pub chunk: usize,
    /// Start in the text, in Unicode code points.
    pub start: usize,
    /// End in the text, exclusive.
    pub end: usize,
    /// Text of the chunk.
    pub text: &'a str,
}

/// Record as a JSON object.
#[derive(Serialize)]
struct JsonRecord<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(flatten)]
    fields: &'a Fields,
    #[serde(flatten)]
    part: Option<Part<'a>>,
    tokens: usize,
    embedding: EncodedVector<'a>,
}

/// Vector in the encoding of JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum EncodedVector<'a> {
    Float(&'a Quantized<'a>),
    Base64(String),
}

/// Format of the output.
#[derive(Clone, Copy)]
pub struct Style {
    pub format: Format,
    pub encoding: Encoding,
    pub precision: Precision,
    /// Numbers in one vector.
    pub width: usize,
    /// Vectors are of chunks.
    pub chunks: bool,
}

/// Writer of records in one of the formats.
pub struct Writer {
    target: VectorFile,
    style: Style,
    count: u64,
}

/// File or stream that the vectors are written to.
enum VectorFile {
    Stream(AtomicFile),
    /// npy for standard output: its header needs the count, so the data wait in a temporary file.
    Spool(BufWriter<File>),
}

impl VectorFile {
    fn open(path: &Path, format: Format) -> Result<Self, CliError> {
        if format != Format::Npy {
            return AtomicFile::open(path).map(Self::Stream);
        }
        if path == Path::new("-") {
            let spool = tempfile::tempfile()
                .map_err(|source| CliError::Spool { dir: tempfile::env::temp_dir(), source });
            return Ok(Self::Spool(BufWriter::new(spool?)));
        }
        let file = AtomicFile::open(path)?;
        if !file.is_regular() {
            let source = io::Error::other("npy needs a file or -");
            return Err(CliError::Create { path: path.to_owned(), source });
        }
        Ok(Self::Stream(file))
    }

    fn bytes(&mut self) -> &mut dyn Write {
        match self {
            Self::Stream(file) => file.bytes(),
            Self::Spool(out) => out,
        }
    }
}

impl Writer {
    /// Opens the output, `-` for standard output; a file gets its name only when complete.
    pub fn open(path: &Path, style: Style) -> Result<Self, CliError> {
        Ok(Self { target: VectorFile::open(path, style.format)?, style, count: 0 })
    }

    fn bytes(&mut self) -> &mut dyn Write {
        self.target.bytes()
    }

    /// Writes the header, at the first record: a run that fails earlier leaves nothing on a pipe.
    fn begin(&mut self) -> io::Result<()> {
        match self.style.format {
            Format::Json => self.bytes().write_all(b"[")?,
            Format::Npy => self.bytes().write_all(&[0; npy::HEADER])?,
            Format::Csv => {
                let chunk: &[&str] =
                    if self.style.chunks { &["chunk", "start", "end", "text"] } else { &[] };
                let names = [&["index", "id"], chunk, &["tokens"]].concat();
                let names = names.into_iter().map(str::to_owned);
                let row: Vec<_> =
                    names.chain((0..self.style.width).map(|n| n.to_string())).collect();
                self.csv_row(&row)?;
            }
            Format::Jsonl => {}
        }
        Ok(())
    }

    /// Appends one record.
    pub fn write(&mut self, record: &Record) -> Result<(), CliError> {
        if self.count == 0 {
            self.begin()?;
        }
        match self.style.format {
            Format::Json => {
                let separator: &[u8] = if self.count == 0 { b"\n" } else { b",\n" };
                self.bytes().write_all(separator)?;
                self.json(record)?;
            }
            Format::Jsonl => {
                self.json(record)?;
                self.bytes().write_all(b"\n")?;
            }
            Format::Npy => self.bytes().write_all(&record.embedding.to_le_bytes())?,
            Format::Csv => {
                // JSON strings without quotes, other values as written in the input.
                let id = record.id.map_or("", RawValue::get);
                let id = serde_json::from_str(id).unwrap_or_else(|_| id.to_owned());
                let mut row = vec![record.index.to_string(), id];
                if let Some(Part { chunk, start, end, text }) = record.part {
                    row.extend([chunk, start, end].map(|n| n.to_string()));
                    row.push(text.to_owned());
                }
                row.push(record.tokens.to_string());
                row.extend(record.embedding.to_decimals());
                self.csv_row(&row)?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn json(&mut self, record: &Record) -> io::Result<()> {
        let &Record { index, id, fields, part, tokens, ref embedding } = record;
        let embedding = match self.style.encoding {
            Encoding::Float => EncodedVector::Float(embedding),
            Encoding::Base64 => {
                EncodedVector::Base64(BASE64_STANDARD.encode(embedding.to_le_bytes()))
            }
        };
        let object = JsonRecord { index, id, fields, part, tokens, embedding };
        Ok(serde_json::to_writer(self.bytes(), &object)?)
    }

    fn csv_row(&mut self, row: &[String]) -> io::Result<()> {
        // Through a buffer: a csv writer flushes the output once for each row.
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(row).map_err(io::Error::from)?;
        let row = csv.into_inner().map_err(|e| io::Error::other(e.to_string()))?;
        self.bytes().write_all(&row)
    }

    /// Flushes the records written so far to a pipe or terminal.
    pub fn flush(&mut self) -> Result<(), CliError> {
        Ok(self.bytes().flush()?)
    }

    /// Completes the output and renames the file.
    pub fn finish(mut self) -> Result<(), CliError> {
        if self.count == 0 {
            self.begin()?;
        }
        if self.style.format == Format::Json {
            self.bytes().write_all(b"\n]\n")?;
        }
        self.flush()?;
        let Style { precision, width, .. } = self.style;
        let header = npy::header(precision, self.count, width);
        match self.target {
            VectorFile::Stream(file) if self.style.format == Format::Npy => {
                file.finish_with_start(&header)
            }
            VectorFile::Stream(file) => file.finish(),
            VectorFile::Spool(spool) => {
                let mut file = spool.into_inner().map_err(io::IntoInnerError::into_error)?;
                replace_start(&mut file, &header)?;
                file.seek(SeekFrom::Start(0))?;
                io::copy(&mut file, &mut io::stdout().lock())?;
                Ok(())
            }
        }
    }
}
