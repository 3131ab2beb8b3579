//! An embedder that Python holds.

use crate::{
    call::{self, Watch, briefly, watched},
    errors::{raise, raise_as},
    opening::{Opening, Source},
    vectors::{Matrix, Pair, array, quantizer},
};
use jinabert::{
    Embedder, Error, Score, Wanted,
    batch::Tokens,
    text::{Chunking, Tokenized},
};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    pybacked::{PyBackedBytes, PyBackedStr},
    types::{PyDict, PyList, PyString},
};
use std::{
    mem,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

/// Texts that are embedded before their vectors go into the array: what is held twice is no more.
const STEP: usize = 1 << 16;

/// Places of the first and of the one behind the last character of a chunk.
type Span = (usize, usize);

/// Bytes of texts that are embedded on the caller's thread, where that is within milliseconds for
/// most models: on a processor that does nothing else.  Another thread costs a tenth of one.
const FEW: usize = 1 << 10;

/// How many texts were cut, and the first of them with its length.
type Cut = (usize, Option<(usize, usize)>);

/// Vectors of texts, and which were cut.
type Encoded<'py> = (Bound<'py, PyAny>, Cut);

/// Place, score and logit of each document.
type Ranked = Vec<(usize, f32, f32)>;

/// Of a text, the spans of its chunks, their vectors, the tokens that were read, and the tokens
/// that there were if some were dropped.
type Chunks<'py> = (Vec<Span>, Bound<'py, PyAny>, usize, Option<usize>);

/// Python's texts, where Python has them.
type Texts = Arc<Vec<PyBackedStr>>;

/// What one call asks for.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    dimensions: Option<usize>,
    normalize: bool,
}

impl Asked {
    fn wanted(self, embedder: &Embedder) -> Result<Wanted, Error> {
        let usual = embedder.wanted();
        let (dimensions, hidden) = (self.dimensions.unwrap_or(usual.dimensions), usual.dimensions);
        if !(1..=hidden).contains(&dimensions) {
            let what = format!("truncate_dim {dimensions}: the model has 1 to {hidden}");
            return Err(Error::Option(what));
        }
        Ok(Wanted { dimensions, normalize: self.normalize, ..usual })
    }
}

/// How texts are cut.
#[derive(FromPyObject)]
enum Cuts {
    /// `tokens:256`
    Everywhere(String),
    /// Spans of each text.
    Here(Vec<Vec<Span>>),
}

impl Cuts {
    fn chunkings(self, texts: usize) -> Result<Vec<Chunking>, Error> {
        match self {
            Self::Everywhere(rule) => rule.parse().map(|rule| vec![rule; texts]),
            Self::Here(spans) if spans.len() != texts => {
                let what = format!("spans of {} texts, but there are {texts}", spans.len());
                Err(Error::Option(what))
            }
            Self::Here(spans) => {
                let chunking = |spans: Vec<Span>| {
                    Chunking::Spans(spans.into_iter().map(|(start, end)| start..end).collect())
                };
                Ok(spans.into_iter().map(chunking).collect())
            }
        }
    }
}

/// A model on a device.
#[pyclass(frozen, module = "jinabert._native")]
pub struct Model {
    embedder: RwLock<Option<Arc<Embedder>>>,
}

