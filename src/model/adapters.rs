//! LoRA adapters of a checkpoint, one for each task (Hu et al. 2021, arXiv:2106.09685): the tasks,
//! and the low-rank factors in any of the layouts on disk.

use super::{
    checkpoint::Checkpoint,
    config::Config,
    json::{bad, object},
};
use crate::{
    adapter_files::{CONFIG, TASKS, WEIGHTS, folder},
    batch::Adapter,
    elements::TensorData,
    error::Error,
    files::Files,
};
use serde_json::{Map, Value};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// LoRA adapters in `config.json`, as xlm-roberta-flash-implementation declares them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraConfig {
    /// `lora_adaptations`: the tasks, in the order of their adapters.
    pub adaptations: Vec<String>,
    /// `lora_rank`
    pub rank: Option<u32>,
    /// `lora_alpha`
    pub alpha: Option<f64>,
    /// `task_instructions`: text before each text of a task.
    pub instructions: BTreeMap<String, String>,
}

impl LoraConfig {
    /// Rank, and the factor `lora_alpha / lora_rank` of the adapters' products.
    ///
    /// # Errors
    /// Description of the key that is missing or unsupported.
    fn rank_and_scale(&self) -> Result<(u32, f32), String> {
        let rank = self.rank.ok_or("expected lora_rank, a number, got none")?;
        let alpha = self.alpha.ok_or("expected lora_alpha, a number, got none")?;
        scale(rank, alpha, f64::from(rank))
    }
}

/// Task of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Name, such as `retrieval.query`.
    pub task: String,
    /// Text before each text of this task; may be empty.
    pub instruction: String,
}

/// Adapter of a task.
///
/// # Errors
/// [`Error::Option`], naming the tasks that there are.
pub fn adapter(infos: &[AdapterInfo], task: &str) -> Result<Adapter, Error> {
    if let Some(n) = infos.iter().position(|info| info.task == task) {
        return Ok(Adapter(n as u32));
    }
    let task: String = task.chars().take(100).collect();
    let names: Vec<String> = infos.iter().map(|info| format!("`{}`", info.task)).collect();
    Err(Error::Option(if names.is_empty() {
        format!("task `{task}`: this model has no tasks")
    } else {
        format!("task `{task}`: this model's tasks are {}", names.join(", "))
    }))
}

/// Suffixes of the factors' names in xlm-roberta-flash-implementation.
const STACKED: [&str; 2] = ["parametrizations.weight.0.lora_A", "parametrizations.weight.0.lora_B"];

/// Largest rank: the factors of a matrix should be smaller than the matrix.
const MAX_RANK: u32 = 256;

/// Adapters of a checkpoint: their tasks, and where their factors are.
pub struct Adapters {
    /// The tasks, in the order of [`Adapter`].
    pub infos: Vec<AdapterInfo>,
    source: Source,
}

enum Source {
    /// Beside the weights, those of all tasks in one tensor (xlm-roberta-flash-implementation).
    Stacked { rank: u32, scale: f32 },
    /// A folder for each task (PEFT).
    Folders(Vec<Folder>),
}

/// Folder of a PEFT adapter.
struct Folder {
    name: String,
    checkpoint: Checkpoint,
    rank: u32,
    scale: f32,
    /// Names of the tensors that were read.
    used: RefCell<BTreeSet<String>>,
}

/// Low-rank factors of a matrix W \[N, K\] for every adapter: W_k = W + B_kᵀ·A_k.
pub struct Factors {
    /// A, R rows for each adapter, \[n·R, K\].
    pub a: Vec<f32>,
    /// B, transposed and scaled, \[n·R, N\].
    pub b: Vec<f32>,
}

/// Factors of one adapter in a part of a matrix's rows.
struct Part<'a> {
    /// \[r, K\]
    a: TensorData<'a>,
    /// \[n, r\]
    b: TensorData<'a>,
    /// First of the n rows.
    row: u32,
}

