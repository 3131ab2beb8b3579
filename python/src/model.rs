//! Embedder as a Python object.

use crate::{
    call::{self, Watch, briefly, watched},
    errors::{raise, raise_as},
    opening::{Opening, Source},
    vectors::{Matrix, Pair, array, quantizer},
};
use jinabert::{
    Embedder, EncodeOptions, Error, Prompt, Score, Tokens,
    text::{Chunking, Tokenized},
};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    pybacked::{PyBackedBytes, PyBackedStr},
    types::{IntoPyDict, PyDict, PyList, PyString},
};
use std::{
    mem,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Number of texts embedded before their vectors move to the array: bounds the duplicated memory.
const STEP: usize = 1 << 16;

/// Start and end, exclusive, of a chunk in characters.
type Span = (usize, usize);

/// Maximum bytes of texts that are embedded on the caller's thread.  For most models that takes
/// milliseconds on an idle processor; another thread would cost a tenth of one.
const FEW: usize = 1 << 10;

/// Number of truncated texts; index and length of the first.
type Cut = (usize, Option<(usize, usize)>);

/// Vectors of texts, and the truncated texts.
type Encoded<'py> = (Bound<'py, PyAny>, Cut);

/// Index, score and logit of each document.
type Ranked = Vec<(usize, f32, f32)>;

/// Result for a text: spans of its chunks, their vectors, the tokens read, and the tokens of the
/// whole text if some were dropped.
type Chunks<'py> = (Vec<Span>, Bound<'py, PyAny>, usize, Option<usize>);

/// Texts in Python's own memory.
type Texts = Arc<Vec<PyBackedStr>>;

/// Arguments of one call.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    dimensions: Option<usize>,
    normalize: bool,
    task: Option<String>,
}

impl Asked {
    fn encode_options(
        self,
        embedder: &Embedder,
        usual: EncodeOptions,
    ) -> Result<EncodeOptions, Error> {
        let adapter = self.task.map(|task| embedder.adapter(&task)).transpose()?;
        let dimensions = self.dimensions.unwrap_or(usual.dimensions);
        let hidden = usual.dimensions;
        if !(1..=hidden).contains(&dimensions) {
            let what = format!("truncate_dim {dimensions}: the model has 1 to {hidden}");
            return Err(Error::Option(what));
        }
        Ok(EncodeOptions { dimensions, normalize: self.normalize, adapter, ..usual })
    }
}

/// Chunking of texts.
#[derive(FromPyObject)]
enum Cuts {
    /// One rule for all texts, such as `tokens:256`.
    Everywhere(String),
    /// Spans for each text.
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

/// Model on a device.
#[pyclass(frozen, module = "jinabert._native")]
pub struct Model {
    embedder: RwLock<Option<Arc<Embedder>>>,
    /// Maximum text length in tokens, including special ones.
    max_length: AtomicUsize,
}

impl Model {
    /// Embedder handle; an error if it was closed or belongs to another process.
    fn embedder(&self, py: Python<'_>) -> PyResult<Arc<Embedder>> {
        call::not_forked(py)?;
        // The lock is not held while the GIL may be released.
        let held = self.embedder.read().unwrap_or_else(PoisonError::into_inner).clone();
        held.ok_or_else(|| raise_as(py, "ClosedError", "this Embedder was closed"))
    }

    /// Default options of a call.
    fn usual(&self, embedder: &Embedder) -> EncodeOptions {
        EncodeOptions { max_length: self.max_length.load(Relaxed), ..embedder.encode_options() }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // A fork has a copy of the device's memory, but not the threads needed to release it.
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
        let max_length = AtomicUsize::new(embedder.max_length());
        Ok(Self { embedder: RwLock::new(Some(Arc::new(embedder))), max_length })
    }

    /// Sets the maximum text length.
    fn set_max_length(&self, py: Python<'_>, max_length: usize) -> PyResult<()> {
        let embedder = self.embedder(py)?;
        let options = EncodeOptions { max_length, ..embedder.encode_options() };
        let checked = embedder.tokenization().texts::<&str>(&[], &Prompt::Auto, options);
        checked.map_err(|error| raise(py, error))?;
        self.max_length.store(max_length, Relaxed);
        Ok(())
    }

