//! The network of jina-embeddings-v2 (small, base, de, es, zh), top to bottom.

use super::{
    kernels::Kernels,
    scratch::Scratch,
    weights::{Layer, Linear, Norm, Weights},
};
use crate::{
    kernels::{attention, embed, geglu, layer_norm, linear},
    recording::{Recording, Tensor},
};

/// Appends the encoder: from `s.ids` to token embeddings in `s.x`.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings(rec, k, w, s);
    for layer in &w.layers {
        // attention block: x ← LN(x + Wₒ·attn(W_q·x, W_k·x, W_v·x))
        product(rec, k, &layer.q, &s.x, &s.q);
        product(rec, k, &layer.k, &s.x, &s.k);
        product(rec, k, &layer.v, &s.x, &s.v);
        attend(rec, k, w, s);
        product(rec, k, &layer.proj, &s.context, &s.delta);
        add_norm(rec, k, &layer.attention_norm, &s.delta, &s.x, &s.a);
        // GEGLU block: x ← LN(x + W₂·(gelu(gate) ⊙ up)),  [gate | up] = W₁·x
        mlp(rec, k, w, s, layer, &s.a);
        add_norm(rec, k, &layer.mlp_norm, &s.delta, &s.a, &s.x);
    }
}

/// `x = LN(word + type)`, one dispatch for each part of the vocabulary.
pub(super) fn embeddings(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    for part in &w.word {
        let args = embed::Args {
            ids: &s.ids,
            type_ids: &s.type_ids,
            word: &part.rows,
            kind: &w.kind,
            gamma: &w.embed_norm.gamma,
            beta: &w.embed_norm.beta,
            x: &s.x,
        };
        embed::record(rec, &k.embed, args, part.first, k.eps);
    }
}

/// `y = W·x + b`
pub(super) fn product(rec: &mut Recording, k: &Kernels, p: &Linear, x: &Tensor, y: &Tensor) {
    linear::record(rec, &k.linear, linear::Args { x, w: &p.w, bias: &p.bias, y });
}

/// `context = attn(q, k, v)`
pub(super) fn attend(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    let args = attention::Args {
        q: &s.q,
        k: &s.k,
        v: &s.v,
        slopes: &w.slopes,
        cu_seqlens: &s.cu_seqlens,
        tiles: &s.tiles,
        context: &s.context,
    };
    attention::record(rec, &k.attention, args);
}

/// `y = LN(x + r)`
pub(super) fn add_norm(
    rec: &mut Recording,
    k: &Kernels,
    norm: &Norm,
    x: &Tensor,
    r: &Tensor,
    y: &Tensor,
) {
    let args = layer_norm::Args { x, r, gamma: &norm.gamma, beta: &norm.beta, y };
    layer_norm::record(rec, &k.add_norm, args, k.eps);
}

/// `delta = W₂·(activation(gate) ⊙ up)`, a block of rows at a time: the wide intermediates never
/// grow with the batch, and never pass a binding.
pub(super) fn mlp(
    rec: &mut Recording,
    k: &Kernels,
    w: &Weights,
    s: &Scratch,
    layer: &Layer,
    x: &Tensor,
) {
    let [t, _] = x.shape2();
    let [block, _] = s.gate_up.shape2();
    for first in (0..t).step_by(block as usize) {
        let rows = first..t.min(first + block);
        let (x, delta) = (x.rows(rows.clone()), s.delta.rows(rows.clone()));
        let (gate_up, h) = (s.gate_up.first(rows.len() as u32), s.h.first(rows.len() as u32));
        let up = linear::Args { x: &x, w: &layer.gate_up, bias: &w.zero, y: &gate_up };
        linear::record(rec, &k.linear, up);
        geglu::record(rec, &k.geglu, geglu::Args { gate_up: &gate_up, h: &h });
        product(rec, k, &layer.down, &h, &delta);
    }
}
