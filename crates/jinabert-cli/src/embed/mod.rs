//! `jinabert embed`

mod args;
mod npy;
mod output;
mod precision;
mod token_level;
mod window;

pub use args::Embed;

use crate::{
    error::{CliError, InputPosition},
    input::Items,
    item::{Content, Item, with_position},
    progress::Progress,
    source,
};
use args::{Format, Pooling};
use clap::ValueEnum;
use jinabert::{Options, precision::Quantizer, text::Chunk};
use output::{Part, Record, Style, Writer};
use std::{panic, slice, sync::Arc, thread};
use window::{Embedded, Job, Late, Reader, Window};

/// Embeds the texts and writes their vectors.
pub fn run(args: &Embed, quiet: bool) -> Result<(), CliError> {
    let tokens = args.pooling == Some(Pooling::None);
    let format = if tokens {
        token_level::check(args)?;
        Format::Jsonl
    } else {
        precision::check(args)?
    };
    let input = args.input.open(&args.text, "text", own_fields(args))?;
    if args.input.keep_fields && !matches!(format, Format::Json | Format::Jsonl) {
        let what = "--keep-fields is for json and jsonl output: csv and npy have no fields";
        return Err(CliError::Usage(what.into()));
    }
    let skipped = match &input {
        Some(items) => items.skipped(),
        None => args.input.skip_bad_lines.then(Arc::default),
    };
    let options = options(args, input.is_some())?;
    let late = late(args)?;
    let (embedder, _) = source::open(&args.model, options, "embed", quiet)?;
    if tokens {
        return token_level::run(args, Job { embedder, late: None, skipped }, input);
    }
    let job = Arc::new(Job { embedder, late, skipped });
    let quantizer = precision::quantizer(&args.precision, job.embedder.dim())?;
    let style = Style {
        format,
        encoding: args.precision.encoding,
        precision: quantizer.precision(),
        width: quantizer.width(),
        chunks: job.late.is_some(),
    };
    let progress = match &input {
        Some(items) => Progress::new(items.size, quiet),
        None => Progress::hidden(),
    };
    let mut run = Run::new(Writer::open(&args.output, style)?, quantizer, job, progress);
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

/// Options of the model for a call, in bulk if the texts are read from a file.
fn options(args: &Embed, bulk: bool) -> Result<Options, CliError> {
    Ok(args.prompt.chosen(Options {
        dimensions: args.dimensions,
        any_dimensions: args.any_dimensions,
        normalize: !args.no_normalize,
        pooling: match args.pooling {
            None => jinabert::Pooling::Auto,
            Some(Pooling::Cls) => jinabert::Pooling::Cls,
            Some(Pooling::Last) => jinabert::Pooling::Last,
            Some(Pooling::Max) => jinabert::Pooling::Max,
            Some(Pooling::WeightedMean) => jinabert::Pooling::WeightedMean,
            Some(Pooling::Mean | Pooling::None) => jinabert::Pooling::Mean,
        },
        workload: if bulk { jinabert::Workload::Throughput } else { jinabert::Workload::Latency },
        ..args.model.options()?
    }))
}

/// Names of the output's own fields, in addition to those of the input.
fn own_fields(args: &Embed) -> &'static [&'static str] {
    match (args.pooling, args.late_chunking) {
        (Some(Pooling::None), _) => &["index", "embeddings"],
        (_, true) => &["index", "chunk", "start", "end", "tokens", "embedding"],
        (_, false) => &["index", "tokens", "embedding"],
    }
}

/// Number of components of which one may be out of range without a warning: calibration is a
/// sample.
const OUTSIDE: u64 = 1000;

/// Embedded window that is to be written.
struct Done {
    window: Window,
    embedded: Vec<Embedded>,
}

