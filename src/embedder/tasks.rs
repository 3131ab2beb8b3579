//! Tasks of models with a head: reranking, masked tokens.

use super::{
    Embedder, EncodeOptions, Jobs, OnLong, Output, TokenCalls,
    job::{EncodeJob, SequenceInput},
    tokens::cloned,
};
use crate::{
    batch::{self, PackedBatch, Tokens},
    error::Error,
    model::Task,
    text::Tokenized,
};
use rayon::prelude::*;

/// Relevance of a document to a query.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// Index of the document in the input.
    pub index: usize,
    /// The classifier's logit; with MaxSim the sum over the query's tokens.
    pub logit: f32,
    /// The logit's sigmoid, from 0 to 1; with MaxSim the mean over the query's tokens, a cosine.
    pub score: f32,
    /// Number of tokens of query and document together; with MaxSim of the document.
    pub tokens: usize,
    /// `tokens` and those of query and document that were truncated, if there are such.
    pub truncated: Option<usize>,
}

/// Candidate for a masked token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// Token id.
    pub id: u32,
    /// Spelling in the vocabulary.
    pub token: String,
    /// Softmax over the vocabulary.
    pub probability: f32,
    /// Logit before the softmax.
    pub logit: f32,
}

/// A masked token of a text, with its candidates.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Masked {
    /// Position among the tokens, special tokens included.
    pub position: usize,
    /// Candidates, most probable first.
    pub candidates: Vec<Candidate>,
}

impl Embedder {
    /// Scores each document for a query, best first; for a model opened for [`Task::Rerank`].
    ///
    /// A pair is one sequence, with special tokens and type ids from the tokenizer.  Of a pair over
    /// the limit the longer text is truncated, or both, if [`OnLong`](crate::OnLong) allows it; or
    /// the document is read in windows, and the best one counts.
    ///
    /// A ColBERT model gives [MaxSim](super::TokenVectors::max_sim) instead, and with
    /// [`Options::max_sim`](crate::Options::max_sim) an embedding model, too: query and documents
    /// are read separately, each up to the limit, or a document in windows.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a pair over the limit, and [`Error::QueryTooLong`] for a query over
    /// it, unless they are to be truncated; [`Error::Query`] for a query that cannot be read;
    /// [`Error::Model`] if the classifier has more than one
    /// label; otherwise as [`Embedder::embed`].
    pub fn rerank<S: AsRef<str> + Sync>(
        &self,
        query: &str,
        documents: &[S],
    ) -> Result<Vec<Score>, Error> {
        let scores = self.jobs().scores(query, documents, self.encode_options())?;
        let mut scores = self.compute(scores)?;
        scores.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        Ok(scores)
    }

    /// The `top` most probable candidates for each masked token of a text; for a model opened for
    /// [`Task::FillMask`].
    ///
    /// # Errors
    /// [`Error::Input`] if the text has no mask, [`Error::Model`] if the tokenizer has none;
    /// otherwise as [`Embedder::embed`].
    pub fn fill_mask(&self, text: &str, top: usize) -> Result<Vec<Masked>, Error> {
        self.opened_for(Task::FillMask)?;
        let tokenizer = self.tokenizer()?;
        let (mask, spelled) = self.mask()?;
        let tokenized = self.tokenize(&[text])?.remove(0);
        let ids = &tokenized.tokens.ids;
        let positions: Vec<usize> = (0..ids.len()).filter(|&n| ids[n] == mask).collect();
        if positions.is_empty() {
            let what = format!("no {spelled} in it, so there is nothing to fill");
            return Err(Error::Input { index: 0, what });
        }
        let logits = self.logits(&tokenized.tokens, &positions)?;
        let masked = positions.into_iter().zip(logits.chunks_exact(self.vocabulary()));
        let masked = masked.map(|(position, logits)| {
            let sum = log_sum_exp(logits);
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            let at = |id: &u32| logits[*id as usize];
            let top = top.min(order.len());
            if top < order.len() {
                order.select_nth_unstable_by(top, |a, b| at(b).total_cmp(&at(a)));
            }
            order.truncate(top);
            order.sort_by(|a, b| at(b).total_cmp(&at(a)));
            let candidates = order.into_iter().map(|id| Candidate {
                id,
                token: tokenizer.token_of(id).unwrap_or_default(),
                probability: (f64::from(at(&id)) - sum).exp() as f32,
                logit: at(&id),
            });
            Masked { position, candidates: candidates.collect() }
        });
        Ok(masked.collect())
    }

