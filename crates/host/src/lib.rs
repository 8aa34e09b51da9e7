//! The trait over what runs microVMs, and its two implementations.
