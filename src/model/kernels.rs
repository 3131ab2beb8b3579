use super::{config::Config, variant::Variant};
use crate::{
    kernels::{Tier, attention, embed, key_norm, layer_norm, linear, linear_geglu, pool},
    recording::Kernel,
};

/// The kernels of one model, specialised for its widths.
pub(super) struct Kernels {
    pub(super) embed: Kernel<embed::Spec>,
    pub(super) linear: Kernel<linear::Spec>,
    pub(super) linear_add: Kernel<linear::Spec>,
    pub(super) linear_geglu: Kernel<linear_geglu::Spec>,
    /// Where attention skips and does not find the norms itself, as it does on the CPU.
    pub(super) key_norm: Option<Kernel<key_norm::Spec>>,
    pub(super) attention: Kernel<attention::Spec>,
    pub(super) norm: Kernel<layer_norm::Spec>,
    pub(super) add_norm: Kernel<layer_norm::Spec>,
    pub(super) pool: Kernel<pool::Spec>,
    pub(super) eps: f32,
    /// [`attention::Params::skip`]
    pub(super) skip: f32,
}

impl Kernels {
    pub(super) fn new(config: &Config, variant: &Variant, tier: Tier, skip_eps: f32) -> Self {
        let Config { hidden, activation, eps, .. } = *config;
        let head_width = config.head_width();
        let norms = skip_eps > 0.0 && !matches!(tier, Tier::Twin | Tier::Blocked);
        let geglu = linear_geglu::Spec::new(tier, variant.gate_first, activation);
        Self {
            embed: embed::kernel(embed::Spec::new(tier, hidden)),
            linear: linear::kernel(linear::Spec::new(tier, false)),
            linear_add: linear::kernel(linear::Spec::new(tier, true)),
            linear_geglu: linear_geglu::kernel(geglu),
            key_norm: norms.then(|| key_norm::kernel(key_norm::Spec::new(tier, head_width))),
            attention: attention::kernel(attention::Spec::new(tier, head_width)),
            norm: layer_norm::kernel(layer_norm::Spec::new(tier, hidden, false)),
            add_norm: layer_norm::kernel(layer_norm::Spec::new(tier, hidden, true)),
            pool: pool::kernel(pool::Spec::new(tier, hidden)),
            eps,
            skip: attention::skip(skip_eps),
        }
    }
}
