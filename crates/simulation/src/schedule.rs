//! What happens from outside in a simulated run: what users ask for, what dies, what breaks. A
//! schedule is data, made whole from a seed before the run, so that a failing one can be made smaller.

use fastrand::Rng;
use hearth_model::Lifecycle;
use std::fmt;
use std::time::Duration;

/// How many names of jobs there are.
pub(crate) const JOBS: u8 = 24;
/// How long requests and faults arrive; then the world is left alone.
pub(crate) const FAULTS_LAST: Duration = Duration::from_secs(90);

/// What happens from outside, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Decides how long everything takes, and what a crash does to what was under way.
    pub seed: u64,
    /// In the order of time.
    pub items: Vec<Item>,
}

/// Something that happens at a time after the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// Something that happens from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `POST /vms`.
    Upsert(u8, Make),
    /// `DELETE /vms/{job}`.
    Delete(u8),
    /// `POST /vms/{job}/stop`.
    Stop(u8),
    /// `POST /vms/{job}/start`.
    Start(u8),
    /// `POST /vms/{job}/restart`.
    Restart(u8),
    /// `GET /vms/{job}`.
    Get(u8),
    /// `GET /vms`.
    List,
    /// The desired-state file now says this.
    Load(Vec<(u8, Make)>),
    /// One of the microVMs ends by itself.
    Die(u8, Death),
    /// One of the microVMs is gone with all that it left, as if a user had cleaned up by hand.
    Vanish(u8),
    /// What the engine asks the host for next goes wrong.
    Fault(Fault),
    /// kill -9 of the daemon. It is started again after a while.
    Crash,
    /// kill -9 of the daemon, and its database is gone when it is started again.
    Lose,
    /// The machine loses its power.
    Reboot,
    /// The wall clock jumps by so many days.
    Jump(i32),
    /// The disk is full for a while.
    DiskFull(Duration),
    /// The VMM of one of the microVMs does not answer for a while; its guest keeps running.
    Hush(u8, Duration),
    /// The files of the database are lost beneath the daemon for a while.
    Unmoored(Duration),
    /// The host can't be looked at for a while.
    Blind(Duration),
    /// No readiness check passes for a while.
    Unready(Duration),
    /// An image is missing for a while.
    Missing(Duration),
    /// An image is replaced by one that takes so long to be read.
    Unread(Duration),
    /// `POST /images/prune`, which keeps none that is not in use.
    Prune,
}

/// What a job is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Make {
    /// Service, daemon or job.
    pub lifecycle: Lifecycle,
    /// Differs where the inside differs.
    pub version: u8,
    /// Warm instances to keep.
    pub warm: u8,
    /// Whether there is a readiness check.
    pub checked: bool,
    /// The code with which a `job` exits.
    pub code: u8,
    /// How often a `job` is tried again.
    pub retries: u8,
    /// Whether it has a tenant that others share.
    pub shared: bool,
}

/// How a microVM ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its command exits.
    Code(u8),
    /// Its Firecracker is killed.
    Killed,
    /// Its kernel panics.
    Panic,
}

/// What goes wrong with an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused and nothing is done.
    Refused,
    /// It is done, and the reply is lost: the daemon's deadline ends the wait.
    ReplyLost,
    /// It is done much later.
    Late(Duration),
    /// It is done twice.
    Twice,
    /// It fails half-way.
    Half,
}

impl Schedule {
    /// The requests of a seed's schedule, without the faults.
    #[must_use]
    pub fn calm(seed: u64) -> Schedule {
        let mut schedule = Schedule::of(seed);
        schedule.items.retain(|item| item.what.is_request());
        schedule
    }

