//! Network of jina-embedding-{s,b,l}-en-v1: T5's encoder (Raffel et al. 2020, arXiv:1910.10683).
//! RMSNorm comes before each block, and after the last one; the scores have no factor and a bias
//! for each bucket of distances.

use super::{
    jina_bert::{attend, embeddings, mlp_of, norm, product_add, projections_of},
    kernels::Kernels,
    scratch::Scratch,
    weights::Weights,
};
use crate::recording::Recording;

/// Records the encoder: from `s.ids` to token embeddings in `s.x`.
pub(super) fn record(rec: &mut Recording, k: &Kernels, w: &Weights, s: &Scratch) {
    embeddings(rec, k, w, s);
    // The residual stream is in two tensors in turn, the first of them `x` at the beginning.
    let [a, b] = s.extra.as_ref().expect("made for this graph");
    let mut stream = &s.x;
    for layer in &w.layers {
        // attention block: b ← x + Wₒ·attn(W_q·n, W_k·n, W_v·n),  n = RMS(x)
        norm(rec, k, &layer.attention_norm, stream, &s.n);
        projections_of(rec, k, &layer.qkv, s, &s.n);
        attend(rec, k, w, s, [&s.q, &s.k, &s.v]);
        product_add(rec, k, &layer.proj, &s.context, stream, b);
        // MLP block: a ← b + W₂·relu(W₁·n),  n = RMS(b)
        norm(rec, k, &layer.mlp_norm, b, &s.n);
        mlp_of(rec, k, s, layer, [&s.n, b, a]);
        stream = a;
    }
    norm(rec, k, &w.embed_norm, stream, &s.x);
}
