//! The command line: options of the program, and the list of its commands.

#[cfg(feature = "server")]
use crate::serve::ServeArgs;
use crate::{
    bench::Bench,
    completions::Completions,
    doctor::Doctor,
    embed::Embed,
    info::Info,
    man::Man,
    perplexity::PerplexityArgs,
    pull::Pull,
    shaders::Shaders,
    similarity::Similarity,
    tasks::{FillMask, MultiVector, Rerank},
    tune::Tune,
};
use clap::{Parser, Subcommand};
use std::num::NonZeroUsize;

/// JinaBERT text embeddings on any GPU.
#[derive(Parser)]
#[command(
    name = "jinabert",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  jinabert embed \"A blue cat\"                            one vector, as a line of JSON
  jinabert embed --input texts.txt --output vectors.npy  a vector for every line
  jinabert similarity \"A blue cat\" \"A cat that is blue\"  cosine similarities
  jinabert doctor                                        check every device
  jinabert bench                                         measure the speed
  jinabert pull jinaai/jina-embeddings-v2-base-en        download a hub model
  jinabert serve                                         HTTP server: http://127.0.0.1:8080/v1

Exit codes:
   0  success                   66  missing or invalid model, unreadable input
   1  doctor or bench: a fault  69  no such device, device failure, hub unreachable
   2  bad options               73  output or cache cannot be created
  65  bad input                 74  writing failed, a closed pipe included"
)]
pub struct Args {
    /// Print only warnings and errors on stderr, and no progress.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Number of CPU threads for tokenisation and for the CPU device [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Subcommand)]
pub enum Command {
    /// Embed texts from arguments, a file or standard input.
    Embed(Embed),
    /// Print the cosine similarity of every pair of texts.
    Similarity(Similarity),
    /// Rank documents by relevance to a query, with a reranker.
    Rerank(Rerank),
    /// Compute a vector for every token with a ColBERT model; with --query, rank documents.
    MultiVector(MultiVector),
    /// Predict masked tokens with a masked language model.
    FillMask(FillMask),
    /// Measure the pseudo-perplexity of a masked language model by context length.
    Perplexity(PerplexityArgs),
    /// List the devices of this machine and the kernels each would run.
    #[command(after_help = "Example:\n  jinabert devices")]
    Devices,
    /// Check devices: golden vectors of the shipped model, every kernel against its CPU reference.
    Doctor(Doctor),
    /// Download a model from the Hugging Face hub into the cache, and print its directory.
    Pull(Pull),
    /// Describe a model without running it: graph, head, sizes, tokenizer, pooling, licence.
    Info(Info),
    /// Serve the HTTP APIs of OpenAI, Jina, Cohere and text-embeddings-inference.
    #[cfg(feature = "server")]
    Serve(ServeArgs),
    /// Benchmark a device: its limits, every kernel relative to them, the whole model.
    Bench(Bench),
    /// Tune kernels for a GPU: find the fastest tier and tile sizes for a model, and save them.
    Tune(Tune),
    /// Write kernels in the languages of the drivers' compilers.
    Shaders(Shaders),
    /// Print a shell completion script.
    Completions(Completions),
    /// Print a manual page, or write all of them to a directory.
    Man(Man),
}

impl Command {
    /// Whether the log is written as lines of JSON.
    pub fn json_log(&self) -> bool {
        #[cfg(feature = "server")]
        if let Self::Serve(serve) = self {
            return serve.json_output;
        }
        false
    }

    /// Endpoint for OpenTelemetry spans.
    #[cfg(feature = "otlp")]
    pub fn otlp_endpoint(&self) -> Option<&str> {
        match self {
            Self::Serve(serve) => serve.otlp_endpoint.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::man;
    use clap::{Command as Clap, CommandFactory};

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    /// Names of other programs for the same options, and former values.
    #[test]
    fn other_names_of_options_are_accepted() {
        for words in [
            &["embed", "--model-id", "m", "--truncate-dim", "8", "--max-seq-length", "9", "a"][..],
            &["embed", "--dtype", "f16", "a"],
            &["embed", "--dtype", "float16", "a"],
            &["tune", "--model-id", "m", "--dtype", "f32"],
        ] {
            let words = ["jinabert"].iter().chain(words);
            assert!(Args::try_parse_from(words.clone()).is_ok(), "{words:?}");
        }
        #[cfg(feature = "server")]
        for words in [["--model-id", "m"], ["--max-seq-length", "9"], ["--dtype", "f16"]] {
            let words = [["jinabert", "serve"], words].concat();
            assert!(Args::try_parse_from(&words).is_ok(), "{words:?}");
        }
    }

    fn all(command: &Clap) -> Vec<&Clap> {
        let below = command.get_subcommands().flat_map(all);
        [command].into_iter().chain(below).collect()
    }

    #[test]
    fn pages_name_every_option_and_its_environment_variable() {
        let program = man::program(Args::command());
        let mut variables = 0;
        for command in all(&program) {
            let page = man::page(command);
            let name = man::full_name(command);
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(long) = arg.get_long() else { continue };
                // The option begins an entry, which ends at the next entry or section.
                let head = format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-"));
                let mut entries = page.split("\n.TP\n").skip(1);
                let entry =
                    entries.find(|entry| entry.lines().next().expect("a line").contains(&head));
                let entry = entry.unwrap_or_else(|| panic!("{name}: no {head}"));
                if let Some(variable) = arg.get_env() {
                    let variable = format!("\\fB{}\\fR", variable.to_str().expect("UTF-8"));
                    let entry = entry.split("\n.SH ").next().expect("a part");
                    assert!(entry.contains(&variable), "{name}: {entry}");
                    variables += 1;
                }
            }
        }
        assert!(variables > 10, "{variables}");
    }
}
