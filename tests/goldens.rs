//! Published reference values of the real checkpoints, checked if they are on this machine.
//!
//! `JINABERT_MODELS=DIR cargo test --test goldens` looks for `DIR/jina-embeddings-v2-small-en` and
//! so on, or for a Hugging Face cache's `DIR/models--jinaai--…`; missing models are reported as
//! ignored.  `JINABERT_DEVICE` selects the device [default: the CPU].
//!
//! Sources: snapshots of text-embeddings-inference (unnormalised means, f32; its own runs differ by
//! 1e-4), tests of qdrant/fastembed (ONNX, four digits, its own tolerance 1e-3), the README of
//! jina-ai/late-chunking.

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::ignored;
use jinabert::{Device, Embedder, Options, Task, batch::Tokens, text::Chunking, text::Tokenizer};
use libtest_mimic::{Arguments, Trial};
use std::{env, error::Error, fs, path::PathBuf};

type Outcome = Result<(), Box<dyn Error>>;

const DEEP: &str = "What is Deep Learning?";

/// First components of unnormalised means.
const MEANS: &[(&str, &[f32])] = &[
    (
        "jina-embeddings-v2-small-en",
        &[
            -0.736_603_6,
            -0.340_220_03,
            -0.071_639_2,
            0.108_484_305,
            0.142_109_66,
            -0.409_964_5,
            0.232_318_64,
            0.149_974_55,
            0.225_806_43,
            -0.026_713_861,
            0.395_507_5,
            -0.250_145_02,
            -0.615_712_1,
            -1.037_423_3,
            0.362_055_1,
            -0.390_900_34,
            0.302_833_1,
            -0.638_236_46,
            -0.065_231_82,
            -0.436_181_22,
            -0.562_597_45,
            -0.032_301_467,
        ],
    ),
    (
        "jina-embeddings-v2-base-code",
        &[
            -0.151_090_17,
            -0.021_903_912,
            -0.083_914_59,
            -0.128_803_82,
            0.357_957_33,
            0.296_490_5,
            -0.770_025_8,
            -0.623_209_5,
            0.506_186_37,
            0.328_126_1,
            -0.186_768_28,
            0.509_018_4,
            0.453_611_34,
            0.689_201_8,
            0.454_083_98,
            0.018_128_872,
            0.025_972_119,
            0.682_832_66,
            -0.189_522_82,
            0.003_893_955_4,
            -0.360_452_86,
            0.349_328_22,
        ],
    ),
];

/// First components of the unit vector of "hello world".
const HELLO: &[(&str, [f32; 5])] = &[
    ("jina-embeddings-v2-small-en", [-0.0455, -0.0428, -0.0122, 0.0613, 0.0015]),
    ("jina-embeddings-v2-base-en", [-0.0332, -0.0509, 0.0287, -0.0043, -0.0077]),
    ("jina-embeddings-v2-base-de", [-0.0085, 0.0417, 0.0342, 0.0309, -0.0149]),
    ("jina-embeddings-v2-base-es", [-0.0108, -0.0092, -0.0373, 0.0171, -0.0301]),
    ("jina-embeddings-v2-base-zh", [0.0381, 0.0286, -0.0231, 0.0052, -0.0151]),
    ("jina-embeddings-v2-base-code", [0.0145, -0.0164, 0.0136, -0.0170, 0.0734]),
    ("jina-clip-v1", [-0.0862, -0.0101, -0.0056, 0.0375, -0.0472]),
];

/// Logits of two documents for a question about the capital of France.
const RERANK: &[(&str, [f32; 2])] = &[
    ("jina-reranker-v1-tiny-en", [2.5911, 0.1122]),
    ("jina-reranker-v1-turbo-en", [1.8295, -2.8908]),
];

/// Token ids of texts, from logs of other tokenizers.
const IDS: &[(&str, &str, &[u32])] = &[("jina-embeddings-v2-base-zh", "你好", &[0, 49_226, 2])];