struct Run {
    job: Arc<Job>,
    writer: Writer,
    quantizer: Quantizer,
    /// Number of components that were out of range.
    outside: usize,
    progress: Progress,
    texts: u64,
    vectors: u64,
    tokens: u64,
    /// Number of truncated texts.
    truncated: usize,
    /// Position and length in tokens of the first truncated text.
    first_truncated: Option<(InputPosition, usize)>,
}

impl Run {
    fn new(writer: Writer, quantizer: Quantizer, job: Arc<Job>, progress: Progress) -> Self {
        Self {
            job,
            writer,
            quantizer,
            outside: 0,
            progress,
            texts: 0,
            vectors: 0,
            tokens: 0,
            truncated: 0,
            first_truncated: None,
        }
    }

    /// Embeds each window while the previous one is written, if the next window is ready.
    fn all(&mut self, mut reader: Reader) -> Result<(), CliError> {
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

    fn write_done(&mut self, done: &mut Option<Done>) -> Result<(), CliError> {
        done.take().map_or(Ok(()), |done| self.write(&done))
    }

    fn write(&mut self, Done { window, embedded }: &Done) -> Result<(), CliError> {
        for (item, embedded) in window.items.iter().zip(embedded) {
            if let Some(length) = embedded.truncated {
                self.truncated += 1;
                self.first_truncated.get_or_insert((item.place, length));
            }
            for (n, (chunk, vector)) in embedded.vectors.iter().enumerate() {
                let quantized = self.quantizer.quantize(vector);
                let embedding =
                    quantized.map_err(|error| with_position(error, slice::from_ref(item)))?;
                self.writer.write(&Record {
                    index: item.index,
                    id: item.id.as_deref(),
                    fields: &item.fields,
                    part: chunk.as_ref().map(|chunk| part(item, n, chunk)),
                    tokens: chunk.as_ref().map_or(embedded.tokens, |chunk| chunk.tokens.len()),
                    embedding,
                })?;
                self.outside += self.quantizer.outside(vector);
                self.vectors += 1;
            }
            self.texts += 1;
            self.tokens += embedded.tokens as u64;
        }
        let rate = self.tokens as f64 / self.progress.elapsed().as_secs_f64();
        let message = format!("{} texts, {rate:.0} tokens/s", self.texts);
        self.progress.show(window.position, message);
        self.writer.flush()
    }

    fn finish(self) -> Result<(), CliError> {
        self.progress.finish();
        self.writer.finish()?;
        let components = self.vectors * self.job.embedder.dim() as u64;
        if self.outside as u64 > components / OUTSIDE {
            tracing::warn!(
                "{} of {components} components are beyond their range and took its end: use a \
                 wider --int8-range, or more vectors in --calibration",
                self.outside
            );
        }
        if let Some((place, length)) = self.first_truncated {
            tracing::warn!(
                "truncated {} of {} texts to {} tokens; the first is {place}, {length} tokens",
                self.truncated,
                self.texts,
                self.job.embedder.max_length()
            );
        }
        if let Some(skipped) = &self.job.skipped {
            skipped.report(self.texts);
        }
        Ok(())
    }
}

/// Chunk of an item's text.
fn part<'a>(item: &'a Item, n: usize, chunk: &Chunk) -> Part<'a> {
    let text = match &item.content {
        Content::Text(text) => &text[chunk.bytes.clone()],
        Content::Tokens(_) => "",
    };
    Part { chunk: n, start: chunk.chars.start, end: chunk.chars.end, text }
}

/// Late chunking as requested, if at all.
fn late(args: &Embed) -> Result<Option<Late>, CliError> {
    let pooling = args.pooling.filter(|pooling| *pooling != Pooling::Mean);
    if let Some(other) = pooling.filter(|_| args.late_chunking) {
        let other = other.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned());
        let what = format!("--late-chunking: expected --pooling mean, got {other}");
        return Err(CliError::Usage(what));
    }
    match (args.late_chunking, &args.chunk) {
        (true, chunk) => Ok(Some(Late(chunk.clone()))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(CliError::Usage("--chunk is for --late-chunking".into())),
    }
}
