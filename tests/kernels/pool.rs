use super::{Rule, solve};
use jinabert::{kernel_check::PoolCase, kernels::KernelVariant, recording::Engine};
use libtest_mimic::Failed;

pub const INVARIANTS: &[(&str, Rule)] = &[("vectors have unit length", unit_length)];

fn unit_length(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    let dims = 129;
    let case = PoolCase { dims, ..PoolCase::new(&[3, 900, 1], 384) };
    for vector in solve(&case, engine, variant)?.chunks_exact(dims as usize) {
        let norm = vector.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>().sqrt();
        if (norm - 1.0).abs() > 1e-6 {
            return Err(format!("norm {norm}").into());
        }
    }
    Ok(())
}
