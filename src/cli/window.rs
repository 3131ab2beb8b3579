//! Items that are read, tokenised and embedded together.

use super::{
    Failure,
    input::{Item, Items, Place, Source},
};
use crate::{Embedder, Error, Vector, batch::Tokens, text::Tokenized};
use std::{
    panic,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
};

/// Texts that are read, sorted by length and written together: the memory that a run takes, however
/// many lines there are.
const ITEMS: usize = 1024;
const BYTES: u64 = 16 << 20;

/// Items in order, and the tokens of those that are texts.
pub struct Window {
    pub items: Vec<Item>,
    tokenized: Vec<Tokenized>,
    /// Bytes of the input read by its end.
    pub position: u64,
}

impl Window {
    /// Tokenises the items.
    pub fn new(items: Vec<Item>, position: u64, embedder: &Embedder) -> Result<Self, Failure> {
        let (mut texts, mut lines) = (Vec::new(), Vec::new());
        for (n, item) in items.iter().enumerate() {
            if let Source::Text(text) = &item.source {
                texts.push(text.as_str());
                lines.push(n);
            }
        }
        let tokenized = match texts.is_empty() {
            true => Vec::new(),
            // The index of an error counts texts, not items.
            false => {
                let tokenized = embedder.tokenize(&texts);
                tokenized.map_err(|error| at_line(error.moved(|n| lines[n]), &items))?
            }
        };
        Ok(Self { items, tokenized, position })
    }

    fn read(items: &mut Items, embedder: &Embedder) -> Result<Option<Self>, Failure> {
        let (mut window, start) = (Vec::new(), items.position);
        while window.len() < ITEMS && items.position - start < BYTES {
            match items.next()? {
                Some(item) => window.push(item),
                None => break,
            }
        }
        match window.is_empty() {
            true => Ok(None),
            false => Self::new(window, items.position, embedder).map(Some),
        }
    }

    /// The tokens of each item.
    pub fn tokens(&self) -> Vec<&Tokens> {
        let mut made = self.tokenized.iter().map(|text| &text.tokens);
        let tokens = self.items.iter().map(|item| match &item.source {
            Source::Tokens(tokens) => tokens,
            Source::Text(_) => made.next().expect("one for each text"),
        });
        tokens.collect()
    }

    /// Texts that were cut, with their whole lengths.
    pub fn truncated(&self) -> Vec<(Place, usize)> {
        let texts = self.items.iter().filter(|item| matches!(item.source, Source::Text(_)));
        let cut = texts.zip(&self.tokenized).filter(|(_, t)| t.full_length > t.tokens.len());
        cut.map(|(item, text)| (item.place, text.full_length)).collect()
    }

    /// The vector of each item.
    pub fn embed(&self, embedder: &Embedder) -> Result<Vec<Vector>, Failure> {
        embedder.embed_tokens(&self.tokens()).map_err(|error| at_line(error, &self.items))
    }
}

/// Reads and tokenises on a thread of its own, a window or two ahead.
pub struct Reader {
    windows: Receiver<Result<Window, Failure>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Begins to read.  The thread is not waited for when a run ends early: a pipe may stay silent
    /// for ever.
    pub fn new(mut items: Items, embedder: Arc<Embedder>) -> Self {
        let (sender, windows) = mpsc::sync_channel(1);
        let read = move || {
            while let Some(window) = Window::read(&mut items, &embedder).transpose() {
                let failed = window.is_err();
                if sender.send(window).is_err() || failed {
                    return;
                }
            }
        };
        Self { windows, thread: Some(thread::spawn(read)) }
    }

    /// The next window, if it is there already.
    pub fn ready(&self) -> Option<Result<Window, Failure>> {
        self.windows.try_recv().ok()
    }

    /// The next window; none at the end.
    pub fn wait(&mut self) -> Result<Option<Window>, Failure> {
        if let Ok(window) = self.windows.recv() {
            return window.map(Some);
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => panic::resume_unwind(panic),
            _ => Ok(None),
        }
    }
}

/// Names the line instead of the position.
pub fn at_line(error: Error, items: &[Item]) -> Failure {
    match error {
        Error::Input { index, what } => Failure::Item { place: items[index].place, what },
        Error::TooLong { index, tokens, limit } => {
            let Item { place, source, .. } = &items[index];
            let help = match source {
                Source::Text(_) => " (--on-long truncate cuts)",
                Source::Tokens(_) => "; ids are never cut",
            };
            let what = format!("{tokens} tokens, over the limit of {limit}{help}");
            Failure::Item { place: *place, what }
        }
        other => other.into(),
    }
}
