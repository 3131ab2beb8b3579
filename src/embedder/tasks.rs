//! Tasks of models with a head: reranking, token vectors, masked tokens.

use super::{
    Embedder, EncodeOptions, Jobs, Output, TokenCalls,
    job::{EncodeJob, SequenceInput},
    tokens::cloned,
};
use crate::{
    batch::{self, PackedBatch, Tokens},
    error::Error,
    model::Task,
    text::{Tokenized, Tokenizer},
};
use rayon::prelude::*;

/// Relevance of a document to a query.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// Index of the document in the input.
    pub index: usize,
    /// The classifier's logit.
    pub logit: f32,
    /// Its sigmoid, from 0 to 1.
    pub score: f32,
    /// Number of tokens of query and document together.
    pub tokens: usize,
    /// Token count before truncation, if the pair was truncated.
    pub truncated: Option<usize>,
}

/// A vector for every token of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenVectors {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Components of each vector.
    pub dim: usize,
    /// Row-major vectors.
    pub values: Vec<f32>,
}

impl TokenVectors {
    /// The vectors.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.dim)
    }

    /// ColBERT's score of a document for this query: the sum over the query's tokens of the largest
    /// dot product with a token of the document (Khattab and Zaharia 2020, arXiv:2004.12832).
    ///
    /// # Panics
    /// If the vectors differ in length.
    pub fn max_sim(&self, document: &Self) -> f32 {
        assert_eq!(self.dim, document.dim, "components of the two");
        let best = |query: &[f32]| {
            let dot = |row: &[f32]| query.iter().zip(row).map(|(q, d)| q * d).sum::<f32>();
            document.rows().map(dot).fold(f32::NEG_INFINITY, f32::max)
        };
        self.rows().map(|query| f64::from(best(query))).sum::<f64>() as f32
    }
}

/// ColBERT's role of a text, marked by a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Plain text, without a marker.
    #[default]
    Plain,
    /// A query: a marker, `[QueryMarker]` or `[unused0]`, follows the first special token, and
    /// masks pad it to [`Options::query_length`](crate::Options::query_length) tokens; masks have
    /// vectors, too.  A longer query is not padded.
    Query,
    /// A document: the marker is `[DocumentMarker]` or `[unused1]`, and single punctuation marks
    /// get no vector.
    Document,
}

/// Markers of queries and of documents in jina-colbert-v2, whose queries attend to their padding.
const MARKERS_V2: [&str; 2] = ["[QueryMarker]", "[DocumentMarker]"];

/// Markers of queries and of documents in jina-colbert-v1 and ColBERT.
const MARKERS_V1: [&str; 2] = ["[unused0]", "[unused1]"];

impl Role {
    /// Id of the role's marker; none for plain text.
    fn marker(self, tokenizer: &Tokenizer) -> Result<Option<u32>, Error> {
        let n = match self {
            Self::Plain => return Ok(None),
            Self::Query => 0,
            Self::Document => 1,
        };
        let ids = [MARKERS_V2, MARKERS_V1].map(|markers| tokenizer.id_of(markers[n]));
        let found = ids.into_iter().flatten().next();
        found.map(Some).ok_or_else(|| {
            Error::Model(format!(
                "the vocabulary has neither `{}` nor `{}`, the marker of a {self:?}",
                MARKERS_V2[n], MARKERS_V1[n]
            ))
        })
    }
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
    /// the limit the longer text is truncated, or both, if [`OnLong`](crate::OnLong) allows it.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a pair over the limit, and [`Error::QueryTooLong`] for a query over
    /// it, unless they are to be truncated; [`Error::Model`] if the classifier has more than one
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

