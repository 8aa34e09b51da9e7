//! Changes that keep JSON what it is: of inputs made of lines, some of which end in an object. Bytes
//! alone change what JSON says into what is no JSON, far more often than into what says another thing.

use fastrand::Rng;
use serde_json::{Number, Value};

/// Numbers at which something may turn over.
const EDGES: [u64; 8] =
    [0, 1, 2, 255, u32::MAX as u64, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX];
/// Parts of a document that are taken for another.
const PARTS_MAX: usize = 512;

/// A change of an input in place, as libFuzzer asks for it: every other one of bytes.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let changed = if seed % 2 == 0 { structured(&data[..size], u64::from(seed)) } else { None };
    match changed.filter(|changed| changed.len() <= max_size && !changed.is_empty()) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
}

fn structured(data: &[u8], seed: u64) -> Option<Vec<u8>> {
    let mut rng = Rng::with_seed(seed);
    let mut lines: Vec<String> =
        str::from_utf8(data).ok()?.split('\n').map(str::to_owned).collect();
    if rng.u8(..4) == 0 {
        change_lines(&mut lines, &mut rng);
    } else {
        let objects: Vec<(usize, usize, Value)> =
            lines.iter().enumerate().filter_map(object).collect();
        let (at, from, tree) = objects.get(rng.usize(..objects.len().max(1)))?;
        let mut parts = Vec::new();
        objects.iter().for_each(|(_, _, tree)| collect(tree, &mut parts));
        let mut tree = tree.clone();
        for _ in 0..=rng.usize(..3) {
            let mut left = rng.usize(..count(&tree));
            change(&mut tree, &mut left, &parts, &mut rng);
        }
        let written = serde_json::to_string(&tree).ok()?;
        lines[*at].replace_range(*from.., &written);
    }
    Some(lines.join("\n").into_bytes())
}

/// The object that ends a line, with the places of both.
fn object((at, line): (usize, &String)) -> Option<(usize, usize, Value)> {
    let from = line.find('{')?;
    Some((at, from, serde_json::from_str(&line[from..]).ok()?))
}

/// A line is dropped, doubled, moved, or gets a word of another.
fn change_lines(lines: &mut Vec<String>, rng: &mut Rng) {
    let (one, other) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    match rng.u8(..4) {
        0 if lines.len() > 1 => drop(lines.remove(one)),
        1 => lines.insert(other, lines[one].clone()),
        2 => lines.swap(one, other),
        _ => {
            let word = lines[other].split(['\t', ' ']).nth(1).unwrap_or_default().to_owned();
            let mut words: Vec<&str> = lines[one].split('\t').collect();
            if words.len() > 1 {
                words[1] = &word;
                lines[one] = words.join("\t");
            }
        }
    }
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn collect<'a>(tree: &'a Value, parts: &mut Vec<&'a Value>) {
    if parts.len() == PARTS_MAX {
        return;
    }
    parts.push(tree);
    match tree {
        Value::Array(items) => items.iter().for_each(|item| collect(item, parts)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, parts)),
        _ => {}
    }
}

/// Changes the value that is so many further on.
fn change(tree: &mut Value, left: &mut usize, parts: &[&Value], rng: &mut Rng) -> bool {
    if *left == 0 {
        change_here(tree, parts, rng);
        return true;
    }
    *left -= 1;
    match tree {
        Value::Array(items) => items.iter_mut().any(|item| change(item, left, parts, rng)),
        Value::Object(fields) => fields.values_mut().any(|value| change(value, left, parts, rng)),
        _ => false,
    }
}

fn change_here(value: &mut Value, parts: &[&Value], rng: &mut Rng) {
    let other = |rng: &mut Rng| parts[rng.usize(..parts.len())].clone();
    if rng.u8(..8) == 0 {
        *value = if rng.bool() { Value::Null } else { other(rng) };
        return;
    }
    match value {
        Value::Null => *value = other(rng),
        Value::Bool(truth) => *truth = !*truth,
        Value::Number(number) => {
            let near = number.as_u64().unwrap_or_default();
            *number = match rng.u8(..4) {
                0 => near.wrapping_add(1).into(),
                1 => near.wrapping_sub(1).into(),
                2 => Number::from_f64(near as f64 + 0.5).unwrap_or_else(|| 0.into()),
                _ => EDGES[rng.usize(..EDGES.len())].into(),
            };
        }
        Value::String(text) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.as_str()).collect();
            match rng.u8(..4) {
                0 => text.push(char::from_u32(rng.u32(..0x3000)).unwrap_or('x')),
                1 => drop(text.pop()),
                _ if texts.is_empty() => text.clear(),
                _ => texts[rng.usize(..texts.len())].clone_into(text),
            }
        }
        Value::Array(items) => match rng.u8(..2) {
            0 if !items.is_empty() => drop(items.remove(rng.usize(..items.len()))),
            _ => items.push(other(rng)),
        },
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let Some(name) = names.get(rng.usize(..names.len().max(1))) else { return };
            let taken = fields.remove(name);
            match rng.u8(..3) {
                0 => {}
                1 => drop(fields.insert(name.clone(), other(rng))),
                _ => drop(fields.insert(format!("{name}s"), taken.unwrap_or_default())),
            }
        }
    }
}
