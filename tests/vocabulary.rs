//! Embedding tables of the sizes of published models, with bindings of 128 MiB.
//!
//! The checkpoint is a sparse file: zeros, and the few rows that are read.  `JINABERT_SLOW=1` adds
//! a table of 250,002 × 1,024, half a gigabyte; without it the table has as many rows, but narrow
//! ones, with proportionally smaller bindings.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::Device;
use jinabert::{
    batch::{PackedBatch, Tokens},
    kernels::Tier,
    model::{Model, Output},
    recording::Format,
};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Embedding table, and the number of parts that it must be split into.
#[derive(Clone, Copy)]
struct Table {
    rows: usize,
    width: usize,
    dtype: &'static str,
    binding: u64,
    parts: usize,
}

const MIB: u64 = 1 << 20;

/// base-de, -es, -zh and -code in f32, and in f16; the vocabulary of XLM-RoBERTa.
const TABLES: [Table; 3] = [
    Table { rows: 61_056, width: 768, dtype: "F32", binding: 128 * MIB, parts: 2 },
    Table { rows: 61_056, width: 768, dtype: "F16", binding: 128 * MIB, parts: 1 },
    Table { rows: 250_002, width: 16, dtype: "F16", binding: 2 * MIB, parts: 4 },
];
const SLOW: Table =
    Table { rows: 250_002, width: 1024, dtype: "F16", binding: 128 * MIB, parts: 4 };

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    let slow = std::env::var_os("JINABERT_SLOW").is_some();
    for (name, device) in &devices {
        for table in TABLES.into_iter().chain([SLOW]) {
            let Table { rows, width, dtype, .. } = table;
            let big = width == SLOW.width;
            let name = format!("{name}/{rows} × {width} in {dtype}");
            if big && !slow {
                trials.push(common::ignored(&name, "JINABERT_SLOW is not set"));
                continue;
            }
            let device = device.clone();
            trials.push(Trial::test(name, move || Ok(holds(&device, table)?)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Rows to check: the first and last of the table and of every part, and some between.
fn asked(table: Table) -> Vec<usize> {
    let bytes = if table.dtype == "F16" { 2 } else { 4 };
    let step = table.binding as usize / (bytes * table.width);
    let edges = (0..table.rows).step_by(step).flat_map(|first| [first.saturating_sub(1), first]);
    let mut rows: Vec<usize> =
        edges.chain([1, table.rows / 3, table.rows / 2, table.rows - 2, table.rows - 1]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Component `i` of a row: few bits, so that f16 is exact.
fn component(row: usize, i: usize) -> f32 {
    ((row * 31 + i * 17) % 127) as f32 / 64.0 - 1.0
}

fn holds(device: &Device, table: Table) -> Outcome {
    let dir = tempfile::tempdir()?;
    let rows = asked(table);
    write(dir.path(), table, &rows)?;
    // The limit does not apply to textures.
    let tier = device.tier();
    let tier = if tier.format() == Format::Texture { Tier::Tiled } else { tier };
    let mut engine = device.open(tier);
    engine.limit_bindings(table.binding);
    let mut model = Model::open(dir.path(), engine, tier)?;
    let batch = PackedBatch::new([&Tokens::new(rows.iter().map(|&row| row as u32).collect())]);
    let recorded = model.record(&batch, Output::Tokens)?;
    let parts =
        recorded.commands.iter().filter(|command| command.program.name() == "embed").count();
    if parts != table.parts {
        return Err(format!("expected {} parts, got {parts}", table.parts).into());
    }
    let found = model.forward(&batch, Output::Tokens)?;
    for (row, found) in rows.iter().zip(found.chunks_exact(table.width)) {
        for (i, (found, expected)) in found.iter().zip(normalised(*row, table.width)).enumerate() {
            let off = (f64::from(*found) - expected).abs();
            if off.is_nan() || off > 1e-4 {
                return Err(format!("row {row}[{i}]: expected {expected}, got {found}").into());
            }
        }
    }
    Ok(())
}

/// LayerNorm of a row: the output of a layer whose products are all zero.
fn normalised(row: usize, width: usize) -> impl Iterator<Item = f64> {
    let values = move || (0..width).map(move |i| f64::from(component(row, i)));
    let mean = values().sum::<f64>() / width as f64;
    let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
    values().map(move |x| (x - mean) / variance.sqrt())
}

/// Writes one layer of zeros except LayerNorm scales, and a table of zeros except `rows`.
fn write(dir: &Path, table: Table, rows: &[usize]) -> Outcome {
    let v = table.rows;
    let d = table.width;
    let f = 64;
    let config = json!({
        "hidden_size": d, "num_hidden_layers": 1, "num_attention_heads": d.div_ceil(64),
        "intermediate_size": f, "vocab_size": v, "feed_forward_type": "geglu",
        "position_embedding_type": "alibi", "layer_norm_eps": 1e-12,
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![v, d]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, d]),
        ("encoder.layer.0.mlp.gated_layers.weight".into(), vec![2 * f, d]),
        ("encoder.layer.0.mlp.wo.weight".into(), vec![d, f]),
        ("encoder.layer.0.mlp.wo.bias".into(), vec![d]),
    ];
    for part in ["self.query", "self.key", "self.value", "output.dense"] {
        let name = format!("encoder.layer.0.attention.{part}");
        shapes.push((format!("{name}.weight"), vec![d, d]));
        shapes.push((format!("{name}.bias"), vec![d]));
    }
    for name in [
        "embeddings.LayerNorm",
        "encoder.layer.0.attention.output.LayerNorm",
        "encoder.layer.0.mlp.layernorm",
    ] {
        shapes.push((format!("{name}.weight"), vec![d]));
        shapes.push((format!("{name}.bias"), vec![d]));
    }
    let bytes = if table.dtype == "F16" { 2 } else { 4 };
    let mut header = Map::new();
    let mut end = 0;
    let mut ones = Vec::new();
    for (name, shape) in shapes {
        let start = end;
        end += bytes * shape.iter().product::<usize>();
        if name.to_lowercase().ends_with("layernorm.weight") {
            ones.push(start);
        }
        let tensor = json!({"dtype": table.dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert(name, tensor);
    }
    let header = Value::Object(header).to_string();
    let data = 8 + header.len();
    let mut file = File::create(dir.join("model.safetensors"))?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.set_len((data + end) as u64)?; // a hole in the file, read as zeros
    let mut put = |at: usize, values: &mut dyn Iterator<Item = f32>| -> Outcome {
        let stored = values.flat_map(|x| match bytes {
            2 => half::f16::from_f32(x).to_le_bytes().to_vec(),
            _ => x.to_le_bytes().to_vec(),
        });
        file.seek(SeekFrom::Start((data + at) as u64))?;
        Ok(file.write_all(&stored.collect::<Vec<u8>>())?)
    };
    for start in ones {
        put(start, &mut std::iter::repeat_n(1.0, d))?;
    }
    for row in rows {
        put(bytes * d * row, &mut (0..d).map(|i| component(*row, i)))?;
    }
    Ok(())
}
