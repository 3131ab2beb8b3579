//! Windows of items that are read, tokenised and embedded together.

use crate::{
    error::CliError,
    input::{Items, Skipped},
    item::{Content, Item, with_position},
};
use jinabert::{
    EmbeddedChunk, EmbeddedChunks, Embedder, Error, Prompt, Vector,
    batch::Tokens,
    text::{Chunk, Chunking, Tokenized},
};
use std::{
    panic,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
};

/// Maximum items, and bytes of text, that are read, sorted by length and written together: they
/// bound the memory of a run of any length.
const ITEMS: usize = 1024;
const BYTES: u64 = 16 << 20;

/// Work to do for all items.
pub struct Job {
    pub embedder: Embedder,
    /// Late chunking, if texts are embedded in chunks.
    pub late: Option<Late>,
    /// Record of bad items, if they are to be skipped.
    pub skipped: Option<Arc<Skipped>>,
}

/// Late chunking: by the spans of an item, or by this chunking if it has none.
pub struct Late(pub Option<Chunking>);

/// Items in order, and the tokens of those that are texts.
pub struct Window {
    pub items: Vec<Item>,
    tokenized: Vec<Tokenized>,
    /// Bytes of the input read up to the end of the window.
    pub position: u64,
}

/// Result for an item.
pub struct Embedded {
    /// Vectors: one, or one for each chunk.
    pub vectors: Vec<(Option<Chunk>, Vector)>,
    /// Tokens that were read.
    pub tokens: usize,
    /// Tokens of the whole text, if some were dropped.
    pub truncated: Option<usize>,
}

impl From<EmbeddedChunks> for Embedded {
    fn from(embedded: EmbeddedChunks) -> Self {
        let EmbeddedChunks { chunks, tokens, truncated, .. } = embedded;
        let pairs =
            chunks.into_iter().map(|EmbeddedChunk { chunk, vector, .. }| (Some(chunk), vector));
        Self { vectors: pairs.collect(), tokens, truncated }
    }
}

impl Window {
    /// Tokenises the items, unless chunks are tokenised separately.  If bad items are to be
    /// skipped, the remaining ones can be embedded.
    pub fn new(items: Vec<Item>, position: u64, job: &Job) -> Result<Self, CliError> {
        let Some(skipped) = &job.skipped else { return Self::tokenize(items, position, job) };
        let check = |window: Self| window.check(job).map(|()| window);
        if let Ok(window) = Self::tokenize(items.clone(), position, job).and_then(check) {
            return Ok(window);
        }
        // One item at a time, to find the bad ones.
        let mut good = Vec::new();
        for item in items {
            match Self::tokenize(vec![item.clone()], position, job).and_then(check) {
                Ok(_) => good.push(item),
                Err(failure @ CliError::Item { .. }) => skipped.add(&failure),
                Err(failure) => return Err(failure),
            }
        }
        Self::tokenize(good, position, job)
    }

    fn tokenize(items: Vec<Item>, position: u64, job: &Job) -> Result<Self, CliError> {
        let mut texts = Vec::new();
        let mut lines = Vec::new();
        for (n, item) in items.iter().enumerate() {
            match (&job.late, &item.content) {
                (None, Content::Text(text)) if item.spans.is_none() => {
                    texts.push(text.as_str());
                    lines.push(n);
                }
                (None, Content::Text(_)) => {
                    let what = "\"spans\" are for --late-chunking".to_owned();
                    return Err(CliError::Item { place: item.place, what });
                }
                (Some(_), Content::Tokens(_)) => {
                    let what = "chunks are of a text: expected \"text\", got \"ids\"".to_owned();
                    return Err(CliError::Item { place: item.place, what });
                }
                (None, Content::Tokens(_)) | (Some(_), Content::Text(_)) => {}
            }
        }
        let tokenized = if texts.is_empty() {
            Vec::new()
        } else {
            // The index in an error counts texts, not items.
            let result = job.embedder.tokenize(&texts);
            result.map_err(|error| with_position(error.moved(|n| lines[n]), &items))?
        };
        Ok(Self { items, tokenized, position })
    }

    fn read(items: &mut Items, job: &Job) -> Result<Option<Self>, CliError> {
        let mut window = Vec::new();
        let start = items.position;
        while window.len() < ITEMS && items.position - start < BYTES {
            match items.next()? {
                Some(item) => window.push(item),
                None => break,
            }
        }
        if window.is_empty() {
            return Ok(None);
        }
        Self::new(window, items.position, job).map(Some)
    }