impl Adapters {
    /// Finds the adapters of a model, if it has some.
    ///
    /// # Errors
    /// [`Error::Model`] for an adapter that is missing or unsupported; [`Error::Read`] for files.
    pub fn open(
        files: &Files,
        config: &Config,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Self>, Error> {
        let lora = &config.lora;
        let mut tasks = lora.adaptations.clone();
        let source = if checkpoint.names().any(|name| name.ends_with(STACKED[0])) {
            if tasks.is_empty() {
                let what = "config.json: the tensors have LoRA factors, but there is no \
                            lora_adaptations, the list of their tasks";
                return Err(Error::Model(what.to_owned()));
            }
            let (rank, scale) = lora
                .rank_and_scale()
                .map_err(|what| Error::Model(format!("config.json: {what}")))?;
            Source::Stacked { rank, scale }
        } else {
            if tasks.is_empty() && config.model_type.as_deref() == Some("jina_embeddings_v3") {
                let there = |task: &&str| files.has(&folder_file(task, CONFIG));
                tasks = TASKS.iter().filter(|task| there(task)).map(|&task| task.into()).collect();
            }
            if tasks.is_empty() {
                return Ok(None);
            }
            let folders = tasks.iter().map(|task| Folder::open(files, task));
            Source::Folders(folders.collect::<Result<_, _>>()?)
        };
        let info = |task: String| {
            let instruction = lora.instructions.get(&task).cloned().unwrap_or_default();
            AdapterInfo { task, instruction }
        };
        Ok(Some(Self { infos: tasks.into_iter().map(info).collect(), source }))
    }

    /// Number of adapters.
    pub fn count(&self) -> u32 {
        self.infos.len() as u32
    }

    /// Paths and sizes in bytes of the adapters' own files.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        match &self.source {
            Source::Stacked { .. } => Vec::new(),
            Source::Folders(folders) => folders.iter().flat_map(|f| f.checkpoint.files()).collect(),
        }
    }

    /// Rank of the factors of every matrix but that of queries, keys and values: the largest.
    pub fn rank(&self) -> u32 {
        match &self.source {
            Source::Stacked { rank, .. } => *rank,
            Source::Folders(folders) => folders.iter().map(|f| f.rank).max().unwrap_or(0),
        }
    }

    /// Rank of the factors of the stacked queries, keys and values: three times the rank if an
    /// adapter has an A for each.
    pub fn qkv_rank(&self, config: &Config, qkv: impl Fn(u32) -> String) -> Result<u32, Error> {
        let Source::Folders(folders) = &self.source else { return Ok(self.rank()) };
        for n in 0..config.layers {
            let name = qkv(n);
            for folder in folders {
                let parts = folder.parts(&name, [3 * config.hidden, config.hidden])?;
                if !same_input(&parts) {
                    return Ok(3 * self.rank());
                }
            }
        }
        Ok(self.rank())
    }

    /// Factors of a product's matrix, padded to a rank, with an adapter of zeros at the end.
    ///
    /// # Errors
    /// [`Error::Model`] for factors that are missing or of another shape.
    pub fn product(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        [n, k]: [u32; 2],
        padded: u32,
    ) -> Result<Factors, Error> {
        let count = self.count();
        let mut factors = Factors {
            a: vec![0.0; ((count + 1) * padded * k) as usize],
            b: vec![0.0; ((count + 1) * padded * n) as usize],
        };
        match &self.source {
            &Source::Stacked { rank, scale } => {
                let [a, b] = STACKED.map(|suffix| format!("{name}.{suffix}"));
                let a = checkpoint.read(&a, &[count, rank, k])?;
                let b = checkpoint.read(&b, &[count, n, rank])?;
                for adapter in 0..count {
                    let [a, b] = [(&a, k * rank), (&b, n * rank)].map(|(all, size)| {
                        all.slice((adapter * size) as usize..((adapter + 1) * size) as usize)
                    });
                    let part = Part { a, b, row: 0 };
                    factors.put(&part, [n, k], adapter * padded, rank, scale);
                }
            }
            Source::Folders(folders) => {
                for (adapter, folder) in (0..).zip(folders) {
                    let parts = folder.parts(name, [n, k])?;
                    let step = if same_input(&parts) { 0 } else { folder.rank };
                    for (m, part) in (0..).zip(&parts) {
                        let first = adapter * padded + m * step;
                        factors.put(part, [n, k], first, folder.rank, folder.scale);
                    }
                }
            }
        }
        Ok(factors)
    }

    /// Factors of an embedding table \[V, D\]: A of every adapter, \[n, V, R\], and B, scaled,
    /// \[n, R, D\].
    ///
    /// # Errors
    /// [`Error::Model`] for factors that are missing or of another shape.
    pub fn table(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        [v, d]: [u32; 2],
    ) -> Result<[Vec<f32>; 2], Error> {
        let rank = self.rank();
        let scaled = |b: &[f32], scale: f32| b.iter().map(|b| scale * b).collect::<Vec<_>>();
        match &self.source {
            Source::Stacked { scale, .. } => {
                let [a, b] = STACKED.map(|suffix| format!("{name}.{suffix}"));
                let a = checkpoint.read(&a, &[self.count(), v, rank])?;
                let b = checkpoint.read(&b, &[self.count(), rank, d])?;
                Ok([a.widened().into_owned(), scaled(&b.widened(), *scale)])
            }
            Source::Folders(folders) => {
                let [mut all_a, mut all_b] = [Vec::new(), Vec::new()];
                for folder in folders {
                    let [a, b] = ["lora_embedding_A", "lora_embedding_B"]
                        .map(|suffix| format!("{name}.{suffix}"));
                    if folder.checkpoint.has(&a) {
                        let a = folder.read(&a, &[folder.rank, v])?;
                        let b = folder.read(&b, &[d, folder.rank])?;
                        all_a.extend(transposed(&a.widened(), v, rank));
                        let mut b = transposed(&b.widened(), folder.rank, d);
                        b.resize((rank * d) as usize, 0.0);
                        all_b.extend(scaled(&b, folder.scale));
                    } else {
                        all_a.extend(vec![0.0; (v * rank) as usize]);
                        all_b.extend(vec![0.0; (rank * d) as usize]);
                    }
                }
                Ok([all_a, all_b])
            }
        }
    }

    /// Names of the model's tensors with the factors of a matrix or table.
    pub fn names(&self, name: &str) -> Vec<String> {
        match self.source {
            Source::Stacked { .. } => STACKED.map(|suffix| format!("{name}.{suffix}")).into(),
            Source::Folders(_) => Vec::new(),
        }
    }

    /// Checks that every factor was read: an unknown one would change the result.
    ///
    /// # Errors
    /// [`Error::Model`]
    pub fn check_unused(&self) -> Result<(), Error> {
        let Source::Folders(folders) = &self.source else { return Ok(()) };
        for Folder { name, checkpoint, used, .. } in folders {
            let used = used.borrow();
            let unknown = |other: &&str| !used.contains(*other) && !other.starts_with("pooler.");
            if let Some(other) = checkpoint.names().find(unknown) {
                return Err(Error::Model(format!(
                    "`{name}/{WEIGHTS}`: factors `{other}` belong to no matrix of this model"
                )));
            }
        }
        Ok(())
    }
}

