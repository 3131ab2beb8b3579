//! `jinabert embed --pooling none`: the last hidden state of every token.

use super::{
    args::{self, Embed, Encoding, Format},
    npy,
    window::{Job, Window},
};
use crate::{
    atomic_file::write_file,
    error::CliError,
    input::Items,
    item::Item,
    json_lines::{self, TokenVectorsLine},
};
use jinabert::{Embedder, batch::Tokens, precision::Precision};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Texts embedded together: 2048 tokens of hidden size 768 are 6 MB.
const ITEMS: usize = 16;

/// Destination of vectors.
enum Sink {
    /// Standard output, a line of JSON for each text.
    Lines,
    /// Directory, a file for each text.
    Directory(PathBuf),
}

/// Checks that the options are compatible, before anything is opened.
pub fn check(args: &Embed) -> Result<(), CliError> {
    fn usage(what: &str) -> Result<(), CliError> {
        Err(CliError::Usage(format!("--pooling none {what}")))
    }
    if args.late_chunking {
        return usage("has no chunks: expected no --late-chunking");
    }
    if args.dimensions.is_some() {
        return usage("does not truncate vectors: expected no --dimensions");
    }
    if args.precision.precision != args::Precision::Float32 {
        return usage("writes float32 only: expected no other --precision");
    }
    if args.precision.encoding != Encoding::Float {
        return usage("writes numbers only: expected no --encoding but float");
    }
    match (format(args), args.output == Path::new("-")) {
        (Format::Jsonl, true) | (Format::Npy, false) => Ok(()),
        (Format::Npy, true) => {
            usage("writes an npy file for each text: expected a directory as --output")
        }
        (Format::Jsonl, false) => {
            usage("writes jsonl to standard output only: expected no --output")
        }
        (Format::Csv | Format::Json, _) => usage("has no such format: expected jsonl or npy"),
    }
}

/// Format as requested, or by the output.
fn format(args: &Embed) -> Format {
    let named = || Format::by_name(&args.output);
    let default = if args.output == Path::new("-") { Format::Jsonl } else { Format::Npy };
    args.format.or_else(named).unwrap_or(default)
}

/// Embeds the items of an input, or `texts`.
pub fn run(args: &Embed, job: Job, input: Option<Items>) -> Result<(), CliError> {
    let sink = match format(args) {
        Format::Npy => {
            let create = |source| CliError::Create { path: args.output.clone(), source };
            fs::create_dir_all(&args.output).map_err(create)?;
            Sink::Directory(args.output.clone())
        }
        _ => Sink::Lines,
    };
    let mut texts = 0;
    let mut truncated = 0;
    let mut next = match input {
        None => Box::new(std::iter::once(Ok(Items::of_texts(&args.text))))
            as Box<dyn Iterator<Item = _>>,
        Some(mut items) => Box::new(std::iter::from_fn(move || group(&mut items).transpose())),
    };
    for group in &mut next {
        let window = Window::new(group?, 0, &job)?;
        texts += window.items.len() as u64;
        truncated += write(&window, &job.embedder, &sink)?;
    }
    if truncated > 0 {
        let limit = job.embedder.max_length();
        tracing::warn!("truncated {truncated} of {texts} texts to {limit} tokens");
    }
    if let Some(skipped) = &job.skipped {
        skipped.report(texts);
    }
    Ok(())
}

/// Reads the next items; `None` at the end.
fn group(items: &mut Items) -> Result<Option<Vec<Item>>, CliError> {
    let mut group = Vec::new();
    while group.len() < ITEMS {
        match items.next()? {
            Some(item) => group.push(item),
            None => break,
        }
    }
    Ok(Some(group).filter(|group| !group.is_empty()))
}

/// Writes the vectors of a window; returns the number of truncated texts.
fn write(window: &Window, embedder: &Embedder, sink: &Sink) -> Result<usize, CliError> {
    let tokens: Vec<(&Tokens, usize)> = window.tokens();
    let sequences: Vec<&Tokens> = tokens.iter().map(|(tokens, _)| *tokens).collect();
    let width = embedder.config().hidden as usize;
    let hidden = embedder.tokens().each_token(&sequences);
    let hidden = hidden.map_err(|error| window.with_position(error))?;
    for ((item, tokens), values) in window.items.iter().zip(&sequences).zip(&hidden) {
        match sink {
            Sink::Lines => {
                let line = TokenVectorsLine {
                    index: item.index,
                    id: item.id.as_deref(),
                    fields: &item.fields,
                    ids: &tokens.ids,
                    embeddings: values.chunks_exact(width).collect(),
                };
                json_lines::write(std::iter::once(line))?;
            }
            Sink::Directory(dir) => {
                let path = dir.join(format!("{:06}.npy", item.index));
                let header = npy::header(Precision::Float32, tokens.len() as u64, width);
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                write_file(&path, &[&header, &bytes])?;
            }
        }
    }
    Ok(tokens.iter().filter(|(tokens, full)| *full > tokens.len()).count())
}
