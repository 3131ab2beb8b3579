use std::fmt;

/// Kernel of a dispatch: selects the CPU implementation, and names the shader's entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelId {
    /// `embed`
    Embed,
    /// `linear`
    Linear,
    /// `linear_geglu`
    LinearGeglu,
    /// `lora`
    Lora,
    /// `rope`
    Rope,
    /// `key_norm`
    KeyNorm,
    /// `attention`
    Attention,
    /// `layer_norm`
    LayerNorm,
    /// `pool`
    Pool,
    /// `gather`
    Gather,
    /// `multiply_add`, which measures a GPU's arithmetic.
    MultiplyAdd,
    /// `copy`, which measures a GPU's memory bandwidth.
    Copy,
}

impl KernelId {
    /// Name of the kernel: stem of its files, entry point of its shaders, label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Linear => "linear",
            Self::LinearGeglu => "linear_geglu",
            Self::Lora => "lora",
            Self::Rope => "rope",
            Self::KeyNorm => "key_norm",
            Self::Attention => "attention",
            Self::LayerNorm => "layer_norm",
            Self::Pool => "pool",
            Self::Gather => "gather",
            Self::MultiplyAdd => "multiply_add",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
