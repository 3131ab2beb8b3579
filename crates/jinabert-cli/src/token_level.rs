//! `jinabert embed --pooling none`: the last hidden state of every token.

use crate::{
    CliError,
    args::{self, Embed, Encoding, Format},
    input::Items,
    item::Item,
    npy, output,
    tasks::{self, Vectors},
    window::{Job, Window},
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
    let usage = |what: &str| Err(CliError::Usage(format!("--pooling none has no {what}")));
    if args.late_chunking {
        return usage("chunks: leave --late-chunking out");
    }
    if args.dimensions.is_some() {
        return usage("--dimensions: vectors of tokens come whole");
    }
    if args.precision.precision != args::Precision::Float32 {
        return usage("--precision but float32");
    }
    if args.precision.encoding != Encoding::Float {
        return usage("--encoding but float");
    }
    match (format(args), args.output == Path::new("-")) {
        (Format::Jsonl, true) | (Format::Npy, false) => Ok(()),
        (Format::Npy, true) => {
            usage("one npy: --output names a directory, with a file for each text")
        }
        (Format::Jsonl, false) => usage("file of lines: write them to standard output"),
        (Format::Csv | Format::Json, _) => usage("such format: jsonl or npy"),
    }
}

fn format(args: &Embed) -> Format {
    let named = || output::by_name(&args.output);
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
    let (mut texts, mut truncated) = (0, 0);
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
    let d = embedder.config().hidden as usize;
    let hidden = embedder.embed_each_token(&sequences).map_err(|e| window.at_line(e))?;
    for ((item, tokens), values) in window.items.iter().zip(&sequences).zip(&hidden) {
        match sink {
            Sink::Lines => {
                let embeddings = values.chunks_exact(d).collect();
                let (id, fields) = (item.id.as_deref(), &item.fields);
                let line = Vectors { index: item.index, id, fields, ids: &tokens.ids, embeddings };
                tasks::lines(std::iter::once(line))?;
            }
            Sink::Directory(dir) => {
                let path = dir.join(format!("{:06}.npy", item.index));
                let header = npy::header(Precision::Float32, tokens.len() as u64, d);
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                output::write_file(&path, &[&header, &bytes])?;
            }
        }
    }
    Ok(tokens.iter().filter(|(tokens, full)| *full > tokens.len()).count())
}
