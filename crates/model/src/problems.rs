//! What is wrong with a tree, bounded: a hostile body has a million problems, which no client reads.

use crate::text::cut;
use std::borrow::Cow;
use std::fmt;

/// Most problems that are listed of one file or request: more than anyone reads, little enough to draw.
/// The others are counted.
pub const PROBLEMS_MAX: usize = 100;

/// Longest sentence about a problem, in bytes. Ours are shorter; what they quote may not be.
const SENTENCE_BYTES_MAX: usize = 512;

/// Longest key in a pointer, in bytes: a key that is meant is shorter.
pub const POINTER_KEY_BYTES_MAX: usize = 256;

/// A step from a tree's root to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A key of a map.
    Key(String),
    /// A place in a list.
    Index(usize),
}

/// The way to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Segment>);

/// What an error is about, of that to which its path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPart {
    /// The value.
    Value,
    /// The key, which is the path's last step; the sentence names it.
    Key,
    /// A key that does not exist, the path's last step; the sentence names it.
    Absent,
}

/// One thing that is wrong with a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: Path,
    /// What there.
    pub target: FieldPart,
    /// What is wrong, as a sentence without a full stop.
    pub detail: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl Path {
    /// As a JSON pointer (RFC 6901). A key of more than 256 bytes is cut.
    #[must_use]
    pub fn pointer(&self) -> String {
        self.0
            .iter()
            .map(|segment| match segment {
                Segment::Key(key) => {
                    let key = cut(key, POINTER_KEY_BYTES_MAX);
                    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
                }
                Segment::Index(index) => format!("/{index}"),
            })
            .collect()
    }
}

/// As a user would write it: `resources.vcpu`, `cmd[0]`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The first [`PROBLEMS_MAX`] problems, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    omitted: usize,
}

impl FieldErrors {
    /// Lists a problem, its sentences cut to a bound, or counts it once the list is full.
    pub fn push(&mut self, mut error: FieldError) {
        if self.is_full() {
            self.omitted += 1;
            return;
        }
        for sentence in std::iter::once(&mut error.detail).chain(&mut error.help) {
            if let Cow::Owned(short) = cut(sentence, SENTENCE_BYTES_MAX) {
                *sentence = short;
            }
        }
        self.listed.push(error);
    }

    /// Adds the problems of a part, which lies at `place`.
    pub fn extend_at(&mut self, place: &[Segment], part: FieldErrors) {
        let FieldErrors { listed, omitted } = part;
        self.omitted += omitted;
        let mut listed = listed.into_iter();
        while !self.is_full()
            && let Some(mut error) = listed.next()
        {
            error.path.0.splice(0..0, place.iter().cloned());
            self.listed.push(error);
        }
        self.omitted += listed.len();
    }

    /// Counts a problem that is not listed.
    pub fn omit(&mut self) {
        self.omitted += 1;
    }

    /// Whether another problem is only counted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.listed.len() == PROBLEMS_MAX
    }

    /// Whether there is no problem.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// All problems, those that are not listed included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.listed.len() + self.omitted
    }

    /// How many problems are not listed.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The listed problems, in the order of the tree.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.listed.iter()
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.listed.into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldErrors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
