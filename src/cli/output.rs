//! Vectors, written as they come.

use super::{
    Failure,
    args::{Encoding, Format},
    npy,
};
use crate::precision::{Precision, Quantized};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// One result.
pub struct Record<'a> {
    /// Position in the input, from 0.
    pub index: u64,
    /// The caller's name for it.
    pub id: Option<&'a Value>,
    /// Which part of the text it is, where texts are in chunks.
    pub part: Option<Part<'a>>,
    /// Tokens that went into it.
    pub tokens: usize,
    /// The vector.
    pub embedding: Quantized<'a>,
}

/// A chunk of a text.
#[derive(Clone, Copy, Serialize)]
pub struct Part<'a> {
    /// Position in the text, from 0.
    pub chunk: usize,
    /// First character, in Unicode code points.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
    /// What it says.
    pub text: &'a str,
}

/// A record in JSON.
#[derive(Serialize)]
struct Object<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(flatten)]
    part: Option<Part<'a>>,
    tokens: usize,
    embedding: Embedding<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding<'a> {
    Float(&'a Quantized<'a>),
    Base64(String),
}

/// How vectors are written.
#[derive(Clone, Copy)]
pub struct Style {
    pub format: Format,
    pub encoding: Encoding,
    pub precision: Precision,
    /// Numbers that a vector has.
    pub width: usize,
    /// Whether vectors are of chunks.
    pub chunks: bool,
}

/// Writes records in one of the formats.
pub struct Writer {
    target: Target,
    style: Style,
    count: u64,
}

/// Where bytes go.  A regular file is written under a temporary name beside it and renamed when
/// whole.
enum Target {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// A device or pipe by name.
    Special(BufWriter<File>),
    File {
        file: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
    /// An npy for standard output: its header needs the count, so the data wait in a file.
    Spool(BufWriter<File>),
}

impl Target {
    fn open(path: &Path, format: Format) -> Result<Self, Failure> {
        let create = |source| Failure::Create { path: path.to_owned(), source };
        Ok(if path == Path::new("-") {
            match format {
                Format::Npy => Self::Spool(BufWriter::new(tempfile::tempfile().map_err(create)?)),
                _ => Self::Stdout(BufWriter::new(io::stdout().lock())),
            }
        } else if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            let file = OpenOptions::new().write(true).open(path).map_err(create)?;
            match format {
                Format::Npy => return Err(create(io::Error::other("npy needs a file or -"))),
                _ => Self::Special(BufWriter::new(file)),
            }
        } else {
            // Through a link, not over it.
            let path = match path.is_symlink() {
                true => fs::canonicalize(path).map_err(create)?,
                false => path.to_owned(),
            };
            Self::File { file: temporary(&path).map_err(create)?, path }
        })
    }

    fn bytes(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(out) => out,
            Self::Special(out) | Self::Spool(out) => out,
            Self::File { file, .. } => file,
        }
    }
}

impl Writer {
    /// Opens the output, `-` for standard output; nothing appears under a file's name yet.
    pub fn open(path: &Path, style: Style) -> Result<Self, Failure> {
        Ok(Self { target: Target::open(path, style.format)?, style, count: 0 })
    }

    fn bytes(&mut self) -> &mut dyn Write {
        self.target.bytes()
    }

    /// What stands before the first record; a run that fails before it leaves nothing on a pipe.
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
    pub fn write(&mut self, record: &Record) -> Result<(), Failure> {
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
                let id = match record.id {
                    None => String::new(),
                    Some(Value::String(id)) => id.clone(),
                    Some(id) => id.to_string(),
                };
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
        let &Record { index, id, part, tokens, ref embedding } = record;
        let embedding = match self.style.encoding {
            Encoding::Float => Embedding::Float(embedding),
            Encoding::Base64 => Embedding::Base64(BASE64_STANDARD.encode(embedding.to_le_bytes())),
        };
        let object = Object { index, id, part, tokens, embedding };
        Ok(serde_json::to_writer(self.bytes(), &object)?)
    }

    fn csv_row(&mut self, row: &[String]) -> io::Result<()> {
        // Not straight to the output: a csv writer flushes that too, once for each row.
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(row).map_err(io::Error::from)?;
        let row = csv.into_inner().map_err(|e| io::Error::other(e.to_string()))?;
        self.bytes().write_all(&row)
    }

    /// Hands everything written so far to the reader of a pipe or terminal.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.bytes().flush()?)
    }

    /// Completes the output and gives a file its name.
    pub fn finish(mut self) -> Result<(), Failure> {
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
            Target::Stdout(_) | Target::Special(_) => {}
            Target::Spool(spool) => {
                let mut file = spool.into_inner().map_err(io::IntoInnerError::into_error)?;
                complete(&mut file, &header)?;
                file.seek(SeekFrom::Start(0))?;
                io::copy(&mut file, &mut io::stdout().lock())?;
            }
            Target::File { file, path } => {
                let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                if self.style.format == Format::Npy {
                    complete(file.as_file_mut(), &header)?;
                }
                persist(file, path)?;
            }
        }
        Ok(())
    }
}

/// A text that is written at once; nothing appears under a file's name before.
pub struct Page(Target);

impl Page {
    /// Opens the output, `-` for standard output.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Target::open(path, Format::Json).map(Self)
    }

    /// Writes it.
    pub fn write(mut self, text: &str) -> Result<(), Failure> {
        self.0.bytes().write_all(text.as_bytes())?;
        self.0.bytes().flush()?;
        match self.0 {
            Target::File { file, path } => {
                persist(file.into_inner().map_err(io::IntoInnerError::into_error)?, path)
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file that appears whole or not at all.
pub fn write_file(path: &Path, parts: &[&[u8]]) -> Result<(), Failure> {
    let create = |source| Failure::Create { path: path.to_owned(), source };
    let mut file = temporary(path).map_err(create)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    persist(file.into_inner().map_err(io::IntoInnerError::into_error)?, path.to_owned())
}

/// Gives a file its name.
fn persist(file: NamedTempFile, path: PathBuf) -> Result<(), Failure> {
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|e| Failure::Create { path, source: e.error })?;
    Ok(())
}

fn complete(file: &mut File, header: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header)
}

/// A temporary file in the directory of `path`, with the permissions a new file would have.
fn temporary(path: &Path) -> io::Result<BufWriter<NamedTempFile>> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".jinabert-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // less the process's umask
    }
    Ok(BufWriter::new(builder.tempfile_in(dir)?))
}

/// The format that a file's name says, if it says one.
pub fn by_name(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "json" => Some(Format::Json),
        "jsonl" => Some(Format::Jsonl),
        "npy" => Some(Format::Npy),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}
