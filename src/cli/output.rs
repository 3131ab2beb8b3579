//! Vectors, written as they come.

use super::{Failure, args::Format};
use serde::Serialize;
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// One result.
#[derive(Serialize)]
pub struct Record<'a> {
    /// Position in the input, from 0.
    pub index: u64,
    /// The caller's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a Value>,
    /// Tokens that went into it.
    pub tokens: usize,
    /// The vector.
    pub embedding: &'a [f32],
}

/// Writes records in one of the formats.
pub struct Writer {
    target: Target,
    format: Format,
    dims: usize,
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

/// Bytes of an npy header: room for any count, and a multiple of 64 as the format asks.
const NPY_HEADER: usize = 128;

impl Writer {
    /// Opens the output, `-` for standard output; nothing appears under a file's name yet.
    pub fn open(path: &Path, format: Option<Format>, dims: usize) -> Result<Self, Failure> {
        let format = format.or_else(|| by_name(path)).unwrap_or(Format::Jsonl);
        let target = Target::open(path, format)?;
        Ok(Self { target, format, dims, count: 0 })
    }

    fn bytes(&mut self) -> &mut dyn Write {
        self.target.bytes()
    }

    /// What stands before the first record; a run that fails before it leaves nothing on a pipe.
    fn begin(&mut self) -> io::Result<()> {
        match self.format {
            Format::Json => self.bytes().write_all(b"[")?,
            Format::Npy => self.bytes().write_all(&[0; NPY_HEADER])?,
            Format::Csv => {
                let names = ["index", "id", "tokens"].map(str::to_owned);
                let row: Vec<_> =
                    names.into_iter().chain((0..self.dims).map(|n| n.to_string())).collect();
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
        match self.format {
            Format::Json => {
                let separator: &[u8] = if self.count == 0 { b"\n" } else { b",\n" };
                self.bytes().write_all(separator)?;
                serde_json::to_writer(self.bytes(), record).map_err(io::Error::from)?;
            }
            Format::Jsonl => {
                serde_json::to_writer(self.bytes(), record).map_err(io::Error::from)?;
                self.bytes().write_all(b"\n")?;
            }
            Format::Npy => {
                for value in record.embedding {
                    self.bytes().write_all(&value.to_le_bytes())?;
                }
            }
            Format::Csv => {
                let id = match record.id {
                    None => String::new(),
                    Some(Value::String(id)) => id.clone(),
                    Some(id) => id.to_string(),
                };
                let own = [record.index.to_string(), id, record.tokens.to_string()];
                let values = record.embedding.iter().map(f32::to_string);
                self.csv_row(&own.into_iter().chain(values).collect::<Vec<_>>())?;
            }
        }
        self.count += 1;
        Ok(())
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
        if self.format == Format::Json {
            self.bytes().write_all(b"\n]\n")?;
        }
        self.flush()?;
        let header = npy_header(self.count, self.dims);
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
                if self.format == Format::Npy {
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

fn by_name(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "json" => Some(Format::Json),
        "jsonl" => Some(Format::Jsonl),
        "npy" => Some(Format::Npy),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

/// NumPy's array format 1.0: magic, version, header length, and a Python dict padded with spaces.
fn npy_header(rows: u64, cols: usize) -> Vec<u8> {
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(NPY_HEADER as u16 - 10).to_le_bytes());
    header.extend_from_slice(dict.as_bytes());
    header.resize(NPY_HEADER - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_npy_header_has_its_size_for_any_count() {
        for (rows, cols) in [(0, 1), (u64::MAX, 65_536)] {
            let header = npy_header(rows, cols);
            assert_eq!(header.len(), NPY_HEADER);
            assert_eq!((&header[..8], header[NPY_HEADER - 1]), (&b"\x93NUMPY\x01\x00"[..], b'\n'));
        }
    }
}
