//! Real Firecracker on Linux.
