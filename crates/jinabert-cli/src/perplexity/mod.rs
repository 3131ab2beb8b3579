//! `jinabert perplexity`

mod args;
mod curve;

pub use args::PerplexityArgs;

use crate::{atomic_file::AtomicFile, error::CliError, progress::Progress, source};
use args::MaskEvery;
use jinabert::{Embedder, Error, LengthBucket, Options, Perplexity, PerplexityOptions, Task};
use serde::Serialize;
use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal, Read, Write as _},
    path::{Path, PathBuf},
};

/// JSON report.
#[derive(Serialize)]
struct PerplexityReport<'a> {
    model: &'a str,
    device: &'a str,
    /// 0 if each token is masked alone.
    mask_every: usize,
    stride: Option<usize>,
    regions: usize,
    region_tokens: usize,
    unknown: usize,
    special: usize,
    texts: usize,
    texts_left_out: usize,
    lengths: Vec<PerplexityLine>,
}

/// JSON record of one length.
#[derive(Serialize)]
struct PerplexityLine {
    length: usize,
    windows: usize,
    tokens: usize,
    nll: f64,
    nll_error: Option<f64>,
    perplexity: f64,
    difference: f64,
    difference_error: Option<f64>,
}

impl From<&LengthBucket> for PerplexityLine {
    fn from(bucket: &LengthBucket) -> Self {
        Self {
            length: bucket.length,
            windows: bucket.windows,
            tokens: bucket.tokens,
            nll: bucket.nll,
            nll_error: bucket.nll_error,
            perplexity: bucket.perplexity(),
            difference: bucket.difference,
            difference_error: bucket.difference_error,
        }
    }
}

/// Measures the perplexity of a model on texts.
pub fn run(args: &PerplexityArgs, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "perplexity", "a masked language model")?;
    let (paths, texts) = texts(&args.file)?;
    let svg_out = args.svg.as_deref() == Some(Path::new("-"));
    if svg_out && args.json {
        return Err(CliError::Usage("only one of --json and --svg can be standard output".into()));
    }
    let mask_every = match args.mask_every {
        MaskEvery::Exact => 0,
        MaskEvery::Every(n) => n,
    };
    let measure = PerplexityOptions {
        lengths: args.lengths.clone(),
        windows: args.windows,
        stride: args.stride,
        mask_every,
    };
    let options = Options { task: Task::FillMask, ..args.model.options()? };
    let (embedder, dir) = source::open(&args.model, options, "perplexity", quiet)?;
    let name = source::name(&args.model.source, &dir);
    let svg = args.svg.as_deref().map(AtomicFile::open).transpose()?;

    let mut progress = Progress::new(Some(0), quiet);
    let measured = embedder.pseudo_perplexity(&texts, &measure, |done, total| {
        progress.set_length(total);
        let rate = done as f64 / progress.elapsed().as_secs_f64();
        progress.show(done, format!("{rate:.0} tokens/s"));
    });
    progress.finish();
    let measured = measured.map_err(|error| match error {
        Error::Input { index, what } => CliError::Text { path: paths[index].clone(), what },
        other => other.into(),
    })?;
    warn(&measured, texts.len());
    let out = match (args.json, svg_out) {
        (true, _) => json(&name, &embedder, &measure, &measured, texts.len())?,
        (false, true) => String::new(),
        (false, false) => table(&measured, mask_every),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()?;
    svg.map_or(Ok(()), |page| page.write(&curve::plot(&name, &measured, mask_every)))
}

/// Warns about results that were requested but are missing.
fn warn(measured: &Perplexity, texts: usize) {
    let Perplexity { without_text, texts_left_out, region_tokens, .. } = measured;
    if !without_text.is_empty() {
        let lengths: Vec<_> = without_text.iter().map(usize::to_string).collect();
        tracing::warn!("left out {}: no text is as long", lengths.join(", "));
    }
    if *texts_left_out > 0 {
        tracing::warn!(
            "left out {texts_left_out} of {texts} texts: they have fewer than {region_tokens} \
             tokens, which the longest window reads"
        );
    }
}

