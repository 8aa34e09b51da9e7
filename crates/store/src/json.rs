//! Between [`hearth_model::Value`] and JSON, for rows and for the wire.

use hearth_model::{Part, Spec, Value};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Value as Json;
use std::fmt;
use std::sync::Arc;

/// The tree as it is written and read, without a detour over another tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree(pub Value);

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Borrowed(&self.0).serialize(serializer)
    }
}

struct Borrowed<'a>(&'a Value);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::Int(number) => serializer.serialize_i64(*number),
            // The first two are in nothing that is accepted.
            Value::BigInt(text) | Value::Float(text) | Value::String(text) => {
                serializer.serialize_str(text)
            }
            Value::List(items) => serializer.collect_seq(items.iter().map(Borrowed)),
            Value::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, Borrowed(value))))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Tree)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::BigInt(number.to_string()), Value::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<(String, Value)> = Vec::new();
        while let Some((key, Tree(value))) = entries.next_entry()? {
            map.push((key, value));
        }
        let mut keys: Vec<&str> = map.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(A::Error::custom(format!("the key {:?} is there twice", twice[0])));
        }
        Ok(Value::Map(map))
    }
}

/// A spec in the form of its fields, written without a tree between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecForm(pub Arc<Spec>);

impl Serialize for SpecForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.parts().iter().map(|(key, part)| (key, OfPart(part))))
    }
}

struct OfPart<'a>(&'a Part<'a>);

impl Serialize for OfPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Part::Bool(truth) => serializer.serialize_bool(*truth),
            Part::Int(number) => serializer.serialize_i64(*number),
            Part::Text(text) => serializer.serialize_str(text),
            Part::Texts(texts) => serializer.collect_seq(*texts),
            Part::TextMap(texts) => serializer.collect_map(*texts),
            Part::Map(parts) => {
                serializer.collect_map(parts.iter().map(|(key, part)| (key, OfPart(part))))
            }
        }
    }
}

impl<'de> Deserialize<'de> for SpecForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SpecForm, D::Error> {
        let Tree(tree) = Tree::deserialize(deserializer)?;
        let spec = Spec::read(&tree).map_err(|errors| {
            let first =
                errors.iter().next().map(|error| format!("{}: {}", error.path, error.detail));
            D::Error::custom(first.unwrap_or_default())
        })?;
        Ok(SpecForm(Arc::new(spec)))
    }
}

/// A spec as JSON.
#[must_use]
pub fn spec_to_json(spec: &Arc<Spec>) -> Json {
    serde_json::to_value(SpecForm(Arc::clone(spec))).expect("a spec holds only what JSON can say")
}

#[cfg(test)]
mod tests {
    use super::{SpecForm, Tree};
    use hearth_model::Value;

    #[test]
    fn a_tree_is_written_and_read_as_the_json_that_it_is() {
        let text = r#"{"a":[null,true,-1,"x\n"],"b":{"c":{}}}"#;
        let tree: Tree = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&tree).unwrap(), text);
        let big: Tree = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!(big.0, Value::BigInt("18446744073709551615".to_owned()));
        let twice = serde_json::from_str::<Tree>(r#"{"a":1,"b":{"c":1,"d":2,"c":3}}"#).unwrap_err();
        assert_eq!(twice.to_string(), "the key \"c\" is there twice at line 1 column 30");
        let map = Value::Map(vec![("z".into(), Value::Int(1)), ("a".into(), Value::Null)]);
        assert_eq!(serde_json::to_string(&Tree(map)).unwrap(), r#"{"z":1,"a":null}"#);
    }

    #[test]
    fn name_of_an_old_row_is_kept() {
        let text = r#"{"rootfs":"r","kernel":"k","cmd":["/a"],"env":{"A\tB":"1"},"resources":{"vcpu":1,"mem_mb":128},"lifecycle":"service"}"#;
        let form: SpecForm = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&form).unwrap(), text);
    }

    #[test]
    fn a_spec_is_written_as_its_tree_is_and_read_again() {
        let checks = [
            r#""http":{"port":1,"path":"/"}"#,
            r#""tcp":{"port":2}"#,
            r#""exec":["a","b"]"#,
            r#""notify":true,"timeout_s":9"#,
        ];
        for check in checks {
            let text = format!(
                r#"{{"rootfs":"r.ext4","kernel":"k","cmd":["/a","\"b"],"env":{{"A":"1","B":"ö"}},"resources":{{"vcpu":1,"mem_mb":128}},"lifecycle":"service","warm_pool":{{"min":1,"max":2,"stage":"init"}},"ready":{{{check}}},"stop_timeout_s":3,"disk_mb":64}}"#
            );
            let form: SpecForm = serde_json::from_str(&text).unwrap();
            let written = serde_json::to_string(&form).unwrap();
            assert_eq!(written, serde_json::to_string(&Tree(form.0.write())).unwrap());
            assert_eq!(serde_json::from_str::<SpecForm>(&written).unwrap(), form);
        }
        let error = serde_json::from_str::<SpecForm>(r#"{"kernel":"k"}"#).unwrap_err();
        assert_eq!(error.to_string(), "rootfs: missing field `rootfs`");
    }
}
