//! Published reference values of the real checkpoints, checked if they are on this machine.
//!
//! `JINABERT_MODELS=DIR cargo test --test goldens` looks for `DIR/jina-embeddings-v2-small-en` and
//! so on, or for a Hugging Face cache's `DIR/models--jinaai--…`; missing models are reported as
//! ignored.  `JINABERT_DEVICE` selects the device [default: the CPU].
//!
//! Sources: snapshots of text-embeddings-inference (unnormalised means, f32; its own runs differ by
//! 1e-4), tests of huggingface/transformers, tests of qdrant/fastembed (ONNX, four digits, its own
//! tolerance 1e-3), the README of jina-ai/late-chunking.

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::ignored;
use jinabert::{
    Device, Embedder, EncodeOptions, Options, Prompt, Role, Task, batch::Tokens, text::Chunking,
    text::Tokenizer,
};
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
    ("jina-reranker-v2-base-multilingual", [1.6533, -1.6455]),
];

/// Hidden states of jina-embeddings-v3 for each task: components 1 to 9 of tokens 1 to 3, without
/// an instruction (tests of huggingface/transformers).
#[expect(clippy::approx_constant, reason = "a number that happens to be near π/2")]
const STATES: &[(Option<&str>, [[f32; 9]; 3])] = &[
    (
        None,
        [
            [-3.1011, 0.8560, -0.2491, 0.9427, 1.4015, -1.1527, 1.3804, -0.5453, -1.8164],
            [-3.1108, 1.0107, -0.2097, 1.3495, 0.9984, -0.9518, 1.3189, -0.6295, -2.1128],
            [-2.7095, 0.6469, -0.4475, 1.1364, 1.5975, -0.7545, 1.0803, 0.5199, -2.3569],
        ],
    ),
    (
        Some("retrieval.query"),
        [
            [-1.9765, 0.7356, -0.4414, 0.5823, 2.1507, -0.8906, 0.0233, -0.2389, -1.5708],
            [-2.0078, 0.9562, -0.3315, 1.0080, 1.8247, -0.6678, -0.2505, -0.3441, -1.9328],
            [-1.9107, 0.7120, -0.4675, 0.9436, 2.1607, -0.4170, -0.1513, 1.0063, -2.0103],
        ],
    ),
    (
        Some("retrieval.passage"),
        [
            [-1.7028, 0.5688, -0.8541, 0.4696, 2.5396, -0.8374, -0.1404, -0.3123, -1.4636],
            [-1.6631, 0.6571, -0.8641, 0.9177, 2.3502, -0.6578, -0.3763, -0.3975, -1.7684],
            [-1.4739, 0.4739, -0.8745, 0.8812, 2.6848, -0.4496, -0.4964, 0.6403, -2.0821],
        ],
    ),
    (
        Some("separation"),
        [
            [-3.0336, 1.4392, 0.2875, 0.7660, 0.7054, -1.1701, 1.6121, -0.6325, -1.5177],
            [-3.0875, 1.5134, 0.3620, 1.0281, 0.4895, -1.0484, 1.6574, -0.7636, -1.6736],
            [-2.7605, 1.2920, 0.2223, 0.9895, 0.8515, -0.9050, 1.5558, 0.1410, -1.8531],
        ],
    ),
    (
        Some("classification"),
        [
            [-2.7150, 0.2485, 1.2297, 0.6988, 0.9804, -1.2831, 1.3446, -0.1663, -0.6874],
            [-2.8101, 0.1711, 1.2010, 0.9873, 0.5092, -1.3312, 1.4633, -0.2467, -0.7835],
            [-2.6067, 0.2362, 0.6945, 1.0134, 0.7105, -1.3767, 0.9999, 0.4427, -1.1153],
        ],
    ),
    (
        Some("text-matching"),
        [
            [-1.5888, 1.0527, 0.1237, -0.0822, 1.6507, -1.0371, -0.8815, -0.8082, -0.6564],
            [-1.6529, 1.3143, 0.1957, 0.2914, 1.4897, -0.8735, -1.0067, -0.7544, -1.0513],
            [-1.5308, 1.4805, -0.1393, 0.3879, 1.4373, -0.6064, -1.6436, 0.4793, -1.3388],
        ],
    ),
];

