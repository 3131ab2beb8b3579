use super::{config::Config, variant::Variant};
use crate::{
    kernels::{Tier, Version, attention, embed, key_norm, layer_norm, linear, linear_geglu, pool},
    recording::{Kernel, Program},
};
use std::sync::Arc;

/// The kernels of one model, specialised for its widths.
pub(super) struct Kernels {
    pub(super) embed: Kernel<embed::Spec>,
    /// From the residual stream into q, k and v.
    pub(super) linear: Kernel<linear::Spec>,
    /// From the residual stream into what is normalised next.
    pub(super) linear_stream: Kernel<linear::Spec>,
    /// Back into the stream.
    pub(super) linear_add: Kernel<linear::Spec>,
    pub(super) linear_geglu: Kernel<linear_geglu::Spec>,
    /// Where attention skips and does not find the norms itself, as it does on the CPU.
    pub(super) key_norm: Option<Kernel<key_norm::Spec>>,
    pub(super) attention: Kernel<attention::Spec>,
    pub(super) norm: Kernel<layer_norm::Spec>,
    /// Into q and k.
    pub(super) wide_norm: Kernel<layer_norm::Spec>,
    pub(super) add_norm: Kernel<layer_norm::Spec>,
    pub(super) pool: Kernel<pool::Spec>,
    pub(super) eps: f32,
    /// [`attention::Params::skip`]
    pub(super) skip: f32,
}

impl Kernels {
    pub(super) fn new(config: &Config, variant: &Variant, version: Version, skip_eps: f32) -> Self {
        let Config { hidden, activation, eps, .. } = *config;
        let head_width = config.head_width();
        let norms = skip_eps > 0.0 && !matches!(version.tier, Tier::Twin | Tier::Blocked);
        let geglu = linear_geglu::Spec::new(version, variant.gate_first, activation);
        let project = linear::Spec::new(version, false);
        let linear = linear::kernel(project);
        let norm = layer_norm::kernel(layer_norm::Spec::new(version, hidden, false));
        // Where the stream is stored as the rest, they are one.
        let (linear_stream, wide_norm) = match version.stream() == version.wide() {
            true => (linear.clone(), norm.clone()),
            false => (
                linear::kernel(linear::Spec { y: version.stream(), ..project }),
                layer_norm::kernel(layer_norm::Spec::wide(version, hidden)),
            ),
        };
        Self {
            embed: embed::kernel(embed::Spec::new(version, hidden)),
            linear,
            linear_stream,
            linear_add: linear::kernel(linear::Spec::new(version, true)),
            linear_geglu: linear_geglu::kernel(geglu),
            key_norm: norms.then(|| key_norm::kernel(key_norm::Spec::new(version, head_width))),
            attention: attention::kernel(attention::Spec::new(version, head_width)),
            norm,
            wide_norm,
            add_norm: layer_norm::kernel(layer_norm::Spec::new(version, hidden, true)),
            pool: pool::kernel(pool::Spec::new(version, hidden)),
            eps,
            skip: attention::skip(skip_eps),
        }
    }

    /// The programs that a variant's recordings need.
    pub(super) fn programs(&self, variant: &Variant) -> Vec<Arc<Program>> {
        let always = [
            &self.embed.program,
            &self.linear.program,
            &self.linear_stream.program,
            &self.wide_norm.program,
            &self.linear_add.program,
            &self.linear_geglu.program,
            &self.attention.program,
            &self.norm.program,
            &self.pool.program,
        ];
        let key_norm = self.key_norm.as_ref().map(|kernel| &kernel.program);
        let add_norm = variant.qk_norm.then_some(&self.add_norm.program);
        always.into_iter().chain(key_norm).chain(add_norm).cloned().collect()
    }
}
