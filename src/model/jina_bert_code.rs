//! Network of jina-embeddings-v2-base-code: queries and keys are normalised over the whole width,
//! and the layer's input is added twice.  A constant of `linear_geglu` selects the half of the MLP
//! that is activated.

use super::{
    jina_bert::{attend, embeddings, mlp, norm, product, product_add},
    kernels::Kernels,
    loader::{Linear, Norm},
    scratch::Scratch,
    weights::{Projections, QkNorms, Weights},
};
use crate::{
    kernels::{layer_norm, linear},
    recording::{Recording, Tensor},
};

/// Records the encoder: from `s.ids` to token embeddings in `s.x`.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings(rec, k, w, s);
    let [a, b] = s.extra.as_ref().expect("made for this graph");
    let [q_normed, k_normed] = &s.qk;
    for layer in &w.layers {
        let QkNorms { q: q_norm, k: k_norm, residual } =
            layer.qk.as_ref().expect("loaded with every layer of this architecture");
        let Projections::Apart { q, k: key, v } = &layer.qkv else {
            unreachable!("loaded apart for this architecture")
        };
        // attention block: b ← LN(LN(x + Wₒ·attn(LN(W_q·x), LN(W_k·x), W_v·x)) + x)
        product_norm(rec, k, q, q_norm, s, q_normed);
        product_norm(rec, k, key, k_norm, s, k_normed);
        product(rec, k, v, &s.x, &s.v);
        attend(rec, k, w, s, [q_normed, k_normed, &s.v]);
        product_add(rec, k, &layer.proj, &s.context, &s.x, &s.sum);
        norm(rec, k, &layer.attention_norm, &s.sum, a);
        add_norm(rec, k, residual, a, &s.x, b);
        // MLP block: x ← LN(b + W₂·(up ⊙ act(gate))),  [up | gate] = W₁·b
        mlp(rec, k, s, layer, b);
        norm(rec, k, &layer.mlp_norm, &s.n, &s.x);
    }
}

/// Records `y = LN(W·x + b)`, with the product in `n`.
fn product_norm(
    rec: &mut Recording,
    k: &Kernels,
    p: &Linear,
    norm: &Norm,
    s: &Scratch,
    y: &Tensor,
) {
    let x = &s.x;
    let n = &s.n;
    let kernel = &k.products(x.shape2()[0]).linear_stream;
    linear::record(rec, kernel, linear::Args { x, w: &p.w, bias: &p.bias, r: x, y: n });
    let args = layer_norm::Args { x: n, r: n, gamma: &norm.gamma, beta: &norm.beta, y };
    layer_norm::record(rec, &k.wide_norm, args, k.eps);
}

/// Records `y = LN(x + r)`.
fn add_norm(rec: &mut Recording, k: &Kernels, norm: &Norm, x: &Tensor, r: &Tensor, y: &Tensor) {
    let args = layer_norm::Args { x, r, gamma: &norm.gamma, beta: &norm.beta, y };
    layer_norm::record(rec, &k.add_norm, args, k.eps);
}