    /// Checks that [`Window::embed`] will not refuse an item, without computing anything.
    fn check(&self, job: &Job) -> Result<(), CliError> {
        let embedder = &job.embedder;
        let prepared = match &job.late {
            None => {
                let tokens = self.tokens().into_iter().map(|(tokens, _)| tokens.clone()).collect();
                embedder.jobs().tokens(tokens, embedder.encode_options()).map(|_| ())
            }
            Some(late) => {
                let (texts, chunkings) = self.chunkings(late)?;
                let chunkings: Vec<&Chunking> = chunkings.iter().collect();
                let options = embedder.encode_options();
                embedder.jobs().chunks(&texts, &chunkings, &Prompt::Auto, options).map(|_| ())
            }
        };
        prepared.map_err(|error| self.with_position(error))
    }

    /// Results for the items, in order.
    pub fn embed(&self, job: &Job) -> Result<Vec<Embedded>, CliError> {
        let embedded = match &job.late {
            None => self.whole(&job.embedder),
            Some(late) => self.chunks(&job.embedder, late)?,
        };
        embedded.map_err(|error| self.with_position(error))
    }

    /// Tokens of each item that is not split into chunks, and the number of tokens in its text.
    pub fn tokens(&self) -> Vec<(&Tokens, usize)> {
        let mut made = self.tokenized.iter();
        let tokens = self.items.iter().map(|item| match &item.content {
            Content::Tokens(tokens) => (tokens, tokens.len()),
            Content::Text(_) => {
                let text = made.next().expect("one for each text");
                (&text.tokens, text.full_length)
            }
        });
        tokens.collect()
    }

    /// Error about one of the items.
    pub fn with_position(&self, error: Error) -> CliError {
        with_position(error, &self.items)
    }

    /// Results for items that are not split.
    fn whole(&self, embedder: &Embedder) -> Result<Vec<Embedded>, Error> {
        let tokens = self.tokens();
        let sequences: Vec<&Tokens> = tokens.iter().map(|(tokens, _)| *tokens).collect();
        let vectors = embedder.tokens().embed(&sequences)?.into_iter().zip(tokens);
        let embedded = vectors.map(|(vector, (tokens, full))| Embedded {
            vectors: vec![(None, vector)],
            tokens: tokens.len(),
            truncated: (full > tokens.len()).then_some(full),
        });
        Ok(embedded.collect())
    }

    /// Texts, with the chunking of each.
    fn chunkings(&self, late: &Late) -> Result<(Vec<&str>, Vec<Chunking>), CliError> {
        let mut texts = Vec::new();
        let mut chunkings = Vec::new();
        for item in &self.items {
            let Content::Text(text) = &item.content else {
                unreachable!("refused when it was read")
            };
            texts.push(text.as_str());
            chunkings.push(match (&item.spans, &late.0) {
                (Some(spans), _) => Chunking::Spans(spans.clone()),
                (None, Some(chunking)) => chunking.clone(),
                (None, None) => {
                    let what = "no \"spans\", and no --chunk for texts without".to_owned();
                    return Err(CliError::Item { place: item.place, what });
                }
            });
        }
        Ok((texts, chunkings))
    }

    /// Results for texts that are split into chunks.
    fn chunks(
        &self,
        embedder: &Embedder,
        late: &Late,
    ) -> Result<Result<Vec<Embedded>, Error>, CliError> {
        let (texts, chunkings) = self.chunkings(late)?;
        let chunkings: Vec<&Chunking> = chunkings.iter().collect();
        let options = embedder.encode_options();
        let job = embedder.jobs().chunks(&texts, &chunkings, &Prompt::Auto, options);
        let embedded = job.and_then(|job| embedder.compute(job));
        Ok(embedded.map(|texts| texts.into_iter().map(Embedded::from).collect()))
    }
}

/// Reader that reads and tokenises on a thread of its own, one or two windows ahead.
pub struct Reader {
    windows: Receiver<Result<Window, CliError>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts reading.  The thread is not joined when a run ends early: a pipe may never deliver
    /// anything.
    pub fn new(mut items: Items, job: Arc<Job>) -> Self {
        let (sender, windows) = mpsc::sync_channel(1);
        let read = move || {
            while let Some(window) = Window::read(&mut items, &job).transpose() {
                let failed = window.is_err();
                if sender.send(window).is_err() || failed {
                    return;
                }
            }
        };
        Self { windows, thread: Some(thread::spawn(read)) }
    }

    /// The next window, if it is ready.
    pub fn ready(&self) -> Option<Result<Window, CliError>> {
        self.windows.try_recv().ok()
    }

    /// Waits for the next window; `None` at the end.
    pub fn wait(&mut self) -> Result<Option<Window>, CliError> {
        if let Ok(window) = self.windows.recv() {
            return window.map(Some);
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => panic::resume_unwind(panic),
            _ => Ok(None),
        }
    }
}
