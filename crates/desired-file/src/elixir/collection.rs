//! Lists, tuples and maps, and the keys in them.

use super::construct::Construct;
use super::scan::{Scanner, Stop};
use crate::diagnostic::Problem;
use crate::node::{Entry, Kind, Node, Span};

/// What stands between two commas.
enum Item {
    Value(Node),
    /// `name: value`.
    Keyword(Entry),
    /// `key => value`.
    Arrow(Entry),
}

/// What the items are in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    List,
    Tuple,
    Map,
}

impl Container {
    fn name(self) -> &'static str {
        match self {
            Container::List => "list",
            Container::Tuple => "tuple",
            Container::Map => "map",
        }
    }

    fn close(self) -> u8 {
        if self == Container::List { b']' } else { b'}' }
    }
}

impl Scanner<'_> {
    pub(super) fn list(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        self.at += 1;
        let items = self.items(Container::List, self.from(start))?;
        let nodes = items.into_iter().map(|item| match item {
            Item::Value(node) => node,
            Item::Keyword(entry) | Item::Arrow(entry) => pair(entry),
        });
        let kind = Kind::List(nodes.collect());
        Ok(Node::new(self.from(start), kind))
    }

    pub(super) fn tuple(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        self.at += 1;
        let items = self.items(Container::Tuple, self.from(start))?;
        let span = self.from(start);
        if matches!(items.first(), Some(Item::Keyword(_) | Item::Arrow(_))) {
            self.report(
                Problem::new(Span::new(start, start + 1), "a tuple cannot begin with a key")
                    .help("a map begins with `%{`"),
            );
            return Ok(Node::new(span, Kind::Invalid));
        }
        let mut nodes = Vec::new();
        let mut keywords = Vec::new();
        for item in items {
            match item {
                Item::Value(node) => nodes.push(node),
                Item::Keyword(entry) | Item::Arrow(entry) => keywords.push(pair(entry)),
            }
        }
        // `{"web", port: 1}` is `{"web", [port: 1]}`.
        if let (Some(first), Some(last)) = (keywords.first(), keywords.last()) {
            nodes.push(Node::new(first.span.to(last.span), Kind::List(keywords)));
        }
        Ok(Node::new(span, Kind::Tuple(nodes)))
    }

    pub(super) fn map(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        self.at += 1;
        if !self.eat(b'{') {
            if self.word_len() > 0 {
                return self.refuse(start, &Construct::Struct);
            }
            let help = "a map is written `%{name: value}`, without a space after `%`";
            let problem = Problem::new(self.from(start), "expected `{` right after `%`");
            return Err(self.stop(problem.help(help)));
        }
        let items = self.items(Container::Map, self.from(start))?;
        let entries = items.into_iter().map(|item| match item {
            Item::Value(key) => {
                let value = Node::new(Span::at(key.span.end), Kind::Invalid);
                Entry { key: Node::new(key.span, Kind::Invalid), value }
            }
            Item::Keyword(entry) | Item::Arrow(entry) => entry,
        });
        Ok(Node::new(self.from(start), Kind::Map(entries.collect())))
    }

    /// Everything up to the closing bracket, and that too. `open` is the opening one.
    fn items(&mut self, container: Container, open: Span) -> Result<Vec<Item>, Stop> {
        self.enter(open)?;
        let close = container.close();
        let mut items: Vec<Item> = Vec::new();
        let mut keyword: Option<Span> = None;
        loop {
            self.skip_space();
            match self.peek() {
                None => return Err(self.never_closed(container, open)),
                Some(byte) if byte == close => break,
                Some(b')' | b']' | b'}') => return Err(self.wrong_close(container, open)),
                Some(b',') => self.misplaced_comma(),
                Some(_) => {
                    let item = self.item(container)?;
                    self.check_order(&item, keyword, items.last());
                    let span = item_span(&item);
                    keyword = keyword.or(matches!(item, Item::Keyword(_)).then_some(span));
                    items.push(item);
                    self.separator(close)?;
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(items)
    }

    fn misplaced_comma(&mut self) {
        let span = Span::new(self.at, self.at + 1);
        self.at += 1;
        self.report(Problem::new(span, "a comma without a value before it").help("remove it"));
    }

    fn never_closed(&mut self, container: Container, open: Span) -> Stop {
        let end = self.text.trim_end().len();
        // A word that is cut off by the end of the file is not a separate problem.
        self.problems.forget_from(end);
        let (name, close) = (container.name(), char::from(container.close()));
        let message = format!("expected `{close}` to close the {name}, found the end of the file");
        self.stop(
            Problem::new(Span::at(end), message)
                .label("the file ends here")
                .related(open, format!("the {name} begins here")),
        )
    }

    fn wrong_close(&mut self, container: Container, open: Span) -> Stop {
        let found = self.shown_char();
        let (name, close) = (container.name(), char::from(container.close()));
        self.stop(
            Problem::new(
                Span::new(self.at, self.at + 1),
                format!("expected `{close}` to close the {name}, found {found}"),
            )
            .related(open, format!("the {name} begins here")),
        )
    }

    /// `name: value` comes last in lists, tuples and maps.
    fn check_order(&mut self, item: &Item, keyword: Option<Span>, before: Option<&Item>) {
        let Some(keyword) = keyword else { return };
        // What follows a refused expression may be a part of it.
        let refused =
            matches!(before, Some(Item::Keyword(e) | Item::Arrow(e)) if e.value.is_invalid());
        let message = match item {
            Item::Keyword(_) => return,
            Item::Value(_) if refused => return,
            Item::Value(_) => "a value cannot follow `name: value`",
            Item::Arrow(_) => "`key => value` cannot follow `name: value`",
        };
        let problem = Problem::new(item_span(item), message)
            .related(keyword, "the first `name: value`")
            .help("move it before the first `name: value`, or write all in one form");
        self.report(problem);
    }

    fn item(&mut self, container: Container) -> Result<Item, Stop> {
        if let Some(key) = self.keyword_key()? {
            self.skip_space();
            if matches!(self.peek(), None | Some(b',' | b')' | b']' | b'}')) {
                // At the end of the file, the bracket that is not closed is reported instead.
                if self.peek().is_some() {
                    let name = key.name().unwrap_or_default();
                    let message = format!("the key `{name}` has no value");
                    self.report(Problem::new(key.span, message));
                }
                let value = Node::new(Span::at(self.at), Kind::Invalid);
                return Ok(Item::Keyword(Entry { key, value }));
            }
            let value = self.value()?;
            return Ok(Item::Keyword(Entry { key, value }));
        }
        let key = self.value()?;
        let end = self.at;
        self.skip_space();
        let arrow = self.rest().starts_with("=>");
        match container {
            Container::Map if arrow => {}
            Container::Map => {
                self.at = end;
                return Ok(self.key_without_value(key));
            }
            _ if arrow => {
                let span = Span::new(self.at, self.at + 2);
                let message = format!("`=>` has no place in a {}", container.name());
                self.report(Problem::new(span, message).help("a map begins with `%{`"));
            }
            _ => {
                self.at = end;
                return Ok(Item::Value(key));
            }
        }
        self.at += 2;
        self.skip_space();
        if matches!(self.peek(), None | Some(b',' | b')' | b']' | b'}')) {
            return Err(self.unexpected("a value after `=>`"));
        }
        let value = self.value()?;
        Ok(Item::Arrow(Entry { key, value }))
    }

    fn key_without_value(&mut self, key: Node) -> Item {
        if !key.is_invalid() {
            self.report(
                Problem::new(
                    key.span,
                    format!("expected a key in the map, found {}", key.describe()),
                )
                .help("an entry of a map is `name: value` or `\"name\" => value`"),
            );
        }
        Item::Value(key)
    }

    /// The key of `name: value` or `"any name": value`, past its colon; `None`, and nothing read,
    /// where something else begins here.
    fn keyword_key(&mut self) -> Result<Option<Node>, Stop> {
        let start = self.at;
        let problems = self.problems.count();
        let text = match self.peek() {
            Some(b'"') if self.rest().starts_with("\"\"\"") => return Ok(None),
            Some(b'\'') if self.rest().starts_with("'''") => return Ok(None),
            Some(b'"' | b'\'') => self.quoted()?,
            Some(_) => {
                let len = self.key_len();
                self.at += len;
                (len > 0).then(|| self.text[start..self.at].to_owned())
            }
            None => None,
        };
        let span = self.from(start);
        if span.start == span.end || !self.colon_of_key(span) {
            self.at = start;
            self.problems.rewind(problems);
            return Ok(None);
        }
        Ok(Some(Node::new(span, text.map_or(Kind::Invalid, Kind::Atom))))
    }

    /// How many bytes a bare key has; letters beyond ASCII count, to be reported as what they are.
    fn key_len(&self) -> usize {
        let ascii = self.atom_len();
        let rest = self.rest();
        let foreign = |c: char| c.is_alphanumeric() || c == '_';
        if rest[ascii..].starts_with(|c: char| !c.is_ascii() && c.is_alphabetic()) {
            return rest.find(|c| !foreign(c)).unwrap_or(rest.len());
        }
        ascii
    }

    /// Reads the colon that makes a key of what was read, with the slips that leave no doubt.
    fn colon_of_key(&mut self, key: Span) -> bool {
        let end = self.at;
        let blanks = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        self.at += blanks;
        let spaced_after =
            !self.peek_after(1).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        let is_key = self.peek() == Some(b':')
            && self.peek_after(1) != Some(b':')
            && (blanks == 0 || spaced_after);
        if !is_key {
            self.at = end;
            return false;
        }
        self.at += 1;
        let name = &self.text[key.start..key.end];
        let colon = Span::new(self.at - 1, self.at);
        if blanks > 0 || !spaced_after {
            let message = match blanks {
                0 => "a space has to follow the `:` of a key",
                _ => "no space may stand before the `:` of a key",
            };
            self.report(Problem::new(colon, message).help(format!("write `{name}: …`")));
        } else if !name.is_ascii() && !name.starts_with(['"', '\'']) {
            let problem = Problem::new(key, format!("the key `{name}` has to be quoted"))
                .help(format!("write `\"{name}\": …`"));
            self.report(problem);
        }
        true
    }
}

fn pair(entry: Entry) -> Node {
    let span = entry.key.span.to(entry.value.span);
    let key = match entry.key.name() {
        Some("nil") => Node::new(entry.key.span, Kind::Nil),
        Some("true") => Node::new(entry.key.span, Kind::Bool(true)),
        Some("false") => Node::new(entry.key.span, Kind::Bool(false)),
        _ => entry.key,
    };
    Node::new(span, Kind::Tuple(vec![key, entry.value]))
}

fn item_span(item: &Item) -> Span {
    match item {
        Item::Value(node) => node.span,
        Item::Keyword(entry) | Item::Arrow(entry) => entry.key.span.to(entry.value.span),
    }
}
