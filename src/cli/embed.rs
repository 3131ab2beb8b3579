//! `jinabert embed`

use super::{
    Failure,
    args::Embed,
    input::{Item, Items, Place, Source},
    output::{Record, Writer},
    shipped,
};
use crate::{Embedder, Error, Options, batch::Tokens};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

/// Texts that are read, sorted by length and written together: the memory that a run takes, however
/// many lines there are.
const WINDOW: usize = 1024;
const WINDOW_BYTES: usize = 16 << 20;

pub fn run(args: &Embed, quiet: bool) -> Result<(), Failure> {
    let mut input = match (&args.input, args.text.is_empty()) {
        (Some(path), _) => Some(Items::open(path, args.input_format)?),
        (None, false) => None,
        (None, true) if io::stdin().is_terminal() => {
            return Err(Failure::Usage(
                "no text: give TEXT, --input FILE, or pipe lines in".into(),
            ));
        }
        (None, true) => Some(Items::open(&PathBuf::from("-"), args.input_format)?),
    };
    let options = Options {
        dimensions: args.dimensions,
        normalize: !args.no_normalize,
        ..args.model.options()
    };
    let dir = shipped::directory(args.model.model.as_deref())?;
    let embedder = Embedder::open_with(dir, options)?;
    let mut run = Run {
        writer: Writer::open(&args.output, args.format, embedder.dim())?,
        embedder,
        progress: progress(input.as_ref(), quiet),
        index: 0,
        tokens: 0,
        truncated: (0, None),
    };
    match &mut input {
        None => run.window(&Items::of_texts(&args.text))?,
        Some(items) => loop {
            let window = read_window(items)?;
            if window.is_empty() {
                break;
            }
            run.window(&window)?;
            run.progress.set_position(items.position);
        },
    }
    run.finish()
}

fn read_window(items: &mut Items) -> Result<Vec<Item>, Failure> {
    let (mut window, start) = (Vec::new(), items.position);
    while window.len() < WINDOW && items.position - start < WINDOW_BYTES as u64 {
        match items.next()? {
            Some(item) => window.push(item),
            None => break,
        }
    }
    Ok(window)
}

struct Run {
    embedder: Embedder,
    writer: Writer,
    progress: ProgressBar,
    index: u64,
    tokens: u64,
    /// How many texts were truncated, and which was the first of what length.
    truncated: (usize, Option<(Place, usize)>),
}

impl Run {
    fn window(&mut self, items: &[Item]) -> Result<(), Failure> {
        let at_line = |error| at_line(error, items);
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
            false => self.embedder.tokenize(&texts).map_err(|e| at_line(moved(e, &lines)))?,
        };
        for (text, &n) in tokenized.iter().zip(&lines) {
            if text.full_length > text.tokens.len() {
                let (count, first) = &mut self.truncated;
                *count += 1;
                first.get_or_insert((items[n].place, text.full_length));
            }
        }
        let mut made = tokenized.iter().map(|text| &text.tokens);
        let tokens: Vec<&Tokens> = items
            .iter()
            .map(|item| match &item.source {
                Source::Tokens(tokens) => tokens,
                Source::Text(_) => made.next().expect("one for each text"),
            })
            .collect();
        let vectors = self.embedder.embed_tokens(&tokens).map_err(at_line)?;
        for ((item, tokens), vector) in items.iter().zip(tokens).zip(&vectors) {
            let (index, tokens) = (self.index, tokens.len());
            self.writer.write(&Record {
                index,
                id: item.id.as_ref(),
                tokens,
                embedding: vector,
            })?;
            self.index += 1;
            self.tokens += tokens as u64;
        }
        let rate = self.tokens as f64 / self.progress.elapsed().as_secs_f64();
        self.progress.set_message(format!("{} texts, {rate:.0} tokens/s", self.index));
        self.writer.flush()
    }

    fn finish(self) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.writer.finish()?;
        if let (count, Some((place, length))) = self.truncated {
            let limit = self.embedder.max_length();
            tracing::warn!(
                "truncated {count} of {} texts to {limit} tokens; the first is {place}, {length} tokens",
                self.index
            );
        }
        Ok(())
    }
}

/// The same error, its index counting through `positions`.
fn moved(error: Error, positions: &[usize]) -> Error {
    match error {
        Error::Input { index, what } => Error::Input { index: positions[index], what },
        Error::TooLong { index, tokens, limit } => {
            Error::TooLong { index: positions[index], tokens, limit }
        }
        other => other,
    }
}

/// Names the line instead of the position.
fn at_line(error: Error, items: &[Item]) -> Failure {
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

/// A bar over the bytes of a file, a spinner for a pipe, nothing where nobody looks.
fn progress(input: Option<&Items>, quiet: bool) -> ProgressBar {
    let Some(items) = input.filter(|_| !quiet && io::stderr().is_terminal()) else {
        return ProgressBar::hidden();
    };
    let (bar, template) = match items.size {
        Some(size) => {
            (ProgressBar::new(size), "{bar:32} {percent:>3}%  {msg}  {elapsed} elapsed, {eta} left")
        }
        None => (ProgressBar::no_length(), "{spinner} {msg}  {elapsed} elapsed"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
    bar
}
