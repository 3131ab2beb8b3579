//! Network of jina-colbert-v2, and of jina-embeddings-v3 without a task: XLM-RoBERTa with rotary
//! positions.

use super::{
    jina_bert::{attend, embeddings, mlp, norm, product_add, projections},
    kernels::Kernels,
    scratch::Scratch,
    weights::Weights,
};
use crate::{kernels::rope, recording::Recording};

/// Records the encoder: from `s.ids` to token embeddings in `s.x`.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings(rec, k, w, s);
    let [q, key] = &s.qk;
    for layer in &w.layers {
        // attention block: x ← LN(x + Wₒ·attn(R·W_q·x, R·W_k·x, W_v·x))
        projections(rec, k, &layer.qkv, s);
        rotate(rec, k, s);
        attend(rec, k, w, s, [q, key, &s.v]);
        product_add(rec, k, &layer.proj, &s.context, &s.x, &s.sum);
        norm(rec, k, &layer.attention_norm, &s.sum, &s.x);
        // MLP block: x ← LN(x + W₂·gelu(W₁·x))
        mlp(rec, k, s, layer, &s.x);
        norm(rec, k, &layer.mlp_norm, &s.n, &s.x);
    }
}

/// Records the rotation of queries and keys by their positions.
pub(super) fn rotate(rec: &mut Recording, k: &Kernels, s: &Scratch) {
    let kernel = k.rope.as_ref().expect("made for this graph");
    let tables = s.rope.as_ref().expect("made for this graph");
    for (x, y) in [&s.q, &s.k].into_iter().zip(&s.qk) {
        let args = rope::Args { x, table: &tables.table, positions: &tables.positions, y };
        rope::record(rec, kernel, args);
    }
}