impl Model {
    /// A handle, unless it was closed or is another process's.
    fn embedder(&self, py: Python<'_>) -> PyResult<Arc<Embedder>> {
        call::not_forked(py)?;
        // Not held where the interpreter may be given up.
        let held = self.embedder.read().unwrap_or_else(PoisonError::into_inner).clone();
        held.ok_or_else(|| raise_as(py, "ClosedError", "this Embedder was closed"))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // A fork has the memory of a device, but none of the threads that would let it go.
        if call::forked() {
            let held = self.embedder.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(held.take());
        }
    }
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (source, opening, heard=None))]
    fn new(
        source: &Bound<'_, PyAny>,
        opening: Opening,
        heard: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = source.py();
        call::not_forked(py)?;
        let source = match source.cast::<PyDict>() {
            Ok(files) => {
                let files = files.iter().map(|(name, bytes)| {
                    Ok((name.extract::<String>()?, bytes.extract::<PyBackedBytes>()?))
                });
                Source::Memory(files.collect::<PyResult<_>>()?)
            }
            Err(_) => Source::Name(source.extract::<PathBuf>()?),
        };
        let embedder = watched(py, heard, move |watch| opening.open(source, watch))?;
        Ok(Self { embedder: RwLock::new(Some(Arc::new(embedder))) })
    }

    /// Lets go of the device, once the calls that are under way have ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        call::not_forked(py)?;
        // The lock is given back before the interpreter is: who has the one may wait for the other.
        let embedder = self.embedder.write().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(embedder));
        Ok(())
    }

    /// What there is to know about it, by name.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let embedder = self.embedder(py)?;
        let facts = PyDict::new(py);
        facts.set_item("dim", embedder.dim())?;
        facts.set_item("max_length", embedder.max_length())?;
        facts.set_item("batch_tokens", embedder.batch_tokens())?;
        facts.set_item("device", embedder.device())?;
        facts.set_item("kind", embedder.kind())?;
        facts.set_item("task", embedder.task().to_string())?;
        facts.set_item("hidden", embedder.config().hidden)?;
        Ok(facts)
    }

    /// Bytes that the device holds.
    fn allocated_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        let embedder = self.embedder(py)?;
        Ok(py.detach(|| embedder.allocated_bytes()))
    }

    /// Vectors of texts.
    #[pyo3(signature = (texts, asked, precision, ranges=None, heard=None))]
    fn encode<'py>(
        &self,
        texts: &Bound<'py, PyList>,
        asked: Asked,
        precision: &str,
        ranges: Option<Pair>,
        heard: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Encoded<'py>> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let wanted = asked.wanted(&embedder).map_err(|error| raise(py, error))?;
        let quantizer = quantizer(precision, wanted.dimensions, ranges);
        let quantizer = quantizer.map_err(|error| raise(py, error))?;
        let texts = read(texts)?;
        let mut matrix = Matrix::new(quantizer, texts.len())?;
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let soon =
            bytes <= FEW && heard.is_none() && embedder.kind() == "cpu" && embedder.is_idle();
        let all = Arc::clone(&texts);
        let work = move |watch: &Watch| {
            let (total, mut cut) = (all.len(), (0, None));
            for (step, texts) in all.chunks(STEP).enumerate() {
                let before = step * STEP;
                let heard = |at: jinabert::Progress| {
                    watch.hear("", (before + at.done) as u64, total as u64)
                };
                let embedded = embedder.embed_watched(texts, wanted, heard);
                let embedded = embedded.map_err(|error| error.moved(|n| before + n))?;
                for (n, one) in embedded.iter().enumerate() {
                    count(&mut cut, before + n, one.truncated);
                    matrix.push(&one.vector)?;
                }
            }
            Ok((matrix, cut))
        };
        let (matrix, cut) = match soon {
            true => briefly(py, || work(&Watch::default())),
            false => watched(py, heard, work),
        }?;
        Ok((matrix.into_array(py), cut))
    }

    /// The last hidden state of every token of each text.
    fn encode_tokens<'py>(
        &self,
        texts: &Bound<'py, PyList>,
    ) -> PyResult<(Vec<Bound<'py, PyAny>>, Cut)> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let width = embedder.config().hidden as usize;
        let texts = read(texts)?;
        let all = Arc::clone(&texts);
        let (states, cut) = watched(py, None, move |watch| {
            let (tokens, cut) = tokens(embedder.tokenize(&all)?);
            let prepared = embedder.prepare_each_token(tokens, embedder.wanted())?;
            Ok((embedder.compute_watched(prepared, |_| watch.go_on())?, cut))
        })?;
        let states = states.into_iter().map(|rows| array(py, rows.len() / width, width, rows));
        Ok((states.collect(), cut))
    }

    /// Place, score and logit of each document, the best first.
    fn rerank(&self, query: PyBackedStr, documents: &Bound<'_, PyList>) -> PyResult<(Ranked, Cut)> {
        let py = documents.py();
        let embedder = self.embedder(py)?;
        let documents = read(documents)?;
        let all = Arc::clone(&documents);
        let query = query.to_string();
        let mut scores = watched(py, None, move |watch| {
            let prepared = embedder.prepare_scores(&query, &all, embedder.wanted())?;
            embedder.compute_watched(prepared, |_| watch.go_on())
        })?;
        let mut cut = (0, None);
        scores.iter().for_each(|one| count(&mut cut, one.index, one.truncated));
        scores.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        let ranked = scores.into_iter();
        let ranked = ranked.map(|Score { index, score, logit, .. }| (index, score, logit));
        Ok((ranked.collect(), cut))
    }

    /// The chunks of each text.
    fn late_chunks<'py>(
        &self,
        texts: &Bound<'py, PyList>,
        cuts: Cuts,
        asked: Asked,
    ) -> PyResult<Vec<Chunks<'py>>> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let wanted = asked.wanted(&embedder).map_err(|error| raise(py, error))?;
        let texts = read(texts)?;
        let chunkings = cuts.chunkings(texts.len()).map_err(|error| raise(py, error))?;
        let all = Arc::clone(&texts);
        let embedded = watched(py, None, move |watch| {
            let chunkings: Vec<&Chunking> = chunkings.iter().collect();
            let prepared = embedder.prepare_chunks(&all, &chunkings, wanted)?;
            embedder.compute_watched(prepared, |_| watch.go_on())
        })?;
        let text = |text: jinabert::EmbeddedChunks| {
            let chunks = text.chunks.iter().map(|one| &one.chunk.chars);
            let spans: Vec<Span> = chunks.map(|chars| (chars.start, chars.end)).collect();
            let values = text.chunks.iter().flat_map(|one| one.vector.iter().copied()).collect();
            let vectors = array::<f32>(py, spans.len(), wanted.dimensions, values);
            (spans, vectors, text.tokens, text.truncated)
        };
        Ok(embedded.into_iter().map(text).collect())
    }

    /// The ids of each text's tokens, as the model reads them.
    fn tokenize(&self, texts: &Bound<'_, PyList>) -> PyResult<(Vec<Vec<u32>>, Cut)> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let texts = read(texts)?;
        let all = Arc::clone(&texts);
        let (tokens, cut) = tokens(watched(py, None, move |_| embedder.tokenize(&all))?);
        Ok((tokens.into_iter().map(|tokens| tokens.ids).collect(), cut))
    }
}