    /// Releases the device, once the calls in progress have ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        call::not_forked(py)?;
        // The lock is released before the GIL: each may be held by a thread waiting for the other.
        let embedder = self.embedder.write().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(embedder));
        Ok(())
    }

    /// Properties of the model and the device, by name.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let embedder = self.embedder(py)?;
        let facts = PyDict::new(py);
        facts.set_item("dim", embedder.dim())?;
        facts.set_item("max_length", self.max_length.load(Relaxed))?;
        facts.set_item("batch_tokens", embedder.runtime().batch_tokens())?;
        facts.set_item("device", embedder.device())?;
        facts.set_item("kind", embedder.runtime().kind())?;
        facts.set_item("task", embedder.task().to_string())?;
        facts.set_item("hidden", embedder.config().hidden)?;
        let declared = embedder.tokenization().declared();
        let tasks = embedder.adapters().iter().map(|info| (&info.task, &info.instruction));
        facts.set_item("tasks", tasks.into_py_dict(py)?)?;
        facts.set_item("prompts", declared.prompts.clone())?;
        facts.set_item("default_prompt_name", declared.default_prompt.as_deref())?;
        facts.set_item("include_prompt", !declared.prompt_excluded)?;
        Ok(facts)
    }

    /// Bytes allocated on the device.
    fn allocated_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        let embedder = self.embedder(py)?;
        Ok(py.detach(|| embedder.runtime().allocated_bytes()))
    }

    /// Embeds texts.
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
        let options = asked
            .encode_options(&embedder, self.usual(&embedder))
            .map_err(|error| raise(py, error))?;
        let quantizer = quantizer(precision, options.dimensions, ranges);
        let quantizer = quantizer.map_err(|error| raise(py, error))?;
        let texts = read(texts)?;
        let mut matrix = Matrix::new(quantizer, texts.len())?;
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let soon = bytes <= FEW
            && heard.is_none()
            && embedder.runtime().kind() == "cpu"
            && embedder.runtime().is_idle();
        let all = Arc::clone(&texts);
        let work = move |watch: &Watch| {
            let total = all.len();
            let mut cut = (0, None);
            for (step, texts) in all.chunks(STEP).enumerate() {
                let before = step * STEP;
                let heard = |at: jinabert::Progress| {
                    watch.hear("", (before + at.done) as u64, total as u64)
                };
                let embedded = embedder.embed_watched(texts, options, heard);
                let embedded = embedded.map_err(|error| error.moved(|n| before + n))?;
                for (n, one) in embedded.iter().enumerate() {
                    count(&mut cut, before + n, one.truncated);
                    matrix.push(&one.vector)?;
                }
            }
            Ok((matrix, cut))
        };
        let (matrix, cut) =
            if soon { briefly(py, || work(&Watch::default())) } else { watched(py, heard, work) }?;
        Ok((matrix.into_array(py), cut))
    }

    /// Last hidden state of every token of each text.
    #[pyo3(signature = (texts, task=None))]
    fn encode_tokens<'py>(
        &self,
        texts: &Bound<'py, PyList>,
        task: Option<String>,
    ) -> PyResult<(Vec<Bound<'py, PyAny>>, Cut)> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let width = embedder.config().hidden as usize;
        let texts = read(texts)?;
        let all = Arc::clone(&texts);
        let adapter = task.map(|task| embedder.adapter(&task)).transpose();
        let adapter = adapter.map_err(|error| raise(py, error))?;
        let options = EncodeOptions { adapter, ..self.usual(&embedder) };
        let (states, cut) = watched(py, None, move |watch| {
            let (tokens, cut) =
                tokens(embedder.tokenization().texts(&all, &Prompt::Auto, options)?);
            let prepared = embedder.jobs().each_token(tokens, options)?;
            Ok((embedder.compute_watched(prepared, |_| watch.go_on())?, cut))
        })?;
        let states = states.into_iter().map(|rows| array(py, rows.len() / width, width, rows));
        Ok((states.collect(), cut))
    }

    /// Index, score and logit of each document, best first.
    fn rerank(&self, query: PyBackedStr, documents: &Bound<'_, PyList>) -> PyResult<(Ranked, Cut)> {
        let py = documents.py();
        let embedder = self.embedder(py)?;
        let documents = read(documents)?;
        let all = Arc::clone(&documents);
        let query = query.to_string();
        let options = self.usual(&embedder);
        let mut scores = watched(py, None, move |watch| {
            let prepared = embedder.jobs().scores(&query, &all, options)?;
            embedder.compute_watched(prepared, |_| watch.go_on())
        })?;
        let mut cut = (0, None);
        scores.iter().for_each(|one| count(&mut cut, one.index, one.truncated));
        scores.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        let ranked = scores.into_iter();
        let ranked = ranked.map(|Score { index, score, logit, .. }| (index, score, logit));
        Ok((ranked.collect(), cut))
    }

    /// Late chunks of each text.
    fn late_chunks<'py>(
        &self,
        texts: &Bound<'py, PyList>,
        cuts: Cuts,
        asked: Asked,
        prompt: String,
    ) -> PyResult<Vec<Chunks<'py>>> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let options = asked
            .encode_options(&embedder, self.usual(&embedder))
            .map_err(|error| raise(py, error))?;
        let texts = read(texts)?;
        let chunkings = cuts.chunkings(texts.len()).map_err(|error| raise(py, error))?;
        let all = Arc::clone(&texts);
        let embedded = watched(py, None, move |watch| {
            let chunkings: Vec<&Chunking> = chunkings.iter().collect();
            let prompt = Prompt::Text(prompt);
            let prepared = embedder.jobs().chunks(&all, &chunkings, &prompt, options)?;
            embedder.compute_watched(prepared, |_| watch.go_on())
        })?;
        let text = |text: jinabert::EmbeddedChunks| {
            let chunks = text.chunks.iter().map(|one| &one.chunk.chars);
            let spans: Vec<Span> = chunks.map(|chars| (chars.start, chars.end)).collect();
            let values = text.chunks.iter().flat_map(|one| one.vector.iter().copied()).collect();
            let vectors = array::<f32>(py, spans.len(), options.dimensions, values);
            (spans, vectors, text.tokens, text.truncated)
        };
        Ok(embedded.into_iter().map(text).collect())
    }

    /// Token ids of each text, as the model reads them.
    fn tokenize(&self, texts: &Bound<'_, PyList>) -> PyResult<(Vec<Vec<u32>>, Cut)> {
        let py = texts.py();
        let embedder = self.embedder(py)?;
        let texts = read(texts)?;
        let all = Arc::clone(&texts);
        let options = self.usual(&embedder);
        let (tokens, cut) = tokens(watched(py, None, move |_| {
            embedder.tokenization().texts(&all, &Prompt::Auto, options)
        })?);
        Ok((tokens.into_iter().map(|tokens| tokens.ids).collect(), cut))
    }
}

