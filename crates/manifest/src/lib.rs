//! The desired-state file.
