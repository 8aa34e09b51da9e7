//! What selects jobs: the documented pattern of a condition is what is accepted.

use hearth_model::Selector;
use hearth_model::selector::Values;
use regex::Regex;

/// All texts of these characters, up to this length.
fn texts(characters: &str, length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..length {
        let longer: Vec<String> = all[from..]
            .iter()
            .flat_map(|text| characters.chars().map(move |c| format!("{text}{c}")))
            .collect();
        from = all.len();
        all.extend(longer);
    }
    all
}

#[test]
fn documented_patterns_accept_what_is_accepted() {
    let part = |length| "x".repeat(length);
    let mut tried = texts("aB-._/=", 6);
    tried.extend(texts("a\n\0ü ,", 3));
    for length in [62, 63, 64, 65] {
        let text = part(length);
        tried.extend([text.clone(), format!("{text}=v"), format!("k={text}"), format!("p/{text}")]);
        tried.extend([format!("{text}/k"), format!("p.{text}/k")]);
    }
    tried.push(format!("{}/k", part(253)));
    for condition in Selector::CONDITIONS {
        let Values::Pattern(pattern) = condition.values else { continue };
        let pattern = Regex::new(pattern).unwrap();
        for text in &tried {
            let accepted = Selector::default().add(condition.name, text).unwrap().is_ok();
            assert_eq!(pattern.is_match(text), accepted, "{} {text:?}", condition.name);
        }
    }
}