    /// A unit vector for every token of each text; for a model opened for [`Task::MultiVector`].
    ///
    /// # Errors
    /// As [`Embedder::embed`], and [`Error::Model`] if the vocabulary lacks the role's marker or
    /// the mask.
    pub fn multi_vector<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        role: Role,
    ) -> Result<Vec<TokenVectors>, Error> {
        self.opened_for(Task::MultiVector)?;
        let tokenizer = self.tokenizer()?;
        let mut tokenized = self.tokenize(texts)?;
        if let Some(id) = role.marker(tokenizer)? {
            for text in &mut tokenized {
                // The marker replaces the last token of a text that fills the limit.
                if text.tokens.len() == self.limit && self.limit > 2 {
                    let last = text.tokens.len() - 2;
                    text.tokens.ids.remove(last);
                    text.tokens.type_ids.remove(last);
                }
                text.tokens.ids.insert(1.min(text.tokens.len()), id);
                text.tokens.type_ids.push(0);
            }
        }
        if role == Role::Query {
            self.pad(&mut tokenized)?;
        }
        let tokens: Vec<&Tokens> = tokenized.iter().map(|text| &text.tokens).collect();
        let mut vectors = self.tokens().multi_vector(&tokens)?;
        if role == Role::Document {
            vectors.iter_mut().for_each(|vectors| drop_punctuation(vectors, tokenizer));
        }
        Ok(vectors)
    }

    /// Pads queries with mask tokens, as ColBERT does.
    fn pad(&self, queries: &mut [Tokenized]) -> Result<(), Error> {
        let length = self.queries.length.min(self.limit);
        let [marker, _] = MARKERS_V2;
        let usual = self.tokenizer()?.id_of(marker).is_some();
        let attend = self.queries.attend.unwrap_or(usual);
        let short = queries.iter_mut().map(|query| &mut query.tokens);
        for tokens in short.filter(|tokens| tokens.len() < length) {
            let (mask, _) = self.mask()?;
            let masks = length - tokens.len();
            tokens.ids.resize(length, mask);
            tokens.type_ids.resize(length, 0);
            tokens.query_only = if attend { 0 } else { masks };
        }
        Ok(())
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
        embedder.opened_for(Task::Rerank)?;
        let labels = embedder.head.labels();
        if labels != 1 {
            return Err(Error::Model(format!(
                "a classifier of {labels} labels gives no one score; a reranker has 1"
            )));
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

    /// Classifier logits of each list of tokens; for a model opened for [`Task::Rerank`].
    ///
    /// # Errors
    /// As [`TokenCalls::classify`].
    pub fn classes(self, sequences: Vec<Tokens>) -> Result<EncodeJob<Vec<Vec<f32>>>, Error> {
        let Self(embedder) = self;
        embedder.opened_for(Task::Rerank)?;
        embedder.check_all(&sequences)?;
        let output = Output::Vectors { dims: embedder.config().hidden, normalize: false };
        let sequences = sequences.into_iter().map(SequenceInput::first).collect();
        let head = embedder.head.clone();
        Ok(EncodeJob::new(sequences, output, move |rows| {
            let logits = head.classify(&rows.concat());
            logits.chunks_exact(head.labels()).map(<[f32]>::to_vec).collect()
        }))
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

    /// A unit vector for every token of each list; for a model opened for [`Task::MultiVector`].
    ///
    /// # Errors
    /// As [`TokenCalls::embed`].
    pub fn multi_vector(self, sequences: &[&Tokens]) -> Result<Vec<TokenVectors>, Error> {
        let Self(embedder) = self;
        embedder.opened_for(Task::MultiVector)?;
        let dim = embedder.head.projected() as usize;
        let sequences = cloned(sequences);
        embedder.check_all(&sequences)?;
        let ids: Vec<_> = sequences.iter().map(|tokens| tokens.ids.clone()).collect();
        let sequences = sequences.into_iter().map(SequenceInput::whole).collect();
        let rows = embedder.compute(EncodeJob::new(sequences, Output::Projected, |rows| rows))?;
        let vectors = ids.into_iter().zip(rows);
        let mut vectors: Vec<_> =
            vectors.map(|(ids, values)| TokenVectors { ids, dim, values }).collect();
        for row in vectors.iter_mut().flat_map(|v| v.values.chunks_exact_mut(dim)) {
            let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
        Ok(vectors)
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

fn drop_punctuation(vectors: &mut TokenVectors, tokenizer: &Tokenizer) {
    let mark = |id: &u32| {
        let token = tokenizer.token_of(*id).unwrap_or_default();
        let token = token.strip_prefix('▁').unwrap_or(&token);
        matches!(token.as_bytes(), [byte] if byte.is_ascii_punctuation())
    };
    let dim = vectors.dim;
    let kept: Vec<usize> = (0..vectors.ids.len()).filter(|&n| !mark(&vectors.ids[n])).collect();
    let row = |n: &usize| vectors.values[n * dim..][..dim].iter().copied();
    vectors.values = kept.iter().flat_map(row).collect();
    vectors.ids = kept.iter().map(|&n| vectors.ids[n]).collect();
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
