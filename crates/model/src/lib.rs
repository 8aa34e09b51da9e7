//! What Hearth wants, sees and may do: plain types, no I/O.
