//! Reconciler, executor and store as one step function.
