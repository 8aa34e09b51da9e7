//! What Hearth wants, sees and may do: plain types with their rules. No I/O, no async, no serde.

pub mod action;
pub mod caller;
pub mod desired;
pub mod digest;
pub mod fields;
pub mod hash;
pub mod ids;
pub mod images;
pub mod machine;
pub mod observed;
pub mod problems;
pub mod selector;
pub mod signal;
pub mod spec;
pub mod status;
pub mod text;
pub mod value;

pub use action::{Action, Create, Delivery, Owner};
pub use caller::{Caller, KnownBy};
pub use desired::{
    Assignment, Creation, Instance, Job, Mono, Outcome, Progress, Resolution, Wanted,
};
pub use digest::{Digest, SpecHash};
pub use fields::{Declaration, Part};
pub use ids::{
    Generation, IdError, Identity, InstanceId, JobId, PoolKey, PoolTenant, Slot, Tenant,
};
pub use images::{ImageUses, KeepImages, StoredImage};
pub use machine::{DriveRole, Machine};
pub use observed::{
    CreatedInstance, End, Exit, InstanceState, Observation, Observed, OomKill, OomKills, Phase,
    SILENT_AFTER,
};
pub use problems::{FieldError, FieldErrors, FieldPart, PROBLEMS_MAX, Path, Segment};
pub use selector::Selector;
pub use signal::Signal;
pub use spec::{
    Boot, ImageName, ImageProgress, Images, Lifecycle, Lookup, Ready, ReadyCheck, Resources, Spec,
    Stage, WarmPool,
};
pub use status::Status;
pub use value::Value;