/// Path of a file in the folder of a task.
fn folder_file(task: &str, file: &str) -> String {
    format!("{}/{file}", folder(task))
}

impl Folder {
    fn open(files: &Files, task: &str) -> Result<Self, Error> {
        let name = folder(task);
        let file = folder_file(task, CONFIG);
        if name.contains(['/', '\\', ':', '\0']) || !files.has(&file) {
            return Err(Error::Model(format!(
                "expected the adapter of task `{}` in `{}`, got no such file",
                task.escape_debug(),
                files.path(&file).display()
            )));
        }
        let config = object(files, &file)?;
        let (rank, scale) = peft(&config).map_err(|what| bad(files, &file, &what))?;
        let checkpoint = Checkpoint::open_file(files, &folder_file(task, WEIGHTS))?;
        let checkpoint = checkpoint.renamed(plain_name)?;
        Ok(Self { name, checkpoint, rank, scale, used: RefCell::default() })
    }

    fn read(&self, name: &str, shape: &[u32]) -> Result<TensorData<'_>, Error> {
        self.used.borrow_mut().insert(name.to_owned());
        self.checkpoint.read(name, shape)
    }

    /// Factors of a product, or of its thirds (queries, keys, values) if they have some of their
    /// own; those that the adapter leaves out are not there.
    fn parts(&self, name: &str, [n, k]: [u32; 2]) -> Result<Vec<Part<'_>>, Error> {
        let name = plain_name(name);
        let one = |name: &str, row: u32, n: u32| {
            let [a, b] = ["lora_A.weight", "lora_B.weight"].map(|s| format!("{name}.{s}"));
            if !self.checkpoint.has(&a) && !self.checkpoint.has(&b) {
                return Ok::<_, Error>(None);
            }
            let a = self.read(&a, &[self.rank, k])?;
            let b = self.read(&b, &[n, self.rank])?;
            Ok(Some(Part { a, b, row }))
        };
        let mut parts: Vec<Part> = one(&name, 0, n)?.into_iter().collect();
        if let Some(layer) = name.strip_suffix("mixer.Wqkv") {
            for (m, third) in (0..).zip(["q_proj", "k_proj", "v_proj"]) {
                parts.extend(one(&format!("{layer}self_attn.{third}"), m * n / 3, n / 3)?);
            }
        }
        Ok(parts)
    }
}

