//! How fast a device is: its own roof, every kernel under it, and the whole model.

pub mod model;
pub mod stats;