fn main() {
    let arguments = Arguments::from_args();
    let root = env::var_os("JINABERT_MODELS").map(PathBuf::from);
    let mut trials = Vec::new();
    let mut add =
        |model: &'static str, what: &str, check: Box<dyn Fn(PathBuf) -> Outcome + Send>| {
            let name = format!("{model}/{what}");
            trials.push(match root.as_ref().map(|root| find(root, model)) {
                None => ignored(&name, "JINABERT_MODELS is not set"),
                Some(None) => ignored(&name, "not in JINABERT_MODELS"),
                Some(Some(dir)) => Trial::test(name, move || Ok(check(dir.clone())?)),
            });
        };
    for &(model, expected) in MEANS {
        add(model, "mean", Box::new(move |dir| mean(dir, expected)));
    }
    for &(model, expected) in HELLO {
        add(model, "hello world", Box::new(move |dir| hello(dir, &expected)));
    }
    for &(model, expected) in RERANK {
        add(model, "capital of France", Box::new(move |dir| rerank(dir, expected)));
    }
    for &(model, text, expected) in IDS {
        add(model, "ids", Box::new(move |dir| ids(dir, text, expected)));
    }
    add("jina-reranker-v1-tiny-en", "one text", Box::new(one_text));
    add("jina-embeddings-v2-base-en", "Berlin", Box::new(berlin));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Directory with this name, or the newest snapshot in a Hugging Face cache.
fn find(root: &std::path::Path, model: &str) -> Option<PathBuf> {
    let plain = root.join(model);
    if plain.join("config.json").exists() {
        return Some(plain);
    }
    let snapshots = root.join(format!("models--jinaai--{model}/snapshots"));
    let entries = fs::read_dir(snapshots).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let whole = entries.filter(|dir| dir.join("config.json").exists());
    whole.max_by_key(|dir| fs::metadata(dir).and_then(|meta| meta.modified()).ok())
}

fn open(dir: PathBuf, task: Task, normalize: bool) -> Result<Embedder, Box<dyn Error>> {
    let device = match env::var("JINABERT_DEVICE") {
        Ok(name) => name.parse()?,
        Err(_) => Device::Cpu,
    };
    Ok(Embedder::open_with(dir, Options { task, normalize, device, ..Options::default() })?)
}

fn near(actual: &[f32], expected: &[f32], bound: f32) -> Outcome {
    for (n, (a, e)) in actual.iter().zip(expected).enumerate() {
        if (a - e).abs().is_nan() || (a - e).abs() > bound {
            return Err(format!("component {n} is {a} where {e} is published").into());
        }
    }
    Ok(())
}

fn mean(dir: PathBuf, expected: &[f32]) -> Outcome {
    near(&open(dir, Task::Embed, false)?.embed(&[DEEP])?[0], expected, 5e-4)
}

fn hello(dir: PathBuf, expected: &[f32]) -> Outcome {
    near(&open(dir, Task::Embed, true)?.embed(&["hello world"])?[0], expected, 1e-3)
}

fn rerank(dir: PathBuf, expected: [f32; 2]) -> Outcome {
    let documents = ["Paris is the capital of France.", "Berlin is the capital of Germany."];
    let mut scores =
        open(dir, Task::Rerank, true)?.rerank("What is the capital of France?", &documents)?;
    scores.sort_by_key(|score| score.index);
    near(&scores.iter().map(|score| score.logit).collect::<Vec<_>>(), &expected, 1e-3)
}

/// A single text, not a pair.
fn one_text(dir: PathBuf) -> Outcome {
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json"))?;
    let tokens: Tokens = tokenizer.encode(&[DEEP], None)?.remove(0).tokens;
    let logits = open(dir, Task::Rerank, true)?.tokens().classify(&[&tokens])?;
    near(&logits[0], &[-0.604_534_4], 5e-3)
}

fn ids(dir: PathBuf, text: &str, expected: &[u32]) -> Outcome {
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json"))?;
    let found = tokenizer.encode(&[text], None)?.remove(0).tokens.ids;
    if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}").into()) }
}

/// Example of the paper's repository: three sentences about Berlin, separately and as late chunks.
fn berlin(dir: PathBuf) -> Outcome {
    let sentences = [
        "Berlin is the capital and largest city of Germany, both by area and by population. ",
        "Its more than 3.85 million inhabitants make it the European Union's most populous city, \
         as measured by population within city limits. ",
        "The city is also one of the states of Germany, and is the third smallest state in the \
         country in terms of area.",
    ];
    let embedder = open(dir, Task::Embed, true)?;
    let query = embedder.embed(&["Berlin"])?.remove(0);
    let apart = embedder.embed(&sentences.map(str::trim))?;
    let apart: Vec<f32> = apart.iter().map(|vector| vector.dot(&query)).collect();
    near(&apart, &[0.848_621_85, 0.708_433_8, 0.753_455_3], 2e-3)?;
    let chunks =
        embedder.embed_chunks(&[sentences.concat()], &"sentences:1".parse::<Chunking>()?)?;
    let late: Vec<f32> = chunks[0].chunks.iter().map(|c| c.vector.dot(&query)).collect();
    // The repository excludes special tokens, and tokens near the last full stop, from its chunks.
    near(&late, &[0.849_546, 0.824_890_26, 0.849_800_94], 1e-2)
}
