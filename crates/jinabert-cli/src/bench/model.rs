//! Timing of the whole model: one forward over given token ids.

use super::stats::{Limits, Spread};
use jinabert::{Embedder, Error, batch::Tokens, recording::Span};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

/// A first run that takes longer than this is used as the measurement.
const SLOW: Duration = Duration::from_secs(40);

/// Durations of a forward.
#[derive(Clone, Copy, Debug)]
pub struct ForwardTiming {
    /// First run, including one-time setup.
    pub first: Duration,
    /// Runs after the first.
    pub runs: Spread,
}

/// Record of `jinabert bench model`, with the fields that benchmarks of other engines print.
#[derive(Serialize)]
pub struct ModelLine<'a> {
    /// This crate and its version.
    pub engine: &'static str,
    /// Name of the device, for people.
    pub device: &'a str,
    /// Dtype of arithmetic and storage.
    pub dtype: &'a str,
    /// Name of the model's directory.
    pub model: &'a str,
    /// Name of the file of ids, without its extension.
    pub workload: &'a str,
    /// Number of sequences.
    pub sequences: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Tokens a second, at the median.
    pub tokens_per_s: f64,
    /// Median.
    pub ms: f64,
    /// Fastest run.
    pub min_ms: f64,
    /// First run.
    pub first_ms: f64,
    /// Number of runs after the first.
    pub runs: usize,
    /// Peak memory of this process, if the system reports it.
    pub rss_mb: Option<f64>,
    /// Time of each kernel, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels_ms: Option<BTreeMap<&'static str, f64>>,
    /// [`KernelTimes::attention_kept`], if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_kept: Option<f64>,
    /// Share of the median that is spent outside kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<f64>,
}

/// The crate and its version.
pub const ENGINE: &str = concat!("jinabert ", env!("CARGO_PKG_VERSION"));

impl ModelLine<'_> {
    /// Record as text for people.
    pub fn text(&self) -> String {
        let rss = self.rss_mb.map_or(String::new(), |mb| format!(", {mb:.0} MB"));
        format!(
            "{}: {} sequences, {} tokens: {:.1} tokens/s, {:.2} ms (min {:.2}, first {:.2}, {} runs){rss}",
            self.workload,
            self.sequences,
            self.tokens,
            self.tokens_per_s,
            self.ms,
            self.min_ms,
            self.first_ms,
            self.runs
        ) + &self.kernels()
    }

    fn kernels(&self) -> String {
        let line = |(word, ms): (&&str, &f64)| {
            let kept = match (*word, self.attention_kept) {
                ("attention", Some(kept)) => {
                    format!("  {kept:.3} of all pairs of queries and keys")
                }
                _ => String::new(),
            };
            format!("\n  {word:<14}{ms:>10.3} ms{:>7.1} %{kept}", 100.0 * ms / self.ms)
        };
        let kernels: String = self.kernels_ms.iter().flatten().map(line).collect();
        let rest = self.overhead.map_or(String::new(), |share| {
            format!("\n  {:<14}{:>10.3} ms{:>7.1} %", "between", share * self.ms, 100.0 * share)
        });
        kernels + &rest
    }
}

/// Parses token ids, one sequence a line, special tokens included.
///
/// # Errors
/// Line number, from 1, and the error in it.
pub fn parse(text: &str) -> Result<Vec<Tokens>, (usize, String)> {
    fn token_id(word: &str) -> Result<u32, String> {
        word.parse()
            .map_err(|_| format!("expected a token id from 0 to {}, got `{word}`", u32::MAX))
    }
    fn sequence((line, text): (usize, &str)) -> Result<Tokens, (usize, String)> {
        let ids: Result<Vec<u32>, String> = text.split_whitespace().map(token_id).collect();
        match ids {
            Ok(ids) if ids.is_empty() => Err((line, "no token ids".to_owned())),
            Ok(ids) => Ok(Tokens::new(ids)),
            Err(what) => Err((line, what)),
        }
    }
    let sequences = (1..).zip(text.lines()).map(sequence).collect::<Result<Vec<_>, _>>()?;
    if sequences.is_empty() {
        return Err((1, "no token ids".to_owned()));
    }
    Ok(sequences)
}