/// Tokens of texts, and which texts were cut.
fn tokens(tokenized: Vec<Tokenized>) -> (Vec<Tokens>, Cut) {
    let mut cut = (0, None);
    let tokens = tokenized.into_iter().enumerate().map(|(n, text)| {
        count(&mut cut, n, text.lengths().1);
        text.tokens
    });
    (tokens.collect(), cut)
}

/// Counts a text that was cut, of which the whole length is known.
fn count(cut: &mut Cut, text: usize, whole: Option<usize>) {
    if let Some(length) = whole {
        cut.0 += 1;
        cut.1.get_or_insert((text, length));
    }
}

/// A list of str; what is none, or no text, is named.
fn read(texts: &Bound<'_, PyList>) -> PyResult<Texts> {
    let py = texts.py();
    let text = |(index, text): (usize, Bound<'_, PyAny>)| {
        let Ok(text) = text.cast::<PyString>() else {
            let kind = text.get_type().name()?;
            let message = format!("input {index}: a str is meant, not {kind}");
            return Err(PyTypeError::new_err(message));
        };
        PyBackedStr::try_from(text.clone()).map_err(|error| {
            let what = format!("not a text of Unicode: {}", error.value(py));
            raise(py, Error::Input { index, what })
        })
    };
    Ok(Arc::new(texts.iter().enumerate().map(text).collect::<PyResult<_>>()?))
}
