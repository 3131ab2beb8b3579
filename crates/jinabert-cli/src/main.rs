//! The command line: `jinabert embed`, `similarity`, `rerank`, `multi-vector`, `fill-mask`,
//! `perplexity`, `devices`, `doctor`, `bench`, `tune`, `shaders`, `pull`, `info`, `serve`,
//! `completions`, `man`.

mod args;
mod atomic_file;
mod bench;
mod completions;
mod devices;
mod doctor;
mod embed;
mod error;
mod info;
mod input;
mod item;
mod json_lines;
mod man;
mod options;
#[cfg(feature = "otlp")]
mod otlp;
mod perplexity;
mod progress;
mod pull;
#[cfg(feature = "server")]
mod serve;
mod shaders;
mod shipped;
mod similarity;
mod source;
mod svg;
mod tasks;
mod temporary;
mod tune;
mod variables;

use args::{Args, Command};
use clap::{CommandFactory, FromArgMatches};
use error::CliError;
use std::process::ExitCode;
use tracing_subscriber::{
    Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt,
};

fn main() -> ExitCode {
    #[cfg(all(unix, not(target_vendor = "apple")))]
    silence_wayland();
    let (args, variables) = parse();
    // `bench` and `tune` print the device themselves.
    let quiet = args.quiet || matches!(args.command, Command::Bench(_) | Command::Tune(_));
    let level = if quiet { tracing::Level::WARN } else { tracing::Level::INFO };
    let result = log(&args, level).and_then(|_exporter| run(args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut message = failure.to_string();
            if failure.is_of_options() {
                message += &variables::note(&message, &variables);
            }
            eprintln!("jinabert: {message}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Parses arguments and environment variables; returns also the variables used, with their values.
fn parse() -> (Args, Vec<(String, String)>) {
    let matches = variables::parse(Args::command()).unwrap_or_else(|error| error.exit());
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    #[cfg(feature = "server")]
    let mut args = args;
    #[cfg(feature = "server")]
    if let Command::Serve(serve) = &mut args.command
        && let Some((_, matches)) = matches.subcommand()
    {
        serve.split_lists(matches);
    }
    (args, variables::used(&Args::command(), &matches))
}

/// Exporter to keep until the end: dropping it sends the remaining spans.
#[cfg(feature = "otlp")]
type Exporter = otlp::Exporter;
#[cfg(not(feature = "otlp"))]
type Exporter = ();

/// Sets up logging: on stderr, as text or JSON lines, and to a collector if there is one.
fn log(args: &Args, level: tracing::Level) -> Result<Option<Exporter>, CliError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if args.command.json_log() {
        lines.json().boxed()
    } else {
        lines.without_time().with_target(false).with_level(false).boxed()
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(LevelFilter::from(level)));
    #[cfg(feature = "otlp")]
    if let Some(endpoint) = args.command.otlp_endpoint() {
        let (layer, exporter) = otlp::layer(endpoint).map_err(CliError::Usage)?;
        log.with(layer.with_filter(LevelFilter::INFO)).init();
        return Ok(Some(exporter));
    }
    log.init();
    Ok(None)
}

fn run(args: Args) -> Result<(), CliError> {
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        // The pool exists already only if this runs twice in one process; then the first setting
        // stays.
        let _ = pool.build_global();
    }
    match args.command {
        Command::Embed(embed) => embed::run(&embed, args.quiet),
        Command::Similarity(similarity) => similarity::run(&similarity, args.quiet),
        Command::Rerank(rerank) => tasks::rerank::run(&rerank, args.quiet),
        Command::MultiVector(texts) => tasks::multi_vector::run(&texts, args.quiet),
        Command::FillMask(texts) => tasks::fill_mask::run(&texts, args.quiet),
        Command::Perplexity(texts) => perplexity::run(&texts, args.quiet),
        Command::Devices => devices::run(),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Info(info) => info::run(&info, args.quiet),
        Command::Pull(pull) => pull::run(&pull, args.quiet),
        #[cfg(feature = "server")]
        Command::Serve(serve) => serve::run(serve, args.quiet),
        Command::Bench(bench) => bench::run(&bench, args.quiet),
        Command::Shaders(shaders) => shaders::run(&shaders),
        Command::Tune(tune) => tune::run(&tune, args.quiet),
        Command::Completions(completions) => completions::run(&completions, Args::command()),
        Command::Man(man) => man::run(&man, Args::command()),
    }
}

/// Sets a directory for libwayland if there is none: without one, the library writes two lines to
/// stderr.  Mesa's layer that orders Vulkan devices calls it at every start, to find the device of
/// the desktop.  No file can be below /dev/null, so no desktop is found, as without a directory.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[allow(unsafe_code)]
fn silence_wayland() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    let is_set = std::env::var_os(NAME).is_some_and(|dir| std::path::Path::new(&dir).is_absolute());
    if !is_set {
        // SAFETY: this is the only thread.
        unsafe { std::env::set_var(NAME, "/dev/null") }
    }
}
