//! The command line: `jinabert embed`, `similarity`, `rerank`, `multi-vector`, `fill-mask`,
//! `perplexity`, `devices`, `doctor`, `bench`, `tune`, `pull`, `info`, `serve`,
//! `completions`, `man`.

mod args;
mod bench;
mod bench_args;
mod completions;
mod curve;
mod describe;
mod devices;
mod doctor;
mod embed;
mod failure;
mod info;
mod input;
mod man;
mod npy;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod perplexity;
mod precision;
mod pull;
#[cfg(feature = "server")]
mod serve;
#[cfg(feature = "server")]
mod serve_args;
mod shipped;
mod similarity;
mod source;
mod task_args;
mod tasks;
mod token_level;
mod tune;
mod window;

use args::{Args, Command};
use clap::{CommandFactory, FromArgMatches};
pub use failure::Failure;
pub use input::Place;
use std::process::ExitCode;
use tracing_subscriber::{
    Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args = parse();
    // The device is in the table already.
    let quiet = args.quiet || matches!(args.command, Command::Bench(_) | Command::Tune(_));
    let level = if quiet { tracing::Level::WARN } else { tracing::Level::INFO };
    let result = log(&args, level).and_then(|_exporter| run(args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("jinabert: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What was typed, and said by the environment.
fn parse() -> Args {
    let matches = Args::command().get_matches();
    let args = Args::from_arg_matches(&matches);
    #[cfg(feature = "server")]
    let args = args.map(|mut args| {
        if let (Command::Serve(serve), Some((_, matches))) =
            (&mut args.command, matches.subcommand())
        {
            serve.part_lists(matches);
        }
        args
    });
    args.unwrap_or_else(|error| error.exit())
}

/// What is kept until the end: it sends what is not sent yet.
#[cfg(feature = "otlp")]
type Exporter = otlp::Exporter;
#[cfg(not(feature = "otlp"))]
type Exporter = ();

/// What happens is said on stderr, in lines of text or of JSON, and to a collector if there is one.
fn log(args: &Args, level: tracing::Level) -> Result<Option<Exporter>, Failure> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match args.command.json_log() {
        true => lines.json().boxed(),
        false => lines.without_time().with_target(false).with_level(false).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(LevelFilter::from(level)));
    #[cfg(feature = "otlp")]
    if let Some(endpoint) = args.command.otlp_endpoint() {
        let (layer, exporter) = otlp::layer(endpoint).map_err(Failure::Usage)?;
        log.with(layer.with_filter(LevelFilter::INFO)).init();
        return Ok(Some(exporter));
    }
    log.init();
    Ok(None)
}

fn run(args: Args) -> Result<(), Failure> {
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        // The pool exists already only if this runs twice in one process; the first setting stays
        // then.
        let _ = pool.build_global();
    }
    match args.command {
        Command::Embed(embed) => embed::run(&embed, args.quiet),
        Command::Similarity(similarity) => similarity::run(&similarity, args.quiet),
        Command::Rerank(rerank) => tasks::rerank(&rerank, args.quiet),
        Command::MultiVector(texts) => tasks::multi_vector(&texts, args.quiet),
        Command::FillMask(texts) => tasks::fill_mask(&texts, args.quiet),
        Command::Perplexity(texts) => perplexity::run(&texts, args.quiet),
        Command::Devices => devices::run(),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Info(info) => info::run(&info, args.quiet),
        Command::Pull(pull) => pull::run(&pull, args.quiet),
        #[cfg(feature = "server")]
        Command::Serve(serve) => serve::run(serve, args.quiet),
        Command::Bench(bench) => bench::run(&bench, args.quiet),
        Command::Tune(tune) => tune::run(&tune, args.quiet),
        Command::Completions(completions) => completions::run(&completions),
        Command::Man(man) => man::run(&man),
    }
}