/// First components of unit vectors of two texts for each task of jina-embeddings-v3, without an
/// instruction (tests of qdrant/fastembed).
const TASKS: &[(&str, [[f32; 5]; 2])] = &[
    (
        "retrieval.query",
        [[0.0623, -0.0402, 0.1706, -0.0143, 0.0617], [-0.1064, -0.0733, 0.0353, 0.0096, 0.0667]],
    ),
    (
        "retrieval.passage",
        [[0.0513, -0.0247, 0.1751, -0.0075, 0.0679], [-0.0987, -0.0786, 0.09, 0.0087, 0.0577]],
    ),
    (
        "separation",
        [[0.094, -0.1065, 0.1305, 0.0547, 0.0556], [0.0315, -0.1468, 0.065, 0.0568, 0.0546]],
    ),
    (
        "classification",
        [[0.0606, -0.0877, 0.1384, 0.0065, 0.0722], [-0.0502, -0.119, 0.032, 0.0514, 0.0689]],
    ),
    (
        "text-matching",
        [[0.0911, -0.0341, 0.1305, -0.026, 0.0576], [-0.1432, -0.05, 0.0133, 0.0464, 0.0789]],
    ),
];

/// First components of jina-colbert-v2's vectors of "Hello World": a document's, and rows 0 to 4
/// and 31 of a query's.
const DOCUMENT: [[f32; 5]; 5] = [
    [0.0742, 0.0591, -0.2403, -0.1774, 0.02],
    [0.1318, 0.0882, -0.1138, -0.2066, 0.146],
    [-0.0183, -0.1354, -0.0139, -0.1079, -0.051],
    [0.0003, -0.1184, -0.07, -0.0479, -0.0649],
    [0.0766, 0.0452, -0.2343, -0.183, 0.0058],
];
const QUERY: [(usize, [f32; 5]); 6] = [
    (0, [0.0477, 0.0255, -0.2224, -0.1085, -0.03]),
    (1, [0.0206, -0.0845, -0.0075, -0.1712, 0.0156]),
    (2, [-0.0056, -0.0957, -0.0147, -0.1277, -0.0225]),
    (3, [0.0486, -0.0499, -0.1609, 0.0194, 0.0274]),
    (4, [0.0481, 0.0253, -0.2278, -0.1126, -0.0294]),
    (31, [0.0204, -0.0856, -0.0386, -0.1232, -0.0332]),
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
    for model in ["jina-embeddings-v3", "jina-embeddings-v3-hf"] {
        add(model, "states", Box::new(states));
        add(model, "tasks", Box::new(tasks));
    }
    add("jina-colbert-v2", "Hello World", Box::new(colbert));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Hidden states of jina-embeddings-v3.
fn states(dir: PathBuf) -> Outcome {
    let embedder = open(dir, Task::Embed, false)?;
    let text = ["Jina Embeddings V3 is great for semantic search."];
    for (task, expected) in STATES {
        let adapter = task.map(|task| embedder.adapter(task)).transpose()?;
        let options = EncodeOptions { adapter, ..embedder.encode_options() };
        let tokens = embedder.tokenization().texts(&text, &Prompt::None, options)?.remove(0).tokens;
        if tokens.len() != 17 {
            return Err(format!("{} tokens, where 17 are published", tokens.len()).into());
        }
        let hidden = embedder.compute(embedder.jobs().each_token(vec![tokens], options)?)?;
        let rows = hidden[0].chunks_exact(embedder.config().hidden as usize).skip(1);
        for (row, expected) in rows.zip(expected) {
            near(&row[1..10], expected, 1e-3).map_err(|error| format!("{task:?}: {error}"))?;
        }
    }
    Ok(())
}

/// Unit vectors of jina-embeddings-v3 for each task.
fn tasks(dir: PathBuf) -> Outcome {
    let embedder = open(dir, Task::Embed, true)?;
    let texts = ["Hello World", "Follow the white rabbit."];
    for (task, expected) in TASKS {
        let adapter = Some(embedder.adapter(task)?);
        let options = EncodeOptions { adapter, ..embedder.encode_options() };
        let tokens = embedder.tokenization().texts(&texts, &Prompt::None, options)?;
        let embedded = embedder.compute(embedder.jobs().tokenized(tokens, options)?)?;
        for (one, expected) in embedded.iter().zip(expected) {
            near(&one.vector, expected, 5e-4).map_err(|error| format!("{task}: {error}"))?;
        }
    }
    Ok(())
}

fn colbert(dir: PathBuf) -> Outcome {
    let embedder = open(dir, Task::MultiVector, true)?;
    let document = embedder.multi_vector(&["Hello World"], Role::Document)?.remove(0);
    for (row, expected) in document.rows().zip(DOCUMENT) {
        near(row, &expected, 2e-3)?;
    }
    let query = embedder.multi_vector(&["Hello World"], Role::Query)?.remove(0);
    for (n, expected) in QUERY {
        near(query.rows().nth(n).ok_or("too few rows")?, &expected, 2e-3)?;
    }
    Ok(())
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
