//! The model: fields, hashes, names and instances.
//!
//! One binary for all of it, since linking many takes longer than running them.

mod fields;
mod hash;
mod instances;
mod machine;
mod names;
mod selector;
