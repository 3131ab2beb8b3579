use super::{Tensors, command, layer_norm};
use crate::{
    kernels::embed::{Args, Params},
    recording::Command,
};

/// Range of vocabulary rows: all of them, or those of one binding.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Vocabulary row in `word[0]`.
    pub first: u32,
    /// Number of vocabulary rows in `word`.
    pub rows: u32,
}

/// `x_t = LN(word[ids_t] + kind[type_ids_t])`; the definition that `shaders/embed.wgsl` must match.
/// No LayerNorm without an `eps`.
///
/// ids, type_ids: \[T\]; word: \[rows, D\]; kind: \[types, D\]; gamma, beta: \[D\]; x: \[T, D\].
/// Tokens outside the part stay unchanged.
#[expect(clippy::too_many_arguments, reason = "the shader's bindings, in its order")]
pub fn embed(
    ids: &[u32],
    type_ids: &[u32],
    word: &[f32],
    kind: &[f32],
    gamma: &[f32],
    beta: &[f32],
    part: Part,
    eps: Option<f32>,
    x: &mut [f32],
) {
    let d = gamma.len();
    for (t, (&id, &type_id)) in ids.iter().zip(type_ids).enumerate() {
        if id < part.first || id - part.first >= part.rows {
            continue;
        }
        let word = &word[(id - part.first) as usize * d..][..d];
        let kind = &kind[type_id as usize * d..][..d];
        let x = &mut x[t * d..][..d];
        match eps {
            Some(eps) => layer_norm(word, Some(kind), gamma, beta, (eps, false), x),
            None => x.iter_mut().zip(word.iter().zip(kind)).for_each(|(x, (a, b))| *x = a + b),
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    let params: Params = command.params();
    let part = Part { first: params.first, rows: params.rows };
    tensors.store(args.x, |all, x| {
        let ids = all.u32(args.ids);
        let type_ids = all.u32(args.type_ids);
        let word = all.elements(args.word);
        let kind = all.f32(args.kind);
        let gamma = all.f32(args.gamma);
        let beta = all.f32(args.beta);
        let eps = (!command::is_set(command, "PLAIN")).then_some(params.eps);
        embed(ids, type_ids, &word.widened(), kind, gamma, beta, part, eps, x);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let word = [0.0, 0.0, 1.0, 5.0];
        let kind = [9.0, 9.0, 0.0, -2.0];
        let mut x = [f32::NAN; 4];
        // token 0: row 11 is word[1] = (1, 5), plus kind[1] = (1, 3), normalised (-1, 1); token 1
        // is not in the part
        let part = Part { first: 10, rows: 2 };
        embed(&[11, 12], &[1, 0], &word, &kind, &[1.0; 2], &[0.0; 2], part, Some(0.0), &mut x);
        assert_eq!(x[..2], [-1.0, 1.0]);
        assert!(x[2].is_nan() && x[3].is_nan());
        embed(&[11, 12], &[1, 0], &word, &kind, &[1.0; 2], &[0.0; 2], part, None, &mut x);
        assert_eq!(x[..2], [1.0, 3.0]);
    }
}
