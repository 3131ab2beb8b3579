//! tmp
use super::report::Report;
/// tmp
pub fn page(report: &Report) -> String {
    report.json()
}