    /// The schedule of a seed: some 60 requests of users, and faults.
    #[must_use]
    pub fn of(seed: u64) -> Schedule {
        let mut rng = Rng::with_seed(seed);
        let mut items = Vec::new();
        // Most runs are of few jobs that are asked for much, some of many.
        let jobs = if rng.u8(..4) == 0 { JOBS } else { rng.u8(2..8) };
        let requests = rng.usize(20..80);
        let faults = rng.usize(0..40);
        for _ in 0..requests {
            let job = rng.u8(..jobs);
            let what = match rng.u8(..20) {
                0..11 => What::Upsert(job, Make::any(&mut rng)),
                11..14 => What::Delete(job),
                14 => What::Stop(job),
                15 => What::Start(job),
                16 => What::Restart(job),
                _ => {
                    let entries = (0..jobs).filter(|_| rng.u8(..3) == 0).collect::<Vec<_>>();
                    What::Load(entries.into_iter().map(|job| (job, Make::any(&mut rng))).collect())
                }
            };
            items.push(Item { at: moment(&mut rng), what });
        }
        for _ in 0..faults {
            let at = moment(&mut rng);
            let what = match rng.u8(..40) {
                0..20 => What::Fault(Fault::any(&mut rng)),
                20..28 => What::Die(rng.u8(..), Death::any(&mut rng)),
                28 => What::Vanish(rng.u8(..)),
                29 if rng.u8(..4) == 0 => What::Lose,
                29..34 => What::Crash,
                34 => What::Reboot,
                35 => What::Jump(rng.i32(-400..400)),
                36 => What::DiskFull(a_while(&mut rng)),
                37 => What::Blind(a_while(&mut rng)),
                38 => What::Unready(a_while(&mut rng)),
                _ => What::Missing(a_while(&mut rng)),
            };
            if what == What::Crash {
                // Faults and further crashes strike the recovery as well.
                while rng.u8(..3) == 0 {
                    let at = at + Duration::from_millis(rng.u64(1..1500));
                    let what = match rng.u8(..2) {
                        0 => What::Crash,
                        _ => What::Fault(Fault::any(&mut rng)),
                    };
                    items.push(Item { at, what });
                }
            }
            items.push(Item { at, what });
        }
        items.extend(crowd(seed, &items));
        items.extend(losses(seed));
        items.extend(replaced_images(seed));
        items.extend(silences(seed));
        items.extend(prunes(seed));
        items.sort_by_key(|item| item.at);
        Schedule { seed, items }
    }
}

/// A quarter of the requests come with another about the same job, or with a look at it.
fn crowd(seed: u64, items: &[Item]) -> Vec<Item> {
    let mut rng = Rng::with_seed(seed ^ 0xC40D);
    let beside = items.iter().filter_map(|Item { at, what }| {
        let job = match what {
            What::Upsert(job, _) | What::Delete(job) | What::Stop(job) => *job,
            What::Start(job) | What::Restart(job) | What::Get(job) => *job,
            _ => return None,
        };
        let what = match rng.u8(..24) {
            0 => What::Upsert(job, Make::any(&mut rng)),
            1 => What::Delete(job),
            2 => What::Stop(job),
            3 => What::Restart(job),
            4 => What::Get(job),
            5 => What::List,
            _ => return None,
        };
        Some(Item { at: *at + Duration::from_millis(rng.u64(..3)), what })
    });
    beside.collect()
}

/// In a quarter of the runs the files of the database are lost for a while.
fn losses(seed: u64) -> Option<Item> {
    let mut rng = Rng::with_seed(seed ^ 0x1057);
    (rng.u8(..4) == 0)
        .then(|| Item { at: moment(&mut rng), what: What::Unmoored(a_while(&mut rng)) })
}

/// In a third of the runs an image is replaced now and then.
fn replaced_images(seed: u64) -> Vec<Item> {
    let mut rng = Rng::with_seed(seed ^ 0x1A6E);
    let count = if rng.u8(..3) == 0 { rng.usize(1..6) } else { 0 };
    let replaced = |_| {
        let at = moment(&mut rng);
        Item { at, what: What::Unread(a_while(&mut rng)) }
    };
    (0..count).map(replaced).collect()
}

/// In half of the runs VMMs do not answer, for a moment or for so long that they are given up.
fn silences(seed: u64) -> Vec<Item> {
    let mut rng = Rng::with_seed(seed ^ 0x5117);
    let count = if rng.bool() { rng.u8(1..4) } else { 0 };
    (0..count)
        .map(|_| {
            let time = Duration::from_millis(rng.u64(100..60_000));
            Item { at: moment(&mut rng), what: What::Hush(rng.u8(..), time) }
        })
        .collect()
}

