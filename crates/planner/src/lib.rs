//! Decides: a pure function from desired and observed to actions.
