//! Modules of sentence-transformers after pooling: dense layers and LayerNorms of a text's vector.
//!
//! They take one row per text and run on the host: less than a thousandth of the encoder's work.

use super::{
    checkpoint::Checkpoint,
    declared::{DeclaredModule, module_file, of_sentence},
    json::{bad, object},
};
use crate::{activation::Activation, error::Error, files::Files, reference};
use serde_json::{Map, Value};

/// Modules of a model, in order.
#[derive(Default)]
pub struct Modules(Vec<Step>);

enum Step {
    Normalize,
    Dense { w: Vec<f32>, bias: Vec<f32>, then: Then },
    LayerNorm { gamma: Vec<f32>, beta: Vec<f32> },
}

/// Function after a dense layer.
#[derive(Clone, Copy)]
enum Then {
    Tanh,
    Of(Activation),
}

/// Epsilon of torch.nn.LayerNorm.
const EPS: f32 = 1e-5;

impl Modules {
    /// Loads the modules that a model declares, for vectors of `width` components.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files.
    pub fn open(
        files: &Files,
        declared: &[DeclaredModule],
        mut width: usize,
    ) -> Result<Self, Error> {
        let step = |module: &DeclaredModule| {
            let step = match module {
                DeclaredModule::Normalize => Step::Normalize,
                DeclaredModule::Dense(folder) => dense(files, folder, width)?,
                DeclaredModule::LayerNorm(folder) => layer_norm(files, folder, width)?,
            };
            if let Step::Dense { bias, .. } = &step {
                width = bias.len();
            }
            Ok(step)
        };
        declared.iter().map(step).collect::<Result<_, Error>>().map(Self)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of components after all, of `width` before.
    pub fn width(&self, width: usize) -> usize {
        let last = self.0.iter().rev().find_map(|step| match step {
            Step::Dense { bias, .. } => Some(bias.len()),
            _ => None,
        });
        last.unwrap_or(width)
    }

    /// Applies all to a vector.
    pub fn apply(&self, mut x: Vec<f32>) -> Vec<f32> {
        for step in &self.0 {
            match step {
                Step::Normalize => normalize(&mut x),
                Step::Dense { w, bias, then } => {
                    let mut y = vec![0.0; bias.len()];
                    reference::linear(&x, w, bias, Activation::Identity, None, &mut y);
                    y.iter_mut().for_each(|y| *y = then.of(f64::from(*y)) as f32);
                    x = y;
                }
                Step::LayerNorm { gamma, beta } => {
                    let mut y = vec![0.0; x.len()];
                    reference::layer_norm(&x, None, gamma, beta, (EPS, false), &mut y);
                    x = y;
                }
            }
        }
        x
    }
}

impl Then {
    fn of(self, x: f64) -> f64 {
        match self {
            Self::Tanh => x.tanh(),
            Self::Of(activation) => activation.of(x),
        }
    }
}

/// Divides a vector by its L2 norm.
pub fn normalize(x: &mut [f32]) {
    let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12);
    x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
}

fn open(files: &Files, folder: &str) -> Result<(String, Map<String, Value>, Checkpoint), Error> {
    let config = module_file(files, folder, "config.json")?;
    let weights = module_file(files, folder, "model.safetensors")?;
    let only = module_file(files, folder, "pytorch_model.bin")?;
    if !files.has(&weights) && files.has(&only) {
        let what = "expected model.safetensors beside it, got only pytorch_model.bin";
        return Err(bad(files, &config, what));
    }
    let settings = object(files, &config)?;
    of_sentence(&settings).map_err(|what| bad(files, &config, &what))?;
    Ok((config, settings, Checkpoint::open_file(files, &weights)?))
}

fn size(settings: &Map<String, Value>, key: &str) -> Result<u32, String> {
    let value = settings.get(key).unwrap_or(&Value::Null);
    let size = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    size.ok_or_else(|| format!("{key}: expected a number, got {value}"))
}

fn dense(files: &Files, folder: &str, width: usize) -> Result<Step, Error> {
    let (config, settings, checkpoint) = open(files, folder)?;
    let named = |what: String| bad(files, &config, &what);
    let inputs = size(&settings, "in_features").map_err(named)?;
    let outputs = size(&settings, "out_features").map_err(named)?;
    if inputs as usize != width {
        let what = format!("in_features is {inputs}; the vectors have {width} components");
        return Err(named(what));
    }
    let name = settings.get("activation_function").and_then(Value::as_str).unwrap_or_default();
    let then = match name.rsplit('.').next().unwrap_or_default() {
        "Tanh" => Then::Tanh,
        "Identity" => Then::Of(Activation::Identity),
        "ReLU" => Then::Of(Activation::Relu),
        "GELU" => Then::Of(Activation::Gelu),
        _ => {
            let what =
                format!("activation_function is `{name}`; supported: Tanh, Identity, ReLU, GELU");
            return Err(named(what));
        }
    };
    let w = checkpoint.read("linear.weight", &[outputs, inputs])?.widened().into_owned();
    let bias = if checkpoint.has("linear.bias") {
        checkpoint.read("linear.bias", &[outputs])?.widened().into_owned()
    } else {
        vec![0.0; outputs as usize]
    };
    Ok(Step::Dense { w, bias, then })
}

fn layer_norm(files: &Files, folder: &str, width: usize) -> Result<Step, Error> {
    let (_, _, checkpoint) = open(files, folder)?;
    let read = |name: &str| Ok(checkpoint.read(name, &[width as u32])?.widened().into_owned());
    Ok(Step::LayerNorm { gamma: read("norm.weight")?, beta: read("norm.bias")? })
}