/// Checks that the model can run the sequences.
///
/// # Errors
/// As [`parse`].
pub fn check(sequences: &[Tokens], embedder: &Embedder) -> Result<(), (usize, String)> {
    let vocabulary = embedder.config().vocabulary;
    let limit = embedder.max_length();
    for (line, tokens) in (1..).zip(sequences) {
        if let Some(id) = tokens.ids.iter().find(|&&id| id >= vocabulary) {
            return Err((line, format!("id {id}; the vocabulary has {vocabulary} rows")));
        }
        if tokens.len() > limit {
            return Err((line, format!("{} tokens, over the limit of {limit}", tokens.len())));
        }
    }
    Ok(())
}

/// Times one forward over all sequences: a first run, then more within the limits.
///
/// # Errors
/// Errors of [`TokenCalls::embed`](jinabert::TokenCalls::embed).
pub fn time(
    embedder: &Embedder,
    sequences: &[Tokens],
    limits: Limits,
) -> Result<ForwardTiming, Error> {
    let sequences: Vec<&Tokens> = sequences.iter().collect();
    let run = || {
        let start = Instant::now();
        embedder.tokens().embed(&sequences)?;
        Ok(start.elapsed())
    };
    let first = run()?;
    let runs = if first > SLOW { Spread::of([first]) } else { limits.repeat(run)? };
    Ok(ForwardTiming { first, runs })
}

/// Durations of the kernels of a forward.
#[derive(Clone, Debug, Default)]
pub struct KernelTimes {
    /// Milliseconds by kernel.
    pub ms: BTreeMap<&'static str, f64>,
    /// Share of all query-key pairs that attention computed, if the device counts them: the mean
    /// over its dispatches, one for each layer and batch.
    pub attention_kept: Option<f64>,
}

impl KernelTimes {
    fn of(spans: &[Span]) -> Self {
        let mut ms = BTreeMap::new();
        for span in spans {
            *ms.entry(span.kernel.name()).or_default() += 1e3 * span.time.as_secs_f64();
        }
        let kept: Vec<f64> = spans.iter().filter_map(|span| span.kept).collect();
        let mean = kept.iter().sum::<f64>() / kept.len() as f64;
        Self { ms, attention_kept: (!kept.is_empty()).then_some(mean) }
    }

    /// Milliseconds in all kernels.
    pub fn sum(&self) -> f64 {
        self.ms.values().sum()
    }
}

/// Profiles a few runs; returns the one with the median sum.
///
/// # Errors
/// Errors of [`TokenCalls::profile`](jinabert::TokenCalls::profile).
pub fn kernels(embedder: &Embedder, sequences: &[Tokens]) -> Result<KernelTimes, Error> {
    let sequences: Vec<&Tokens> = sequences.iter().collect();
    let mut runs = Vec::new();
    let start = Instant::now();
    while runs.is_empty() || (runs.len() < 21 && start.elapsed() < Duration::from_secs(2)) {
        runs.push(KernelTimes::of(&embedder.tokens().profile(&sequences)?));
    }
    runs.sort_by(|a, b| a.sum().total_cmp(&b.sum()));
    Ok(runs.swap_remove(runs.len() / 2))
}

/// Peak memory of this process in MB of 2²⁰ bytes, if Linux reports it.
pub fn peak_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_a_line_a_sequence() {
        let sequences = parse("2 28  3\n2\t3\r\n").expect("good");
        assert_eq!(sequences, [Tokens::new(vec![2, 28, 3]), Tokens::new(vec![2, 3])]);
        let wrong = [
            ("", 1, "no token ids"),
            ("2 3\n\n2 3\n", 2, "no token ids"),
            ("2 3\n2 x 3\n", 2, "got `x`"),
            ("-1", 1, "got `-1`"),
            ("4294967296", 1, "got `4294967296`"),
            ("2,3", 1, "got `2,3`"),
        ];
        for (text, line, says) in wrong {
            let (at, what) = parse(text).expect_err(text);
            assert!(at == line && what.contains(says), "{text:?}: {at}: {what}");
        }
    }

    #[test]
    fn peak_memory_is_known_on_linux() {
        assert_eq!(peak_mb().is_some_and(|mb| mb > 1.0), cfg!(target_os = "linux"));
    }
}
