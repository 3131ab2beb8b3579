//! MaxSim: relevance from a vector for every token, of ColBERT or of an embedding model.
//!
//! Khattab and Zaharia 2020, "ColBERT: Efficient and Effective Passage Search via Contextualized
//! Late Interaction over BERT", arXiv:2004.12832.  A document's score is the sum over the query's
//! tokens of the best cosine with a token of the document.
//!
//! The query is in the first batch.  Once its vectors are there, a document's are reduced to the
//! best cosine for each token of the query as soon as they are computed: a call of any number of
//! documents holds the vectors of one batch.

use super::{
    Embedder, EncodeOptions, Jobs, Output, Role, Score, TokenVectors,
    job::{EncodeJob, SequenceInput},
    tasks::overlap,
};
use crate::{batch::Tokens, error::Error, text::Tokenized};
use std::{
    iter, mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

impl TokenVectors {
    /// MaxSim of a document for this query: the sum over the query's tokens of the largest dot
    /// product with a token of the document.
    ///
    /// # Panics
    /// If the vectors differ in length.
    pub fn max_sim(&self, document: &Self) -> f32 {
        sum(&self.best(document))
    }

    /// For each token of this query the largest dot product with a token of the document.
    fn best(&self, document: &Self) -> Vec<f32> {
        assert_eq!(self.dim, document.dim, "components of the two");
        let best = |query| document.rows().map(|row| dot(query, row)).fold(NONE, f32::max);
        self.rows().map(best).collect()
    }
}

/// Largest of no values.
const NONE: f32 = f32::NEG_INFINITY;

fn sum(values: &[f32]) -> f32 {
    values.iter().copied().map(f64::from).sum::<f64>() as f32
}

/// Dot product, in sums that fit a processor's vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a, rest_a) = a.as_chunks::<LANES>();
    let (b, rest_b) = b.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in iter::zip(a, b) {
        for n in 0..LANES {
            sums[n] += a[n] * b[n];
        }
    }
    let rest: f32 = iter::zip(rest_a, rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// What is known of a window of a document.
#[derive(Clone, Debug)]
enum Window {
    /// Nothing yet.
    Missing,
    /// Its vectors, computed before the query's.
    Waiting(TokenVectors),
    /// Best cosine for each token of the query.
    Best(Vec<f32>),
}

/// State of a call: filled by batches in any order.
#[derive(Debug)]
struct Progress {
    query: OnceLock<TokenVectors>,
    windows: Mutex<Vec<Window>>,
}

impl Progress {
    fn new(windows: usize) -> Self {
        Self { query: OnceLock::new(), windows: Mutex::new(vec![Window::Missing; windows]) }
    }

    fn windows(&self) -> MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the vectors of a window of a document.
    fn take(&self, window: usize, vectors: TokenVectors) {
        let known = match self.query.get() {
            Some(query) => Window::Best(query.best(&vectors)),
            None => Window::Waiting(vectors),
        };
        self.windows()[window] = known;
    }

    /// For each document, given the document of every window, the best cosine over all of its
    /// windows for each token of the query.
    fn finish(&self, of: &[usize], documents: usize) -> Vec<Vec<f32>> {
        let windows = mem::take(&mut *self.windows());
        let query = self.query.get();
        let mut all = vec![vec![NONE; query.map_or(0, |query| query.rows().len())]; documents];
        for (&document, window) in iter::zip(of, windows) {
            let best = match window {
                Window::Best(best) => best,
                Window::Waiting(vectors) => {
                    query.map(|query| query.best(&vectors)).unwrap_or_default()
                }
                Window::Missing => Vec::new(),
            };
            for (most, best) in iter::zip(&mut all[document], best) {
                *most = most.max(best);
            }
        }
        all
    }
}

impl Jobs<'_> {
    /// Score of each document by MaxSim, in input order: of ColBERT's vectors, or of an embedding
    /// model's last hidden states.
    pub(super) fn max_sim<S: AsRef<str> + Sync>(
        self,
        query: &str,
        documents: &[S],
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Score>>, Error> {
        let Self(embedder) = self;
        let projected = embedder.head.projected() as usize;
        let (roles, output, dim) = if projected > 0 {
            ([Role::Query, Role::Document], Output::Projected, projected)
        } else {
            ([Role::Plain; 2], Output::Tokens, embedder.config().hidden as usize)
        };
        let reader = embedder.tokenization();
        let query = reader.of_role(&[query], roles[0], options).map_err(Error::of_query)?;
        let Tokenized { tokens: query, full_length } = query[0].clone();
        let cut = full_length.saturating_sub(query.len());
        let query = Tokens { adapter: options.adapter, ..query };
        embedder.check(0, &query).map_err(Error::of_query)?;

        let documents = reader.of_role(documents, roles[1], options)?;
        let lengths: Vec<_> = documents.iter().map(Tokenized::lengths).collect();
        let documents = documents.into_iter().map(|document| document.tokens).collect();
        let documents = embedder.adapted(documents, options);
        let overlap = overlap(embedder.limit(options)?);
        let (windows, shares) = embedder.whole_windows(&documents, overlap, options)?;
        let of: Vec<usize> = shares.iter().map(|share| share.sequence).collect();

        let progress = Arc::new(Progress::new(windows.len()));
        let unit = move |rows: &[f32]| TokenVectors::unit(Vec::new(), dim, rows.to_vec());
        let state = progress.clone();
        let query = SequenceInput::whole(query).leading().reduced(move |rows| {
            // A batch may be computed again, with the same result.
            let _ = state.query.set(unit(rows));
            Vec::new()
        });
        let mut sequences = vec![query];
        for (n, window) in windows.into_iter().enumerate() {
            let kept = embedder.with_vectors(&window, roles[1])?;
            let state = progress.clone();
            sequences.push(window.reduced(move |rows| {
                let mut vectors = unit(rows);
                vectors.keep(&kept);
                state.take(n, vectors);
                Vec::new()
            }));
        }
        Ok(EncodeJob::new(sequences, output, move |_| {
            let best = progress.finish(&of, lengths.len());
            let scores = iter::zip(best, lengths).enumerate();
            let scores = scores.map(|(index, (best, (tokens, truncated)))| {
                let logit = sum(&best);
                let score = logit / best.len() as f32;
                let whole = truncated.unwrap_or(tokens) + cut;
                Score { index, logit, score, tokens, truncated: (whole > tokens).then_some(whole) }
            });
            scores.collect()
        }))
    }
}

impl Embedder {
    /// Indices of a window's tokens that it owns and whose vectors count.
    fn with_vectors(&self, window: &SequenceInput, role: Role) -> Result<Vec<usize>, Error> {
        let owned = window.spans[0].start as usize..window.spans[0].end as usize;
        if role != Role::Document {
            return Ok(owned.collect());
        }
        let kept = self.without_punctuation(&window.tokens.ids[owned.clone()])?;
        Ok(kept.into_iter().map(|n| owned.start + n).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Files, OnLong, Options, Task};
    use serde_json::{Value, json};

    fn dir(fixture: &str) -> String {
        format!("{}/tests/fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"))
    }

    fn colbert(task: Task) -> Embedder {
        let options = Options {
            device: Device::Cpu,
            max_length: Some(64),
            on_long: OnLong::Window,
            batch_tokens: Some(70),
            overlap: 8,
            task,
            ..Options::default()
        };
        Embedder::open_with(dir("v3-colbert"), options).expect("a good fixture")
    }

    #[test]
    fn windows_are_reduced_once_the_query_is_there() {
        let vectors = |values: &[f32]| TokenVectors::unit(Vec::new(), 2, values.to_vec());
        let progress = Progress::new(4);
        progress.take(0, vectors(&[1.0, 0.0]));
        progress.query.set(vectors(&[3.0, 4.0, 0.0, 1.0])).expect("the first");
        progress.take(2, vectors(&[0.0, 1.0]));
        progress.take(1, vectors(&[0.0, -1.0, -1.0, 0.0]));
        let best = |window: &Window| matches!(window, Window::Best(best) if best.len() == 2);
        let ready: Vec<bool> = progress.windows().iter().map(best).collect();
        assert_eq!(ready, [false, true, true, false]);
        // the last window is the second document's and was never computed
        let all = progress.finish(&[0, 0, 1, 1], 2);
        assert_eq!(all, [[0.6, 0.0], [0.8, 1.0]]);
    }

    #[test]
    fn dot_products_of_any_length() {
        for length in [0, 1, 15, 16, 17, 48, 61] {
            let a: Vec<f32> = (0..length).map(|n| n as f32 - 7.0).collect();
            let b: Vec<f32> = (0..length).map(|n| (n % 5) as f32).collect();
            let expected: f32 = iter::zip(&a, &b).map(|(a, b)| a * b).sum();
            assert_eq!(dot(&a, &b), expected, "{length}");
        }
    }

    #[test]
    fn long_documents_are_read_in_windows_after_the_query() {
        let embedder = colbert(Task::Rerank);
        let words = "the old bridge stands above the town, and the mill below it. ".repeat(12);
        let documents = ["a", &words, "the mill", &words[..90]];
        let query = "where is the mill?";
        let job = embedder.jobs().scores(query, &documents, embedder.encode_options());
        let job = job.expect("good texts");
        let batches = embedder.runner.make_batches(job.input.sequences());
        assert!(batches.len() > 3 && batches[0].contains(&0), "{batches:?}");
        let scores = embedder.compute(job).expect("scores");

        let plain = colbert(Task::MultiVector);
        let tokens = plain.tokenization();
        let options = plain.encode_options();
        let query = plain.multi_vector(&[query], Role::Query).expect("vectors").remove(0);
        let documents = tokens.of_role(&documents, Role::Document, options).expect("tokens");
        for (score, Tokenized { tokens, .. }) in iter::zip(&scores, documents) {
            let mut best = vec![NONE; query.rows().len()];
            let mut owned = 0;
            while owned < tokens.len() {
                // a quarter of 64 tokens is shared
                let start = owned.saturating_sub(16_usize);
                let end = tokens.len().min(start + 64);
                let window = Tokens::new(tokens.ids[start..end].to_vec());
                let mut vectors = plain.tokens().multi_vector(&[&window]).expect("vectors");
                let kept = plain.without_punctuation(&window.ids).expect("a tokenizer");
                let kept: Vec<usize> = kept.into_iter().filter(|&n| start + n >= owned).collect();
                vectors[0].keep(&kept);
                for (most, best) in iter::zip(&mut best, query.best(&vectors[0])) {
                    *most = most.max(best);
                }
                owned = end;
            }
            let difference = score.logit - sum(&best);
            assert!(difference.abs() < 1e-4, "{score:?}: {difference}");
            assert_eq!((score.tokens, score.truncated), (tokens.len(), None));
        }
        assert!(scores[1].tokens > 128, "{:?}", scores[1]);
    }

    #[test]
    fn what_was_truncated_of_the_query_is_reported() {
        let embedder = colbert(Task::Rerank);
        let options = EncodeOptions { on_long: OnLong::Truncate, ..embedder.encode_options() };
        let score = |query: &str| {
            let job = embedder.jobs().scores(query, &["the mill"], options).expect("good texts");
            embedder.compute(job).expect("scores").remove(0)
        };
        let long = "where is the mill? ".repeat(30);
        let (short, long) = (score("mill"), score(&long));
        assert_eq!((short.tokens, short.truncated), (long.tokens, None));
        assert!(long.truncated.is_some_and(|whole| whole > 64), "{long:?}");
    }

    /// A model whose tokenizer has a token more than the word table: `<more>`.
    fn with_a_token_more(fixture: &str, options: Options) -> Embedder {
        let files = Files::from(dir(fixture));
        let read = |name: &str| files.read(name).expect("a file").to_vec();
        let config: Value = serde_json::from_slice(&read("config.json")).expect("JSON");
        let mut tokenizer: Value = serde_json::from_slice(&read("tokenizer.json")).expect("JSON");
        let more = json!({"id": config["vocab_size"], "content": "<more>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": false});
        tokenizer["added_tokens"].as_array_mut().expect("a list").push(more);
        let files = Files::memory()
            .with("config.json", read("config.json"))
            .with("model.safetensors", read("model.safetensors"))
            .with("tokenizer.json", tokenizer.to_string().into_bytes());
        let options = Options { device: Device::Cpu, ..options };
        Embedder::open_with(files, options).expect("a good fixture")
    }

    #[test]
    fn errors_name_the_query_or_the_document() {
        let ranks = Options { task: Task::Rerank, ..Options::default() };
        let windows = Options { on_long: OnLong::Window, max_length: Some(40), ..ranks.clone() };
        let long = "the old bridge ".repeat(60);
        for (fixture, options) in [
            ("v3-colbert", ranks),
            ("v3-colbert", windows.clone()),
            ("v3-reranker", windows),
            ("tiny-natural", Options { max_sim: true, ..Options::default() }),
        ] {
            let embedder = with_a_token_more(fixture, options);
            let long = if fixture == "tiny-natural" { "a" } else { &long[..] };
            match embedder.rerank("a", &[long, "b", "<more>"]) {
                Err(Error::Input { index: 2, what }) => assert!(what.contains("vocabulary has")),
                other => panic!("{fixture}: {other:?}"),
            }
            let error = embedder.rerank("<more>", &[long, "b"]).expect_err("a bad query");
            match error {
                Error::Query { what } => assert!(what.contains("vocabulary has"), "{what}"),
                // A pair is checked as a whole.
                Error::Input { index: 0, .. } => assert_eq!(fixture, "v3-reranker"),
                other => panic!("{fixture}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_classifier_ranks_even_if_max_sim_is_allowed() {
        let open = |max_sim| {
            let options =
                Options { task: Task::Rerank, device: Device::Cpu, max_sim, ..Options::default() };
            Embedder::open_with(dir("v3-reranker"), options).expect("a good fixture")
        };
        let rank =
            |embedder: &Embedder| embedder.rerank("a tree", &["a boat", "trees"]).expect("scores");
        let (plain, allowed) = (open(false), open(true));
        assert!(!allowed.ranks_by_max_sim());
        assert_eq!(rank(&plain), rank(&allowed));
    }
}
