//! The commands: each module has the arguments of its commands, what they do, and what they print of it.
//! How things are printed is [`crate::output`]; no module below this one knows a command.

pub(crate) mod change;
pub(crate) mod config;
pub(crate) mod convert;
pub(crate) mod declare;
pub(crate) mod events;
pub(crate) mod forward;
pub(crate) mod get;
pub(crate) mod images;
pub(crate) mod kernel;
pub(crate) mod logs;
pub(crate) mod pages;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod validate;
pub(crate) mod version;
