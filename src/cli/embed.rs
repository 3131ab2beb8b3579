//! `jinabert embed`

use super::{
    Failure,
    args::{Embed, Format, Pooling},
    input::{Item, Items, Place, Source},
    output::{Part, Record, Style, Writer},
    precision, source, token_level,
    window::{self, Embedded, Job, Late, Reader, Window},
};
use crate::{Embedder, Options, precision::Quantizer, text::Chunk};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    panic,
    path::PathBuf,
    slice,
    sync::Arc,
    thread,
    time::Duration,
};

pub fn run(args: &Embed, quiet: bool) -> Result<(), Failure> {
    let tokens = args.pooling == Some(Pooling::None);
    let format = match tokens {
        true => token_level::check(args).map(|()| Format::Jsonl)?,
        false => precision::check(args)?,
    };
    let input = match (&args.input, args.text.is_empty()) {
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
        pooling: match args.pooling {
            None => crate::Pooling::Auto,
            Some(Pooling::Cls) => crate::Pooling::Cls,
            Some(Pooling::Mean | Pooling::None) => crate::Pooling::Mean,
        },
        ..args.model.options()?
    };
    let dir = source::directory(&args.model.source, quiet)?;
    let late = late(args)?;
    let embedder = Embedder::open_with(dir, options)?;
    if tokens {
        return token_level::run(args, embedder, input);
    }
    let job = Arc::new(Job { embedder, late });
    let quantizer = precision::quantizer(&args.precision, job.embedder.dim())?;
    let style = Style {
        format,
        encoding: args.precision.encoding,
        precision: quantizer.precision(),
        width: quantizer.width(),
        chunks: job.late.is_some(),
    };
    let mut run = Run {
        writer: Writer::open(&args.output, style)?,
        quantizer,
        outside: 0,
        job,
        progress: progress(input.as_ref(), quiet),
        index: 0,
        vectors: 0,
        tokens: 0,
        truncated: (0, None),
    };
    match input {
        None => {
            let window = Window::new(Items::of_texts(&args.text), 0, &run.job)?;
            let embedded = window.embed(&run.job)?;
            run.write(&Done { window, embedded })?;
        }
        Some(items) => run.all(Reader::new(items, Arc::clone(&run.job)))?,
    }
    run.finish()
}

/// One component of so many may be beyond its range without a word: calibration never saw all.
const OUTSIDE: u64 = 1000;

/// A window that waits to be written.
struct Done {
    window: Window,
    embedded: Vec<Embedded>,
}

struct Run {
    job: Arc<Job>,
    writer: Writer,
    quantizer: Quantizer,
    /// Components that were beyond their range.
    outside: usize,
    progress: ProgressBar,
    index: u64,
    vectors: u64,
    tokens: u64,
    /// How many texts were truncated, and which was the first of what length.
    truncated: (usize, Option<(Place, usize)>),
}

impl Run {
    /// Embeds each window while the one before it is written, where there is one after it already.
    fn all(&mut self, mut reader: Reader) -> Result<(), Failure> {
        let mut done = None;
        loop {
            let window = match reader.ready() {
                Some(Ok(window)) => window,
                Some(Err(failure)) => return self.write_done(&mut done).and(Err(failure)),
                None => {
                    self.write_done(&mut done)?;
                    let Some(window) = reader.wait()? else { return Ok(()) };
                    window
                }
            };
            let job = Arc::clone(&self.job);
            let (embedded, written) = thread::scope(|scope| {
                let embedded = scope.spawn(|| window.embed(&job));
                let written = self.write_done(&mut done);
                (embedded.join().unwrap_or_else(|panic| panic::resume_unwind(panic)), written)
            });
            written?;
            done = Some(Done { embedded: embedded?, window });
        }
    }

    fn write_done(&mut self, done: &mut Option<Done>) -> Result<(), Failure> {
        done.take().map_or(Ok(()), |done| self.write(&done))
    }

    fn write(&mut self, Done { window, embedded }: &Done) -> Result<(), Failure> {
        for (item, embedded) in window.items.iter().zip(embedded) {
            if let Some(length) = embedded.truncated {
                self.truncated.0 += 1;
                self.truncated.1.get_or_insert((item.place, length));
            }
            let (index, id) = (self.index, item.id.as_ref());
            for (n, (chunk, vector)) in embedded.vectors.iter().enumerate() {
                let embedding = self.quantizer.quantize(vector);
                let embedding =
                    embedding.map_err(|error| window::at_line(error, slice::from_ref(item)))?;
                let tokens = chunk.as_ref().map_or(embedded.tokens, |chunk| chunk.tokens.len());
                let part = chunk.as_ref().map(|chunk| part(item, n, chunk));
                self.writer.write(&Record { index, id, part, tokens, embedding })?;
                self.outside += self.quantizer.outside(vector);
                self.vectors += 1;
            }
            self.index += 1;
            self.tokens += embedded.tokens as u64;
        }
        let rate = self.tokens as f64 / self.progress.elapsed().as_secs_f64();
        self.progress.set_message(format!("{} texts, {rate:.0} tokens/s", self.index));
        self.progress.set_position(window.position);
        self.writer.flush()
    }

    fn finish(self) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.writer.finish()?;
        let components = self.vectors * self.job.embedder.dim() as u64;
        if self.outside as u64 > components / OUTSIDE {
            tracing::warn!(
                "{} of {components} components are beyond their range and took its end: give a \
                 wider --int8-range, or more vectors in --calibration",
                self.outside
            );
        }
        if let (count, Some((place, length))) = self.truncated {
            let limit = self.job.embedder.max_length();
            tracing::warn!(
                "truncated {count} of {} texts to {limit} tokens; the first is {place}, {length} tokens",
                self.index
            );
        }
        Ok(())
    }
}

/// A chunk of an item's text.
fn part<'a>(item: &'a Item, n: usize, chunk: &Chunk) -> Part<'a> {
    let text = match &item.source {
        Source::Text(text) => &text[chunk.bytes.clone()],
        Source::Tokens(_) => "",
    };
    Part { chunk: n, start: chunk.chars.start, end: chunk.chars.end, text }
}

/// How texts are cut, if they are.
fn late(args: &Embed) -> Result<Option<Late>, Failure> {
    if args.late_chunking && args.pooling == Some(Pooling::Cls) {
        let what = "--late-chunking takes means of chunks: --pooling cls is not for it";
        return Err(Failure::Usage(what.into()));
    }
    match (args.late_chunking, &args.chunk) {
        (true, chunk) => Ok(Some(Late(chunk.clone()))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Failure::Usage("--chunk is for --late-chunking".into())),
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