/// True if the parts multiply the same A, so that their products can be stacked.
fn same_input(parts: &[Part]) -> bool {
    parts.windows(2).all(|pair| pair[0].a.widened() == pair[1].a.widened())
}

impl Factors {
    /// Writes the factors of a part as ranks from `first` on.
    fn put(&mut self, part: &Part, [n, k]: [u32; 2], first: u32, rank: u32, scale: f32) {
        let [n, k, first, rank] = [n, k, first, rank].map(|size| size as usize);
        self.a[first * k..][..rank * k].copy_from_slice(&part.a.widened());
        for (row, b) in part.b.widened().chunks_exact(rank).enumerate() {
            for (j, b) in b.iter().enumerate() {
                self.b[(first + j) * n + part.row as usize + row] = scale * b;
            }
        }
    }
}

/// Transposes rows of `columns` elements; pads each row of the result to `width` with zeros.
fn transposed(x: &[f32], columns: u32, width: u32) -> Vec<f32> {
    let [columns, width] = [columns, width].map(|size| size as usize);
    let mut y = vec![0.0; columns * width];
    for (row, x) in x.chunks_exact(columns).enumerate() {
        x.iter().enumerate().for_each(|(column, x)| y[column * width + row] = *x);
    }
    y
}

/// Rank and scale of a PEFT adapter.
fn peft(config: &Map<String, Value>) -> Result<(u32, f32), String> {
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("LORA");
    if kind != "LORA" {
        return Err(format!("peft_type is `{kind}`; supported: `LORA`"));
    }
    let rank = integer(config, "r")?;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64);
    let alpha = alpha.ok_or("expected lora_alpha, a number, got none")?;
    let on = |key: &&str| match config.get(*key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::String(text)) => text != "none",
        Some(_) => true,
    };
    let others = ["use_dora", "rank_pattern", "alpha_pattern", "bias", "modules_to_save"];
    if let Some(key) = others.iter().find(|key| on(key)) {
        return Err(format!("{key} is {}, which is not supported", config[*key]));
    }
    let by = if on(&"use_rslora") { f64::from(rank).sqrt() } else { f64::from(rank) };
    scale(rank, alpha, by)
}

/// Checks a rank, and divides alpha.
fn scale(rank: u32, alpha: f64, by: f64) -> Result<(u32, f32), String> {
    if rank == 0 || rank > MAX_RANK {
        return Err(format!("the rank is {rank}; supported: 1 to {MAX_RANK}"));
    }
    let scale = (alpha / by) as f32;
    if scale.is_finite() { Ok((rank, scale)) } else { Err(format!("lora_alpha is {alpha}")) }
}

fn integer(config: &Map<String, Value>, key: &str) -> Result<u32, String> {
    let value = config.get(key).unwrap_or(&Value::Null);
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| format!("{key}: expected a number, got {value}"))
}

/// Name of a tensor or product as in xlm-roberta-flash-implementation, without the prefixes of
/// PEFT, of the model and of the encoder.
fn plain_name(stored: &str) -> String {
    let mut name = stored;
    for prefix in ["base_model.model.", "roberta.", "encoder."] {
        name = name.strip_prefix(prefix).unwrap_or(name);
    }
    name.replace("self_attn.o_proj.", "mixer.out_proj.")
}
