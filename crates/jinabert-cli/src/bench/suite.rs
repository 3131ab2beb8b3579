//! The benchmarks of `jinabert bench`, one after the other.

use super::{
    grid::{self, Grid, GridBudget},
    kernels::{self, KernelBudget},
    report::{self, Report},
    roof::{self, Again, Bound, RoofBudget},
    stats::Limits,
    table,
    target::Target,
};
use jinabert::{Device, Error, kernels::Tier};
use std::{path::Path, time::Duration};

/// Options of a benchmark.
#[derive(Clone, Debug, Default)]
pub struct BenchOptions<'a> {
    /// Make fewer and shorter runs.
    pub quick: bool,
    /// Names of the kernels to measure, without the model; all kernels if empty.
    pub kernels: Vec<String>,
    /// Directory of the model, if the model is to be timed.
    pub model: Option<&'a Path>,
}

/// Measures a device; `say` receives each line of the table when it is ready.
///
/// # Errors
/// Errors of the device before any kernel runs, of the model, and of `say`.  Errors of a kernel are
/// in the report.
pub fn run<E: From<Error>>(
    device: Device,
    options: &BenchOptions,
    mut say: impl FnMut(&str) -> Result<(), E>,
) -> Result<Report, E> {
    // The model is opened first, so that an invalid one is reported before the kernels run.
    let model = options.model.map(|dir| Ok::<_, Error>((dir, grid::open(dir, Device::Cpu)?)));
    let model = model.transpose()?;
    let mut target = Target::find(device)?;
    let (about, caps) = target.about()?;
    let budgets = Budgets::new(options.quick, caps.software);
    let mut report = Report {
        schema: report::SCHEMA,
        jinabert: env!("CARGO_PKG_VERSION").to_owned(),
        wgpu: report::WGPU.to_owned(),
        date: report::now(),
        quick: options.quick,
        device: about,
        clock: target.clock,
        roof: roof::measure(&mut target, budgets.roof)?,
        kernels: Vec::new(),
        model: None,
    };
    report.clock = target.clock;
    say(&table::head(&report))?;
    say(&table::roof(&report.roof))?;
    say(&table::kernels_head(&report))?;
    let mut again = Again::new(budgets.roof);
    for case in kernels::cases(&options.kernels) {
        // The reference defines the result; its speed is not of interest.
        for variant in case.variants(&caps).into_iter().filter(|v| v.tier != Tier::Reference) {
            let mut row = case.run(&mut target, variant, &report.roof, budgets.kernels);
            if let Some(timing) = &mut row.timing {
                let line = again.check(&mut target, &mut report.roof, timing.bound, timing.percent);
                line.map_or(Ok(()), |line| say(&line))?;
                timing.set_roof(&report.roof);
            }
            say(&table::kernel(&row))?;
            report.kernels.push(row);
        }
    }
    if let Some((dir, cpu)) = model {
        let mut grid = Grid::new(dir, target.device(), cpu)?;
        say(&table::model_head(&grid.model))?;
        while let Some(cell) = grid.next(&report.roof, budgets.grid)? {
            if let Some(timing) = &mut cell.timing {
                let percent = timing.percent;
                let line = again.check(&mut target, &mut report.roof, Bound::Compute, percent);
                line.map_or(Ok(()), |line| say(&line))?;
                timing.set_roof(&report.roof);
            }
            say(&table::cell(cell))?;
        }
        report.model = Some(grid.model);
    }
    report.set_roof();
    Ok(report)
}

/// Time limits of all parts.
struct Budgets {
    roof: RoofBudget,
    kernels: KernelBudget,
    grid: GridBudget,
}

impl Budgets {
    fn new(quick: bool, software: bool) -> Self {
        let ms = Duration::from_millis;
        let limits = |time| Limits { least: 5, most: 30, time: ms(time) };
        let either = |full, less| if quick { less } else { full };
        let copy = if software { either(64, 32) } else { either(512, 128) };
        let run = if software { either(100, 20) } else { either(30, 10) };
        Self {
            roof: RoofBudget {
                run: ms(run / 2),
                copy_bytes: copy << 20,
                limits: limits(either(300, 100)),
            },
            kernels: KernelBudget { run: ms(run), limits: limits(either(300, 50)) },
            grid: GridBudget { total: ms(either(40_000, 5_000)), limits: limits(either(500, 100)) },
        }
    }
}
