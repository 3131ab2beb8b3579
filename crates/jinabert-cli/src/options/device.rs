//! Values of the arguments for a device.

use clap::ValueEnum;
use jinabert::kernels;

/// Preference of `auto`.
#[derive(Clone, Copy, ValueEnum)]
pub enum Power {
    /// Integrated GPU or CPU.
    Low,
    /// Device with the highest throughput.
    High,
}

impl From<Power> for jinabert::Power {
    fn from(power: Power) -> Self {
        match power {
            Power::Low => Self::Low,
            Power::High => Self::High,
        }
    }
}

/// Storage type of weights and activations.
#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// 32-bit floats; matrices stored in f16 in the file stay f16, which loses nothing.
    #[value(name = "float32", alias = "f32")]
    Float32,
    /// 16-bit floats for weights and wide activations, 32-bit for sums and the residual stream;
    /// only on a GPU.
    #[value(name = "float16", alias = "f16")]
    Float16,
}

impl From<Dtype> for kernels::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float32 => Self::F32,
            Dtype::Float16 => Self::F16,
        }
    }
}