/// In a third of the runs unused copies of images are removed now and then.
fn prunes(seed: u64) -> Vec<Item> {
    let mut rng = Rng::with_seed(seed ^ 0x9C0B);
    let count = if rng.u8(..3) == 0 { rng.usize(1..12) } else { 0 };
    (0..count).map(|_| Item { at: moment(&mut rng), what: What::Prune }).collect()
}

/// Half of what happens happens within moments of something else.
fn moment(rng: &mut Rng) -> Duration {
    let whole = FAULTS_LAST.as_secs();
    if rng.bool() {
        let second = rng.u64(..whole / 10) * 10;
        Duration::from_secs(second) + Duration::from_millis(rng.u64(..500))
    } else {
        Duration::from_millis(rng.u64(..whole * 1000))
    }
}

fn a_while(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(100..20_000))
}

impl What {
    /// Whether it is a user's request, not a fault.
    pub(crate) fn is_request(&self) -> bool {
        matches!(
            self,
            What::Upsert(..)
                | What::Delete(_)
                | What::Stop(_)
                | What::Start(_)
                | What::Restart(_)
                | What::Get(_)
                | What::List
                | What::Load(_)
        )
    }
}

impl Make {
    fn any(rng: &mut Rng) -> Make {
        let lifecycle = match rng.u8(..3) {
            0 => Lifecycle::Service,
            1 => Lifecycle::Daemon,
            _ => Lifecycle::Job,
        };
        Make {
            lifecycle,
            version: rng.u8(..2),
            warm: if rng.u8(..3) == 0 { rng.u8(1..3) } else { 0 },
            checked: lifecycle != Lifecycle::Job && rng.u8(..3) == 0,
            code: if rng.u8(..4) == 0 { 7 } else { 0 },
            retries: rng.u8(..3),
            shared: rng.bool(),
        }
    }
}

impl Death {
    fn any(rng: &mut Rng) -> Death {
        match rng.u8(..3) {
            0 => Death::Code(rng.u8(..2)),
            1 => Death::Killed,
            _ => Death::Panic,
        }
    }
}

impl Fault {
    fn any(rng: &mut Rng) -> Fault {
        match rng.u8(..5) {
            0 => Fault::Refused,
            1 => Fault::ReplyLost,
            2 => Fault::Late(Duration::from_millis(rng.u64(50..8000))),
            3 => Fault::Twice,
            _ => Fault::Half,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Upsert(job, make) => write!(f, "POST of job-{job}: {make:?}"),
            What::Delete(job) => write!(f, "DELETE of job-{job}"),
            What::Stop(job) => write!(f, "stop of job-{job}"),
            What::Start(job) => write!(f, "start of job-{job}"),
            What::Restart(job) => write!(f, "restart of job-{job}"),
            What::Get(job) => write!(f, "GET of job-{job}"),
            What::List => write!(f, "GET of all"),
            What::Load(entries) => write!(f, "the file now declares {entries:?}"),
            What::Die(nth, death) => write!(f, "microVM {nth} ends by itself: {death:?}"),
            What::Vanish(nth) => write!(f, "microVM {nth} is gone with all that it left"),
            What::Fault(fault) => write!(f, "the next action goes wrong: {fault:?}"),
            What::Crash => write!(f, "kill -9 of the daemon"),
            What::Lose => write!(f, "kill -9 of the daemon, and its database is lost"),
            What::Reboot => write!(f, "the machine loses its power"),
            What::Jump(days) => write!(f, "the wall clock jumps by {days} days"),
            What::DiskFull(time) => write!(f, "the disk is full for {time:?}"),
            What::Hush(nth, time) => write!(f, "VMM {nth} does not answer for {time:?}"),
            What::Unmoored(time) => write!(f, "the database's files are lost for {time:?}"),
            What::Blind(time) => write!(f, "the host can't be looked at for {time:?}"),
            What::Unready(time) => write!(f, "no check passes for {time:?}"),
            What::Missing(time) => write!(f, "an image is missing for {time:?}"),
            What::Unread(time) => write!(f, "an image takes {time:?} to be read again"),
            What::Prune => write!(f, "unused copies of images are removed"),
        }
    }
}
