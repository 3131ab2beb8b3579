//! `jinabert devices`

use crate::error::CliError;
use jinabert::{
    gpu::{self, AdapterSummary, Backend},
    kernels::Tier,
    tune::{self, Speeds},
};
use std::io::{self, Write};

/// Lists the devices.
pub fn run() -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let adapters = gpu::adapters();
    for (index, adapter) in adapters.iter().enumerate() {
        out.write_all(describe(index, adapter).as_bytes())?;
        for (model, Speeds { gpu, cpu }) in tune::measured(adapter) {
            let cpu = cpu.map_or_else(String::new, |cpu| format!("; on the CPU {cpu}"));
            writeln!(out, "     {model}: {gpu}{cpu}")?;
        }
    }
    writeln!(out, "cpu  {} threads", rayon::current_num_threads())?;
    writeln!(out, "     tier: {}, vectors as wide as the processor's\n", Tier::Blocked)?;
    let auto = match adapters.first() {
        Some(adapter) if !adapter.software && adapter.backend != Backend::Gl => {
            "0 or cpu, whichever is faster for a model: measured at its first use"
        }
        _ => "cpu: a hardware GPU was not found",
    };
    writeln!(out, "auto is {auto}")?;
    Ok(out.flush()?)
}

/// Description of an adapter.
fn describe(index: usize, adapter: &AdapterSummary) -> String {
    let subgroup = match adapter.subgroup {
        None => "none".to_owned(),
        Some((least, most)) if least == most => least.to_string(),
        Some((least, most)) => format!("{least} to {most}"),
    };
    fn yes_or_no(flag: bool) -> &'static str {
        if flag { "yes" } else { "no" }
    }
    format!(
        "{index:<4} {}\n     {}, {}, driver: {}{}\n     binding {} MiB, workgroup {} KiB and {} invocations, \
         subgroup {subgroup}, f16 {}, timestamps {}\n     tier: {}\n",
        adapter.name,
        adapter.backend,
        adapter.kind,
        if adapter.driver.is_empty() { "unknown" } else { &adapter.driver },
        adapter.compiler.as_ref().map_or_else(String::new, |name| format!(", compiler: {name}")),
        adapter.max_binding_bytes >> 20,
        adapter.max_workgroup_bytes >> 10,
        adapter.max_invocations,
        yes_or_no(adapter.f16),
        yes_or_no(adapter.timestamps),
        Tier::choose(&adapter.caps()),
    )
}
