//! The network of jina-embeddings-v2-base-code: queries and keys are normalised over the whole
//! width, and the layer's input is added twice.  Which half of the MLP is activated is a constant
//! of `geglu`.

use super::{
    jina_bert::{add_norm, attend, embeddings, mlp, product},
    kernels::Kernels,
    scratch::Scratch,
    weights::{Norm, QkNorms, Weights},
};
use crate::{
    kernels::layer_norm,
    recording::{Recording, Tensor},
};

/// Appends the encoder: from `s.ids` to token embeddings in `s.x`.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings(rec, k, w, s);
    for layer in &w.layers {
        let QkNorms { q, k: key, residual } =
            layer.qk.as_ref().expect("loaded with every layer of this variant");
        // attention block: a ← LN(x + Wₒ·attn(LN(W_q·x), LN(W_k·x), W_v·x)), then LN(x + a)
        product(rec, k, &layer.q, &s.x, &s.delta);
        norm(rec, k, q, &s.delta, &s.q);
        product(rec, k, &layer.k, &s.x, &s.delta);
        norm(rec, k, key, &s.delta, &s.k);
        product(rec, k, &layer.v, &s.x, &s.v);
        attend(rec, k, w, s);
        product(rec, k, &layer.proj, &s.context, &s.delta);
        add_norm(rec, k, &layer.attention_norm, &s.delta, &s.x, &s.q);
        add_norm(rec, k, residual, &s.q, &s.x, &s.a);
        // GEGLU block: x ← LN(x + W₂·(up ⊙ gelu(gate))),  [up | gate] = W₁·x
        mlp(rec, k, w, s, layer, &s.a);
        add_norm(rec, k, &layer.mlp_norm, &s.delta, &s.a, &s.x);
    }
}

/// `y = LN(x)`
fn norm(rec: &mut Recording, k: &Kernels, norm: &Norm, x: &Tensor, y: &Tensor) {
    let args = layer_norm::Args { x, r: x, gamma: &norm.gamma, beta: &norm.beta, y };
    layer_norm::record(rec, &k.norm, args, k.eps);
}
