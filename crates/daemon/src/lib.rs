//! `hearth serve`.
