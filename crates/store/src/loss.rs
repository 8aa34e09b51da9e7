//! What has happened to the files of a database.

/// What follows when something is not where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The directory: nothing can be put in it any more.
    Directory,
    /// The lock: another daemon may use the directory.
    Lock,
    /// A file of the database: what it holds is nowhere but in the open descriptors.
    Database,
}

/// What has happened to the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// What, and to which, as a sentence.
    pub(crate) problem: String,
    pub(crate) means: Means,
}