    /// Logits \[n, V\].
    fn logits(&self, tokens: &Tokens, positions: &[usize]) -> Result<Vec<f32>, Error> {
        self.check(0, tokens)?;
        let rows: Vec<u32> = positions.iter().map(|&n| n as u32).collect();
        let batch = PackedBatch::new([tokens]);
        self.runner.attempt(|model| model.logits(&batch, &rows))
    }

    fn vocabulary(&self) -> usize {
        self.config().vocabulary as usize
    }

    pub(super) fn mask(&self) -> Result<(u32, &'static str), Error> {
        self.tokenizer()?.mask().ok_or_else(|| {
            Error::Model("the tokenizer has no mask token, neither [MASK] nor <mask>".to_owned())
        })
    }

    /// Checks that the model embeds: a reranker's hidden states are not trained as embeddings.
    pub(super) fn embeds(&self) -> Result<(), Error> {
        match self.task {
            Task::Rerank => Err(Error::Option(
                "the model was opened for rerank: it makes no embeddings".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn opened_for(&self, task: Task) -> Result<(), Error> {
        if self.task == task {
            Ok(())
        } else {
            Err(Error::Option(format!(
                "the model was opened for {}, not for {task}: open it with `Task::{task:?}`",
                self.task
            )))
        }
    }
}

impl Jobs<'_> {
    /// The score of each document, in input order.
    ///
    /// # Errors
    /// As [`Embedder::rerank`].
    pub fn scores<S: AsRef<str> + Sync>(
        self,
        query: &str,
        documents: &[S],
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Score>>, Error> {
        let Self(embedder) = self;
        if embedder.ranks_by_max_sim() {
            return self.max_sim(query, documents, options);
        }
        embedder.opened_for(Task::Rerank)?;
        let labels = embedder.head.labels();
        if labels != 1 {
            return Err(Error::Model(format!(
                "a classifier of {labels} labels gives no one score; a reranker has 1"
            )));
        }
        if options.on_long == OnLong::Window {
            return self.windows(query, documents, options);
        }
        let pairs = embedder.pairs(query, documents, options)?;
        let lengths: Vec<_> = pairs.iter().map(Tokenized::lengths).collect();
        let tokens = pairs.into_iter().map(|pair| pair.tokens).collect();
        Ok(self.classes(tokens)?.map(|logits| {
            let scores = lengths.into_iter().zip(logits).enumerate();
            let scores = scores.map(|(index, ((tokens, truncated), logits))| {
                let logit = logits[0];
                let score = probabilities(&logits)[0];
                Score { index, logit, score, tokens, truncated }
            });
            scores.collect()
        }))
    }

    /// Scores of documents, each the best of its windows, as in the `rerank` of jina-reranker-v2's
    /// own code: the query is cut to half of the limit, consecutive windows share 80 tokens or a
    /// quarter, and the last one ends with the document.
    fn windows<S: AsRef<str> + Sync>(
        self,
        query: &str,
        documents: &[S],
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Score>>, Error> {
        let Self(embedder) = self;
        let tokenizer = embedder.tokenizer()?;
        let limit = embedder.limit(options)?;
        let pair = tokenizer.pair_parts()?;
        let mut first = tokenizer.encode_parts(query).map_err(Error::of_query)?.own;
        let whole = first.len();
        first.truncate((limit / 2).saturating_sub(tokenizer.special_tokens()).max(1));
        let cut = whole - first.len();
        let room = limit.saturating_sub(pair.special() + first.len());
        if room < 2 {
            return Err(Error::QueryTooLong { tokens: first.len() + pair.special(), limit });
        }
        let step = room - overlap(room);
        let mut windows = Vec::new();
        let mut shares = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            let second = tokenizer.encode_parts(document.as_ref());
            let second = second.map_err(|error| error.moved(|_| index))?.own;
            let last = second.len().saturating_sub(room);
            let starts = (0..last).step_by(step).chain([last]);
            let before = windows.len();
            for start in starts {
                let window = pair.with(&first, &second[start..second.len().min(start + room)]);
                embedder.check(index, &window)?;
                windows.push(window);
            }
            shares.push((before..windows.len(), pair.special() + first.len() + second.len()));
        }
        Ok(self.checked_classes(windows).map(move |logits| {
            let scores = shares.into_iter().enumerate().map(|(index, (windows, tokens))| {
                let all = logits[windows].iter().map(|logits| logits[0]);
                let logit = all.fold(f32::NEG_INFINITY, f32::max);
                let score = probabilities(&[logit])[0];
                let truncated = (cut > 0).then_some(tokens + cut);
                Score { index, logit, score, tokens, truncated }
            });
            scores.collect()
        }))
    }

    /// Classifier logits of each list of tokens; for a model opened for [`Task::Rerank`].
    ///
    /// # Errors
    /// As [`TokenCalls::classify`].
    pub fn classes(self, sequences: Vec<Tokens>) -> Result<EncodeJob<Vec<Vec<f32>>>, Error> {
        let Self(embedder) = self;
        embedder.opened_for(Task::Rerank)?;
        embedder.check_all(&sequences)?;
        Ok(self.checked_classes(sequences))
    }

    /// Classifier logits of tokens that were checked.
    fn checked_classes(self, sequences: Vec<Tokens>) -> EncodeJob<Vec<Vec<f32>>> {
        let Self(embedder) = self;
        let output = Output::Vectors { dims: embedder.config().hidden, normalize: false };
        let sequences = sequences.into_iter().map(SequenceInput::first).collect();
        let head = embedder.head.clone();
        EncodeJob::new(sequences, output, move |rows| {
            let logits = head.classify(&rows.concat());
            logits.chunks_exact(head.labels()).map(<[f32]>::to_vec).collect()
        })
    }
}

impl TokenCalls<'_> {
    /// Classifier logits of each list; for a model opened for [`Task::Rerank`].
    ///
    /// # Errors
    /// As [`TokenCalls::embed`].
    pub fn classify(self, sequences: &[&Tokens]) -> Result<Vec<Vec<f32>>, Error> {
        self.0.compute(self.0.jobs().classes(cloned(sequences))?)
    }

    /// Number of the classifier's classes; 0 without a classifier.
    pub fn classes(self) -> usize {
        self.0.head.labels()
    }

    /// For each list of tokens and some positions in it, the log-probability of the token at each
    /// position, with all positions of the list masked at once; for a model opened for
    /// [`Task::FillMask`].  Lists run in batches, as in [`TokenCalls::embed`].
    ///
    /// # Errors
    /// As [`TokenCalls::embed`], and [`Error::Model`] if the tokenizer has no mask.
    ///
    /// # Panics
    /// If a position is outside its list.
    pub fn log_probabilities(self, masked: &[(&Tokens, &[usize])]) -> Result<Vec<Vec<f64>>, Error> {
        let Self(embedder) = self;
        embedder.opened_for(Task::FillMask)?;
        let (mask, _) = embedder.mask()?;
        for (index, (tokens, _)) in masked.iter().enumerate() {
            embedder.check(index, tokens)?;
        }
        let mut all: Vec<Vec<f64>> = vec![Vec::new(); masked.len()];
        let lengths: Vec<usize> = masked.iter().map(|(tokens, _)| tokens.len()).collect();
        for members in batch::make_batches(&lengths, embedder.runtime().batch_tokens()) {
            let hidden = members.iter().map(|&n| {
                let (tokens, places) = masked[n];
                let mut hidden = tokens.clone();
                places.iter().for_each(|&n| hidden.ids[n] = mask);
                hidden
            });
            let batch = PackedBatch::new(&hidden.collect::<Vec<_>>());
            let places = members.iter().zip(&batch.cu_seqlens).flat_map(|(&n, &start)| {
                let (tokens, places) = masked[n];
                places.iter().map(move |&place| (start + place as u32, tokens.ids[place] as usize))
            });
            let (rows, ids): (Vec<u32>, Vec<usize>) = places.unzip();
            let found = embedder.runner.attempt(|model| {
                let mut found = Vec::with_capacity(rows.len());
                model.each_logits(&batch, &rows, |logits| {
                    let rows = logits.par_chunks_exact(embedder.vocabulary());
                    let rows = rows.zip(&ids[found.len()..]);
                    let some: Vec<f64> =
                        rows.map(|(row, &id)| f64::from(row[id]) - log_sum_exp(row)).collect();
                    found.extend(some);
                })?;
                Ok(found)
            })?;
            let mut found = found.into_iter();
            for n in members {
                all[n] = found.by_ref().take(masked[n].1.len()).collect();
            }
        }
        Ok(all)
    }
}

/// Tokens that consecutive windows of a document share, each of so many tokens.
pub(super) fn overlap(window: usize) -> usize {
    80.min(window / 4)
}

/// Probabilities from a classifier's logits: the sigmoid of a single one, the softmax of several.
pub fn probabilities(logits: &[f32]) -> Vec<f32> {
    if let [logit] = logits {
        return vec![(1.0 / (1.0 + (-f64::from(*logit)).exp())) as f32];
    }
    let sum = log_sum_exp(logits);
    logits.iter().map(|logit| (f64::from(*logit) - sum).exp() as f32).collect()
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    most + logits.iter().map(|logit| (f64::from(*logit) - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Options};

    #[test]
    fn the_best_window_counts() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v3-reranker");
        let options = Options {
            task: Task::Rerank,
            device: Device::Cpu,
            max_length: Some(40),
            on_long: OnLong::Window,
            ..Options::default()
        };
        let embedder = Embedder::open_with(dir, options).expect("a good fixture");
        let tokenizer = embedder.tokenizer().expect("a fixture with one");
        let long =
            "The committee asked for a second estimate because of the foundations. ".repeat(4);
        let query = "where is the old bridge and who took it down? ".repeat(3);
        let scores = embedder.rerank(&query, &[long.as_str(), "a"]).expect("scores");
        let of = |index| scores.iter().find(|score| score.index == index).expect("a score").logit;

        // <s> query </s> </s> window </s>, the query cut to 18 tokens beside two special ones
        let own = |text: &str| tokenizer.encode_parts(text).expect("tokens").own;
        let mut query = own(&query);
        assert!(query.len() > 18);
        query.truncate(18);
        let (document, room) = (own(&long), 18);
        let pair = |window: &[u32]| Tokens::new([&[0], &query[..], &[2, 2], window, &[2]].concat());
        // a quarter of the windows is shared
        let mut starts: Vec<usize> = (0..document.len() - room).step_by(14).collect();
        starts.push(document.len() - room);
        assert!(starts.len() > 3, "{starts:?}");
        let mut windows: Vec<_> =
            starts.iter().map(|&start| pair(&document[start..start + room])).collect();
        windows.push(pair(&own("a")));
        let logits =
            embedder.tokens().classify(&windows.iter().collect::<Vec<_>>()).expect("logits");
        let (last, windows) = logits.split_last().expect("windows");
        let best = windows.iter().map(|logits| logits[0]).fold(f32::NEG_INFINITY, f32::max);
        assert!((of(0) - best).abs() < 1e-5, "{} {best}", of(0));
        assert!((of(1) - last[0]).abs() < 1e-5);
    }
}
