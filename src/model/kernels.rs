use super::{config::Config, variant::Variant};
use crate::{
    kernels::{Tier, attention, embed, geglu, layer_norm, linear, pool},
    recording::Kernel,
};

/// The kernels of one model, specialised for its widths.
pub(super) struct Kernels {
    pub(super) embed: Kernel<embed::Spec>,
    pub(super) linear: Kernel<linear::Spec>,
    pub(super) attention: Kernel<attention::Spec>,
    pub(super) norm: Kernel<layer_norm::Spec>,
    pub(super) add_norm: Kernel<layer_norm::Spec>,
    pub(super) geglu: Kernel<geglu::Spec>,
    pub(super) pool: Kernel<pool::Spec>,
    pub(super) eps: f32,
}

impl Kernels {
    pub(super) fn new(config: &Config, variant: &Variant, tier: Tier) -> Self {
        let Config { hidden, intermediate, activation, eps, .. } = *config;
        let spec = geglu::Spec::new(intermediate, variant.gate_first, activation);
        Self {
            embed: embed::kernel(embed::Spec::new(hidden)),
            linear: linear::kernel(linear::Spec::new(tier)),
            attention: attention::kernel(attention::Spec::new(tier, config.head_width())),
            norm: layer_norm::kernel(layer_norm::Spec::new(hidden, false)),
            add_norm: layer_norm::kernel(layer_norm::Spec::new(hidden, true)),
            geglu: geglu::kernel(spec),
            pool: pool::kernel(pool::Spec::new(hidden)),
            eps,
        }
    }
}
