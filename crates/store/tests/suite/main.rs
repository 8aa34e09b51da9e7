//! What every store does, and that both do the same.

mod contract;
mod same;
