//! What only the fuzz targets reach. It exists only under `--cfg fuzzing`.

use crate::Sqlite;
use rusqlite::params_from_iter;

/// The tables of the database, each with the kinds of its columns: `t` for a text, `i` for a number.
pub const TABLES: &[(&str, &str)] = &[
    ("jobs", "tt"),
    ("progress", "tt"),
    ("instances", "tt"),
    ("tombstones", "tii"),
    ("file_entries", "ttti"),
    ("events", "itttitttt"),
    ("facts", "tt"),
    ("idempotency_keys", "itttti"),
    ("log_drops", "t"),
];

/// Puts a row in, whatever it holds. A text need not be UTF-8, as after a fault of the disk. Whether
/// the database took it.
pub fn insert(store: &Sqlite, table: &str, cells: &[&[u8]]) -> bool {
    let Some((table, kinds)) = TABLES.iter().find(|(name, _)| *name == table) else { return false };
    if cells.len() != kinds.len() {
        return false;
    }
    let place = |(at, kind): (usize, char)| match kind {
        't' => format!("CAST(nullif(?{}, x'') AS TEXT)", at + 1),
        _ => format!("CAST(?{} AS INTEGER)", at + 1),
    };
    let places: Vec<String> = kinds.chars().enumerate().map(place).collect();
    let insert = format!("INSERT OR REPLACE INTO {table} VALUES ({})", places.join(", "));
    store.connection().execute(&insert, params_from_iter(cells)).is_ok()
}
