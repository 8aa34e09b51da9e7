//! What is wrong with a tree, bounded: a hostile body has a million problems, which no client reads.

use crate::fields::{FieldError, Segment};
use std::borrow::Cow;

/// Most problems that are listed of one file or request: more than anyone reads, little enough to draw.
/// The others are counted.
pub const PROBLEMS_MAX: usize = 100;

/// Longest sentence about a problem, in bytes. Ours are shorter; what they quote may not be.
const SENTENCE_BYTES_MAX: usize = 512;

/// A text of at most `bytes_max` bytes, with a mark where it is cut.
pub(crate) fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    match text.len() <= bytes_max {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(bytes_max)])),
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
