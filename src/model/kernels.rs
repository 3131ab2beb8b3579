use super::{
    Numerics,
    architecture::{Architecture, Mlp, Positions},
    config::Config,
    lora::Ranks,
    task::HeadKind,
};
use crate::{
    activation::Activation,
    kernels::{
        KernelConfig, KernelVariant, Tier, Tiles, attention, embed, gather, key_norm, layer_norm,
        linear, linear_geglu, lora, pool, rope,
    },
    recording::{Format, Kernel, Program},
};
use std::sync::Arc;

/// Matrix products with one set of tiles.
pub(super) struct Products {
    /// From the residual stream into q, k and v.
    pub(super) linear: Kernel<linear::Spec>,
    /// From the residual stream into the input of a LayerNorm.
    pub(super) linear_stream: Kernel<linear::Spec>,
    /// As `linear_stream`, through GELU; for a head.
    pub(super) transform: Kernel<linear::Spec>,
    /// Back into the residual stream.
    pub(super) linear_add: Kernel<linear::Spec>,
    pub(super) linear_geglu: Kernel<linear_geglu::Spec>,
    /// From the residual stream, through the activation: an MLP without a gate.
    pub(super) activated: Kernel<linear::Spec>,
    /// As `linear`, with the product of an adapter added.
    pub(super) linear_wide_add: Kernel<linear::Spec>,
    /// As `activated`, with the product of an adapter added before the activation.
    pub(super) activated_add: Kernel<linear::Spec>,
}

impl Products {
    fn new(variant: KernelVariant, tiles: &Tiles, geglu: linear_geglu::Spec) -> Self {
        let linear = linear::Spec { tile: tiles.linear, ..linear::Spec::new(variant, false) };
        let stream = linear::Spec { y: variant.stream(), ..linear };
        let transform = linear::Spec { activation: Activation::Gelu, ..stream };
        let activated = linear::Spec { activation: geglu.activation, ..linear };
        let add = linear::Spec { tile: tiles.linear_add, ..linear::Spec::new(variant, true) };
        let geglu = linear_geglu::Spec { tile: tiles.linear_geglu, ..geglu };
        Self {
            linear: linear::kernel(linear),
            linear_stream: linear::kernel(stream),
            transform: linear::kernel(transform),
            linear_add: linear::kernel(add),
            linear_geglu: linear_geglu::kernel(geglu),
            activated: linear::kernel(activated),
            linear_wide_add: linear::kernel(linear::Spec { residual: true, ..linear }),
            activated_add: linear::kernel(linear::Spec { residual: true, ..activated }),
        }
    }

    fn programs(
        &self,
        architecture: &Architecture,
        head: Option<HeadKind>,
        adapted: bool,
    ) -> impl Iterator<Item = &Arc<Program>> {
        let Self { linear, linear_stream, transform, linear_add, linear_geglu, activated, .. } =
            self;
        let up = if architecture.gated() { &linear_geglu.program } else { &activated.program };
        let always = [&linear.program, &linear_add.program, up];
        let on_device = !matches!(head, None | Some(HeadKind::Classifier));
        let stream = (architecture.qk_norm || on_device).then_some(&linear_stream.program);
        let transform = (head == Some(HeadKind::MaskedLm)).then_some(&transform.program);
        let lora = [&self.linear_wide_add.program, &self.activated_add.program];
        let lora = lora.into_iter().filter(move |_| adapted);
        always.into_iter().chain(stream).chain(transform).chain(lora)
    }
}

/// Low-rank products of adapters.
pub(super) struct LoraKernels {
    /// Rows added to the word embeddings.
    pub(super) kinds: Kernel<lora::Spec>,
    /// From the residual stream, beside q, k and v.
    pub(super) qkv: Kernel<lora::Spec>,
    /// From the residual stream, beside the MLP's first product.
    pub(super) up: Kernel<lora::Spec>,
    /// Back into the residual stream.
    pub(super) add: Kernel<lora::Spec>,
}

impl LoraKernels {
    fn new(variant: KernelVariant, ranks: Ranks) -> Self {
        let new = |rank, residual| lora::kernel(lora::Spec::new(variant, rank, residual));
        Self {
            kinds: lora::kernel(lora::Spec::buffers(ranks.kinds)),
            qkv: new(ranks.qkv, false),
            up: new(ranks.other, false),
            add: new(ranks.other, true),
        }
    }

    fn programs(&self) -> [&Arc<Program>; 4] {
        [&self.kinds.program, &self.qkv.program, &self.up.program, &self.add.program]
    }
}

