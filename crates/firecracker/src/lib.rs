//! Firecracker: API types and client, spawn, adopt, vsock.
