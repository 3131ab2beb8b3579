//! Network of jina-embeddings-v3 for batches in which a text has a task: the graph of
//! [`xlm_roberta`](super::xlm_roberta), with a low-rank product of the token's adapter added to
//! every product and to the embeddings.

use super::{
    jina_bert::{attend, embeddings_with, norm, product_add},
    kernels::{Kernels, LoraKernels},
    loader::Linear,
    lora::Lora,
    scratch::Scratch,
    weights::{Layer, Projections, Up, Weights},
    xlm_roberta::rotate,
};
use crate::{
    kernels::{linear, lora},
    recording::{Kernel, Recording, Tensor},
};

/// Records the encoder: from `s.ids` to token embeddings in `s.x`.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    let made = "made for this graph";
    let (l, weights) = (s.lora.as_ref().expect(made), w.lora.as_ref().expect(made));
    let lk = k.lora.as_ref().expect(made);
    let a = &l.adapters;
    low_rank(rec, &lk.kinds, &weights.kinds, a, &l.chosen, &l.chosen, &l.kinds);
    embeddings_with(rec, k, w, s, &l.kinds);
    let [q, key] = &s.qk;
    for (layer, factors) in w.layers.iter().zip(&weights.layers) {
        // attention block: x ← LN(x + Wₒ·attn(R·W_q·x, R·W_k·x, W_v·x)), each W with its adapter's
        let (Projections::Fused(qkv), Some(all)) = (&layer.qkv, &s.qkv) else {
            unreachable!("a longer batch is refused")
        };
        low_rank(rec, &lk.qkv, &factors.qkv, a, &s.x, &s.x, &l.qkv);
        product_with(rec, &k.products(s.x.shape2()[0]).linear_wide_add, qkv, &s.x, &l.qkv, all);
        rotate(rec, k, s);
        attend(rec, k, w, s, [q, key, &s.v]);
        low_rank(rec, &lk.add, &factors.proj, a, &s.context, &s.x, &l.stream);
        product_add(rec, k, &layer.proj, &s.context, &l.stream, &s.sum);
        norm(rec, k, &layer.attention_norm, &s.sum, &s.x);
        // MLP block: x ← LN(x + W₂·gelu(W₁·x))
        mlp(rec, k, lk, s, layer, [&factors.up, &factors.down]);
        norm(rec, k, &layer.mlp_norm, &s.n, &s.x);
    }
}

/// Records `y = B_kᵀ·A_k·x`, plus `r` if the kernel adds a residual.
fn low_rank(
    rec: &mut Recording,
    kernel: &Kernel<lora::Spec>,
    Lora { a, b }: &Lora,
    adapters: &Tensor,
    x: &Tensor,
    r: &Tensor,
    y: &Tensor,
) {
    lora::record(rec, kernel, lora::Args { x, a, b, adapters, r, y });
}

/// Records `y = activation(W·x + b + r)`.
fn product_with(
    rec: &mut Recording,
    kernel: &Kernel<linear::Spec>,
    Linear { w, bias }: &Linear,
    x: &Tensor,
    r: &Tensor,
    y: &Tensor,
) {
    linear::record(rec, kernel, linear::Args { x, w, bias, r, y });
}

/// Records `n = W₂·activation(W₁·x + b₁) + b₂ + x`, each W with its adapter's, in blocks of rows.
fn mlp(
    rec: &mut Recording,
    k: &Kernels,
    lk: &LoraKernels,
    s: &Scratch,
    layer: &Layer,
    [up, down]: [&Lora; 2],
) {
    let l = s.lora.as_ref().expect("made for this graph");
    let Up::Plain(first) = &layer.up else { unreachable!("no graph with adapters has a gate") };
    let [t, _] = s.x.shape2();
    let [block, _] = s.h.shape2();
    for start in (0..t).step_by(block as usize) {
        let rows = start..t.min(start + block);
        let [x, n] = [s.x.rows(rows.clone()), s.n.rows(rows.clone())];
        let count = rows.len() as u32;
        let [h, wide] = [s.h.first(count), l.up.first(count)];
        let stream = l.stream.first(count);
        let a = l.adapters.rows(rows);
        low_rank(rec, &lk.up, up, &a, &x, &x, &wide);
        let kernel = &k.products(count).activated_add;
        product_with(rec, kernel, first, &x, &wide, &h);
        low_rank(rec, &lk.add, down, &a, &h, &x, &stream);
        product_add(rec, k, &layer.down, &h, &stream, &n);
    }
}
