//! The network of jina-embeddings-v2 (small, base, de, es, zh), top to bottom; also that of a BERT
//! with a position table, which [`embeddings`] adds.

use super::{
    kernels::Kernels,
    loader::{Linear, Norm},
    scratch::Scratch,
    weights::{Layer, Projections, Up, Weights},
};
use crate::{
    kernels::{attention, embed, key_norm, layer_norm, linear, linear_geglu},
    recording::{Recording, Tensor},
};

/// Records the encoder: from `s.ids` to token embeddings in `s.x`.
///
/// Three buffers serve every layer: the residual stream `x`; `n`, \[T, D\], also the context; and
/// one for q, k and v, then the sum before the first LayerNorm, then the wide `h` of the MLP.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings(rec, k, w, s);
    for layer in &w.layers {
        // attention block: x ← LN(x + Wₒ·attn(W_qkv·x))
        projections(rec, k, &layer.qkv, s);
        attend(rec, k, w, s, [&s.q, &s.k, &s.v]);
        product_add(rec, k, &layer.proj, &s.context, &s.x, &s.sum);
        norm(rec, k, &layer.attention_norm, &s.sum, &s.x);
        // MLP block: x ← LN(x + W₂·(act(gate) ⊙ up)),  [gate | up] = W₁·x,
        // or without a gate: x ← LN(x + W₂·gelu(W₁·x))
        mlp(rec, k, s, layer, &s.x);
        norm(rec, k, &layer.mlp_norm, &s.n, &s.x);
    }
}

/// `x = LN(word + type)`, one dispatch for each part of the vocabulary.
pub(super) fn embeddings(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings_with(rec, k, w, s, &w.kind);
}

/// `x = LN(word + kind)` with rows of `kind` for the types.
pub(super) fn embeddings_with(
    rec: &mut Recording,
    k: &Kernels,
    w: &Weights,
    s: &Scratch,
    kind: &Tensor,
) {
    for part in &w.word {
        let args = embed::Args {
            ids: &s.ids,
            type_ids: &s.type_ids,
            word: &part.rows,
            kind,
            gamma: &w.embed_norm.gamma,
            beta: &w.embed_norm.beta,
            x: &s.x,
        };
        embed::record(rec, &k.embed, args, part.first, k.eps);
    }
}

/// `[q | k | v] = W_qkv·x + b`: one product, or three if the device has no binding for all.
pub(super) fn projections(rec: &mut Recording, k: &Kernels, p: &Projections, s: &Scratch) {
    projections_of(rec, k, p, s, &s.x);
}

/// As [`projections`], of another input.
pub(super) fn projections_of(
    rec: &mut Recording,
    k: &Kernels,
    p: &Projections,
    s: &Scratch,
    x: &Tensor,
) {
    match (p, &s.qkv) {
        (Projections::Fused(qkv), Some(all)) => product(rec, k, qkv, x, all),
        (Projections::Fused(qkv), None) => {
            for (n, y) in (0..).zip([&s.q, &s.k, &s.v]) {
                let [_, width] = y.shape2();
                let part = n * width..(n + 1) * width;
                let w = qkv.w.rows(part.clone());
                let bias = qkv.bias.rows(part);
                product(rec, k, &Linear { w, bias }, x, y);
            }
        }
        (Projections::Apart { q, k: key, v }, _) => {
            for (p, y) in [(q, &s.q), (key, &s.k), (v, &s.v)] {
                product(rec, k, p, x, y);
            }
        }
    }
}

/// `y = W·x + b`
pub(super) fn product(rec: &mut Recording, k: &Kernels, p: &Linear, x: &Tensor, y: &Tensor) {
    let kernel = &k.products(x.shape2()[0]).linear;
    linear::record(rec, kernel, linear::Args { x, w: &p.w, bias: &p.bias, r: x, y });
}

/// `y = W·x + b + r`
pub(super) fn product_add(
    rec: &mut Recording,
    k: &Kernels,
    p: &Linear,
    x: &Tensor,
    r: &Tensor,
    y: &Tensor,
) {
    let kernel = &k.products(x.shape2()[0]).linear_add;
    linear::record(rec, kernel, linear::Args { x, w: &p.w, bias: &p.bias, r, y });
}

/// `context = attn(q, k, v)`
pub(super) fn attend(
    rec: &mut Recording,
    k: &Kernels,
    w: &Weights,
    s: &Scratch,
    [q, key, v]: [&Tensor; 3],
) {
    let tiles = &s.tiles;
    let norms = &s.norms;
    // A sequence of a single tile has no tile to skip.
    let far = s.keys.iter().any(|&keys| keys > attention::TILE);
    if let Some(kernel) = k.key_norm.as_ref().filter(|_| far) {
        key_norm::record(rec, kernel, key_norm::Args { k: key, tiles, norms });
    }
    let context = &s.context;
    let biases = &w.biases;
    let args = attention::Args { q, k: key, v, biases, tiles, norms, context };
    attention::record(rec, &k.attention, args, k.scores, &s.keys);
}

/// `y = LN(x)`
pub(super) fn norm(rec: &mut Recording, k: &Kernels, norm: &Norm, x: &Tensor, y: &Tensor) {
    let args = layer_norm::Args { x, r: x, gamma: &norm.gamma, beta: &norm.beta, y };
    layer_norm::record(rec, &k.norm, args, k.eps);
}

/// `n = W₂·h + b + x` with `h = activation(gate) ⊙ up` or `h = activation(up)`, in blocks of rows,
/// so that the wide intermediate fits in a binding.
pub(super) fn mlp(rec: &mut Recording, k: &Kernels, s: &Scratch, layer: &Layer, x: &Tensor) {
    mlp_of(rec, k, s, layer, [x, x, &s.n]);
}

/// As [`mlp`], `y = W₂·h + b + r` with `h` of `x`.
pub(super) fn mlp_of(
    rec: &mut Recording,
    k: &Kernels,
    s: &Scratch,
    layer: &Layer,
    [x, r, y]: [&Tensor; 3],
) {
    let [t, _] = x.shape2();
    let [block, _] = s.h.shape2();
    for first in (0..t).step_by(block as usize) {
        let rows = first..t.min(first + block);
        let [x, r, y] = [x, r, y].map(|tensor| tensor.rows(rows.clone()));
        let h = s.h.first(rows.len() as u32);
        let products = k.products(rows.len() as u32);
        match &layer.up {
            Up::Gated(w) => {
                let args = linear_geglu::Args { x: &x, w, h: &h };
                linear_geglu::record(rec, &products.linear_geglu, args);
            }
            Up::Plain(Linear { w, bias }) => {
                let args = linear::Args { x: &x, w, bias, r: &x, y: &h };
                linear::record(rec, &products.activated, args);
            }
        }
        product_add(rec, k, &layer.down, &h, &r, &y);
    }
}