/// Reads whole files, or standard input.
fn texts(files: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<String>), CliError> {
    let stdin = [PathBuf::from("-")];
    let paths = match files {
        [] if io::stdin().is_terminal() => {
            return Err(CliError::Usage("no text: give FILE, or pipe one in".into()));
        }
        [] => &stdin,
        files => files,
    };
    let mut texts = Vec::new();
    for path in paths {
        let read = if path == Path::new("-") { read_stdin() } else { fs::read(path) };
        let bytes = read.map_err(|source| CliError::Input { path: path.clone(), source })?;
        let bad = |what: String| CliError::Text { path: path.clone(), what };
        let text = String::from_utf8(bytes)
            .map_err(|e| bad(format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        if text.is_empty() {
            return Err(bad("empty: no text to measure".to_owned()));
        }
        texts.push(text.to_owned());
    }
    Ok((paths.to_vec(), texts))
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Report as JSON.
fn json(
    name: &str,
    embedder: &Embedder,
    measure: &PerplexityOptions,
    measured: &Perplexity,
    texts: usize,
) -> Result<String, CliError> {
    let report = PerplexityReport {
        model: name,
        device: &embedder.device(),
        mask_every: measure.mask_every,
        stride: measure.stride,
        regions: measured.regions,
        region_tokens: measured.region_tokens,
        unknown: measured.unknown,
        special: measured.special,
        texts,
        texts_left_out: measured.texts_left_out,
        lengths: measured.lengths.iter().map(PerplexityLine::from).collect(),
    };
    Ok(serde_json::to_string_pretty(&report).map_err(io::Error::from)? + "\n")
}

/// Description of `mask_every` for people.
pub fn masking(mask_every: usize) -> String {
    match mask_every {
        0 => "one token masked at a time".to_owned(),
        n => format!("one token of {n} masked at a time"),
    }
}

/// Formats a standard error, or a dash if it is unknown.
fn standard_error(error: Option<f64>) -> String {
    error.map_or("–".to_owned(), |error| format!("{error:.4}"))
}

/// Table with a line for each length, and the totals.
fn table(measured: &Perplexity, mask_every: usize) -> String {
    let Perplexity { lengths, regions, region_tokens, unknown, special, .. } = measured;
    let first = lengths.first().map_or(0, |at| at.length);
    let mut out = format!(
        "{:>7}{:>9}{:>10}{:>9}{:>9}{:>13}{:>11}{:>9}\n",
        "length",
        "windows",
        "tokens",
        "NLL",
        "± SE",
        "perplexity",
        format!("NLL−{first}"),
        "± SE"
    );
    for at in lengths {
        let LengthBucket { length, windows, tokens, nll, difference, .. } = at;
        let own = standard_error(at.nll_error);
        let from_first = standard_error(at.difference_error);
        let perplexity = at.perplexity();
        writeln!(
            out,
            "{length:>7}{windows:>9}{tokens:>10}{nll:>9.4}{own:>9}{perplexity:>13.3}{difference:>+11.4}{from_first:>9}"
        )
        .expect("a string takes all");
    }
    let read = regions * region_tokens;
    let each = if *regions == 1 { "1 region".to_owned() } else { format!("{regions} regions") };
    let masking = masking(mask_every);
    writeln!(out, "{each} of {region_tokens} tokens, {masking}; NLL in nats, SE over regions")
        .expect("a string takes all");
    writeln!(out, "not scored: {unknown} unknown and {special} special tokens of {read}")
        .expect("a string takes all");
    out
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Result with three lengths, the last without standard errors.
    pub fn measured() -> Perplexity {
        let at = |length, nll, nll_error| LengthBucket {
            length,
            windows: 16_384 / length,
            tokens: 1000,
            nll,
            nll_error,
            difference: nll - 3.0,
            difference_error: nll_error,
        };
        Perplexity {
            lengths: vec![at(128, 3.0, Some(0.02)), at(1024, 2.9, Some(0.03)), at(8192, 2.8, None)],
            without_text: Vec::new(),
            texts_left_out: 0,
            regions: 2,
            region_tokens: 8190,
            unknown: 3,
            special: 0,
        }
    }

    #[test]
    fn columns_meet() {
        let table = table(&measured(), 7);
        let lines: Vec<&str> = table.lines().collect();
        let widths = lines[..4].iter().map(|line| line.chars().count());
        assert!(widths.clone().all(|width| width == 77), "{table}");
        assert!(lines[1].ends_with("20.086    +0.0000   0.0200"), "{table}");
        assert!(lines[3].contains("–") && lines[3].contains("-0.2000"), "{table}");
        assert_eq!(lines[5], "not scored: 3 unknown and 0 special tokens of 16380");
        assert!(super::table(&measured(), 0).contains("one token masked at a time"));
    }
}