/// Tokens of texts, and the truncated texts.
fn tokens(tokenized: Vec<Tokenized>) -> (Vec<Tokens>, Cut) {
    let mut cut = (0, None);
    let tokens = tokenized.into_iter().enumerate().map(|(n, text)| {
        count(&mut cut, n, text.lengths().1);
        text.tokens
    });
    (tokens.collect(), cut)
}

/// Counts a truncated text; `whole` is its full length in tokens, if it was truncated.
fn count(cut: &mut Cut, text: usize, whole: Option<usize>) {
    if let Some(length) = whole {
        cut.0 += 1;
        cut.1.get_or_insert((text, length));
    }
}

/// Reads a list of str; the error names an item that is no str, or no valid text.
fn read(texts: &Bound<'_, PyList>) -> PyResult<Texts> {
    let py = texts.py();
    let text = |(index, text): (usize, Bound<'_, PyAny>)| {
        let Ok(text) = text.cast::<PyString>() else {
            let kind = text.get_type().name()?;
            let message = format!("input {index}: expected a str, got {kind}");
            return Err(PyTypeError::new_err(message));
        };
        PyBackedStr::try_from(text.clone()).map_err(|error| {
            let what = format!("not a text of Unicode: {}", error.value(py));
            raise(py, Error::Input { index, what })
        })
    };
    Ok(Arc::new(texts.iter().enumerate().map(text).collect::<PyResult<_>>()?))
}
