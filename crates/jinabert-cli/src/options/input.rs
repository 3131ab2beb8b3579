//! Arguments for the input of texts.

use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// Input file and format.
#[derive(clap::Args)]
pub struct InputArgs {
    /// Input file, or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// Input format [default: by file name extension: jsonl for .jsonl and .ndjson, json for .json,
    /// otherwise lines].
    #[arg(long, value_enum)]
    pub input_format: Option<InputFormat>,
    /// Copy the other fields of each JSON object unchanged to its JSON output.
    #[arg(long)]
    pub keep_fields: bool,
    /// Skip invalid lines and texts over the limit instead of stopping at the first one; report
    /// their number and the first error on stderr.
    #[arg(long)]
    pub skip_bad_lines: bool,
}

/// Input format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// One text per line.
    Lines,
    /// One JSON object per line, with "text" or "ids".
    #[value(alias = "ndjson")]
    Jsonl,
    /// JSON list of such objects or of texts; or as jsonl.
    Json,
}

impl InputFormat {
    /// Format by the file name extension, ignoring case.
    pub fn by_name(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Self::Jsonl,
            "json" => Self::Json,
            _ => Self::Lines,
        }
    }
}