/// The kernels of one model, specialised for its widths.
pub(super) struct Kernels {
    pub(super) embed: Kernel<embed::Spec>,
    /// Products by maximum number of rows, ascending; the last has no maximum.
    products: Vec<(u32, Products)>,
    /// Rotary positions.
    pub(super) rope: Option<Kernel<rope::Spec>>,
    /// Low-rank products, if the model has adapters.
    pub(super) lora: Option<LoraKernels>,
    /// Key norms for skipping in attention; none on the CPU, where attention computes them itself.
    pub(super) key_norm: Option<Kernel<key_norm::Spec>>,
    pub(super) attention: Kernel<attention::Spec>,
    pub(super) norm: Kernel<layer_norm::Spec>,
    /// LayerNorm into q and k.
    pub(super) wide_norm: Kernel<layer_norm::Spec>,
    pub(super) add_norm: Kernel<layer_norm::Spec>,
    pub(super) pool: Kernel<pool::Spec>,
    /// For a head.
    pub(super) gather: Kernel<gather::Spec>,
    variant: KernelVariant,
    pub(super) eps: f32,
    /// [`attention::Params::scale`] and [`attention::Params::skip`]
    pub(super) scores: [f32; 2],
}

impl Kernels {
    pub(super) fn new(
        config: &Config,
        architecture: &Architecture,
        variant: KernelVariant,
        numerics: Numerics,
        kernel_config: KernelConfig,
    ) -> Self {
        let Config { hidden, activation, eps, .. } = *config;
        let Numerics { skip_eps, deterministic } = numerics;
        let head_width = config.head_width();
        let rotary = architecture.positions == Positions::Rotary;
        // The bound of what may be skipped comes from ALiBi's slopes.
        let skip_eps = if architecture.positions == Positions::Alibi { skip_eps } else { 0.0 };
        let norms = skip_eps > 0.0 && !matches!(variant.tier, Tier::Reference | Tier::Blocked);
        let gate_first = matches!(architecture.mlp, Mlp::Gated { gate_first: true });
        let geglu = linear_geglu::Spec::new(variant, gate_first, activation);
        let kernel_config =
            if deterministic { kernel_config.deterministic() } else { kernel_config };
        let products = kernel_config.products.iter();
        let products = products.map(|tiles| (tiles.rows, Products::new(variant, tiles, geglu)));
        let relative = architecture.positions == Positions::Relative;
        let bias = if relative {
            attention::Bias::Table { reach: config.buckets.reach() }
        } else {
            attention::Bias::Alibi
        };
        let attention = attention::Spec {
            tile: kernel_config.attention,
            bias,
            ..attention::Spec::new(variant, head_width)
        };
        let norm =
            layer_norm::Spec { rms: relative, ..layer_norm::Spec::new(variant, hidden, false) };
        let embed = embed::Spec { plain: relative, ..embed::Spec::new(variant, hidden) };
        Self {
            embed: embed::kernel(embed),
            products: products.collect(),
            rope: rotary.then(|| rope::kernel(rope::Spec::new(variant, head_width))),
            lora: None,
            key_norm: norms.then(|| key_norm::kernel(key_norm::Spec::new(variant, head_width))),
            attention: attention::kernel(attention),
            norm: layer_norm::kernel(norm),
            wide_norm: layer_norm::kernel(layer_norm::Spec::wide(variant, hidden)),
            add_norm: layer_norm::kernel(layer_norm::Spec::new(variant, hidden, true)),
            pool: pool::kernel(pool::Spec::new(variant, hidden)),
            gather: gather::kernel(gather::Spec::new(variant, hidden)),
            variant,
            eps,
            // T5 has no factor.
            scores: [
                if relative { 1.0 } else { attention::scale(head_width) },
                attention::skip(skip_eps),
            ],
        }
    }

    /// Sets the storage format of the word embeddings.
    pub(super) fn with_table(self, table: Format) -> Self {
        let embed = embed::kernel(embed::Spec { word: table, ..self.embed.spec });
        Self { embed, ..self }
    }

    /// Adds the low-rank products of adapters.
    pub(super) fn with_adapters(self, ranks: Option<Ranks>) -> Self {
        Self { lora: ranks.map(|ranks| LoraKernels::new(self.variant, ranks)), ..self }
    }

    /// Programs used by the recordings of an architecture and a head.
    pub(super) fn programs(
        &self,
        architecture: &Architecture,
        head: Option<HeadKind>,
    ) -> Vec<Arc<Program>> {
        let always =
            [&self.embed.program, &self.attention.program, &self.norm.program, &self.pool.program];
        let key_norm = self.key_norm.as_ref().map(|kernel| &kernel.program);
        let rope = self.rope.as_ref().map(|kernel| &kernel.program);
        let code = [&self.wide_norm.program, &self.add_norm.program];
        let code = code.into_iter().filter(|_| architecture.qk_norm);
        let products = self
            .products
            .iter()
            .flat_map(|(_, products)| products.programs(architecture, head, self.lora.is_some()));
        let lora = self.lora.iter().flat_map(LoraKernels::programs);
        let gather = (head == Some(HeadKind::MaskedLm)).then_some(&self.gather.program);
        let others =
            always.into_iter().chain(rope).chain(key_norm).chain(code).chain(gather).chain(lora);
        others.chain(products).cloned().collect()
    }

    /// Products for a number of rows.
    pub(super) fn products(&self, rows: u32) -> &Products {
        let found = self.products.iter().find(|(most, _)| rows <= *most);
        &found.expect("the last is for any number").1
    }
}
