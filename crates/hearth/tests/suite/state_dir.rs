//! A state directory that others can write in, or in which they have planted links, is refused, and nothing
//! that a link leads to is touched. What a service manager or an older version has made is closed to others
//! and used.

use crate::support::{Home, body, finished, names, shown};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The commands that work on a state directory. `backup.db` is a backup in the home.
const COMMANDS: [&[&str]; 5] =
    [&["serve"], &["backup", "copy.db"], &["restore", "backup.db"], &["doctor"], DOCTOR];
const DOCTOR: &[&str] = &["doctor", "--repair"];

fn command(home: &Home, args: &[&str]) -> Command {
    if args == ["serve"] {
        return home.serve(&["--desired", "none.exs"]);
    }
    let mut command = home.hearth(args);
    command.env("HEARTH_HOST", "sim").arg("--state-dir").arg(home.path("state"));
    command
}

/// A home with a state directory that a daemon has used, and a backup of it.
fn used() -> Home {
    let home = Home::new();
    let daemon = home.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("web", "service", ""));
    let made = finished(command(&home, &["backup", "backup.db"]));
    assert!(made.status.success(), "{}", shown(&made));
    drop(daemon.terminate());
    home
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

/// All commands refuse the state directory, and say why and what to do.
fn is_refused(home: &Home, planted: &str, says: &[&str]) {
    for args in COMMANDS {
        let output = finished(command(home, args));
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(1), "{planted}, {args:?}: {said}");
        for words in says {
            assert!(said.contains(words), "{planted}, {args:?}: {words:?} is not in {said}");
        }
        assert!(!home.path("copy.db").exists(), "{planted}: nothing is copied");
    }
}

/// Replaces a name of the state by a link; returns the path that it had before.
fn plant(home: &Home, name: &str, link: impl FnOnce(&Path)) -> Option<PathBuf> {
    let (path, aside) = (home.path("state").join(name), home.path("aside"));
    let moved = fs::rename(&path, &aside).is_ok();
    link(&path);
    moved.then_some(aside)
}

fn put_back(home: &Home, name: &str, aside: Option<PathBuf>) {
    let path = home.path("state").join(name);
    fs::remove_file(&path).expect("the link can be removed");
    if let Some(aside) = aside {
        fs::rename(aside, path).expect("it is put back");
    }
}

#[test]
fn planted_links_are_refused_by_name_and_not_followed() {
    let home = used();
    fs::create_dir_all(home.path("state/instances")).expect("a directory");
    fs::create_dir_all(home.path("state/logs")).expect("a directory");
    fs::create_dir_all(home.path("state/images")).expect("a directory");
    let victim = home.write("victim", "precious");
    fs::create_dir(home.path("victims")).expect("a directory");
    let files = ["hearth.lock", "hearth.db", "hearth.db-wal", "hearth.db-shm", "hearth.db.new"];
    let files = files.into_iter().chain(["hearth.db.restore", "listen", "listen.new", "notes"]);
    let files = files.chain(["logs/a1b2c3d4e5.log", "images/.digests.json", "instances/a1b2"]);
    let files = files.map(|name| (name, victim.clone()));
    let directories = ["instances", "logs", "images", "run"];
    let directories = directories.into_iter().map(|name| (name, home.path("victims")));
    // It leads nowhere yet: what follows it makes a file.
    let absent = ["hearth.lock", "listen.new"].map(|name| (name, home.path("absent")));
    for (name, target) in files.chain(directories).chain(absent) {
        let aside = plant(&home, name, |path| symlink(&target, path).expect("a link"));
        is_refused(&home, name, &[name, "symbolic link", "rm "]);
        assert_eq!(fs::read_to_string(&victim).expect("a file"), "precious", "{name}");
        assert_eq!(names(&home.path("victims")).len(), 0, "{name}");
        assert!(!home.path("absent").exists(), "{name}");
        put_back(&home, name, aside);
        if let Some(moved) = home.path("aside").exists().then(|| home.path("aside")) {
            fs::rename(moved, home.path("state").join(name)).expect("it is put back");
        }
    }
    drop(home.start(&[]).until_job("web", "running"));
}

#[test]
fn files_with_names_outside_are_refused() {
    let home = used();
    let victim = home.write("victim", "precious");
    chmod(&victim, 0o600);
    for name in ["hearth.lock", "hearth.db", "hearth.db-wal", "listen.new"] {
        let aside = plant(&home, name, |path| fs::hard_link(&victim, path).expect("a link"));
        is_refused(&home, name, &[name, "hard link", "cp -p"]);
        assert_eq!(fs::read_to_string(&victim).expect("a file"), "precious", "{name}");
        put_back(&home, name, aside);
    }
    // A restore that was cut off leaves the database with two names, both of which are here.
    let kept = home.path("state/hearth.db.replaced-20260101T000000000Z");
    fs::hard_link(home.path("state/hearth.db"), kept).expect("a link");
    drop(home.start(&[]).until_job("web", "running"));
}

#[test]
fn what_others_can_write_is_refused_or_closed() {
    let home = used();
    let state = home.path("state");
    for mode in [0o770, 0o702, 0o777, 0o1777, 0o2775] {
        chmod(&state, mode);
        let mode = format!("mode {mode:04o}");
        is_refused(&home, &mode, &["can be written by others", &mode, "--state-dir"]);
    }
    chmod(&state, 0o700);
    for (name, mode) in [("hearth.db", 0o666), ("hearth.lock", 0o620), ("logs", 0o777)] {
        fs::create_dir_all(state.join("logs")).expect("a directory");
        let path = state.join(name);
        let before = path.metadata().expect("it exists").mode();
        chmod(&path, mode);
        is_refused(&home, name, &[name, "can be written by others"]);
        chmod(&path, before);
    }
    // As systemd's StateDirectory= makes it, and as an older version left its files.
    chmod(&state, 0o755);
    chmod(&state.join("hearth.db"), 0o644);
    chmod(&state.join("listen"), 0o644);
    drop(home.start(&[]).until_job("web", "running"));
    for name in ["", "hearth.db"] {
        let mode = state.join(name).metadata().expect("it exists").mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[test]
fn the_path_of_the_state_directory_may_be_a_link() {
    let home = used();
    fs::rename(home.path("state"), home.path("elsewhere")).expect("moved");
    symlink("elsewhere", home.path("state")).expect("a link");
    let daemon = home.start(&[]);
    drop(daemon.until_job("web", "running"));
    for args in [&["backup", "copy.db"][..], &["doctor"]] {
        let output = finished(command(&home, args));
        assert!(output.status.success(), "{}", shown(&output));
    }
    drop(daemon.terminate());
    let output = finished(command(&home, &["restore", "backup.db"]));
    assert!(output.status.success(), "{}", shown(&output));
    drop(home.start(&[]).until_job("web", "running"));
}

mod system {
    use super::{command, is_refused, used};
    use crate::support::{finished, shown};
    use std::os::unix::fs::chown;

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let home = used();
        for name in ["", "hearth.db", "hearth.lock"] {
            let path = home.path("state").join(name);
            chown(&path, Some(65534), Some(65534)).expect("it can be given away");
            is_refused(&home, name, &["belongs to user 65534", "sudo -u '#65534'"]);
            chown(&path, Some(0), Some(0)).expect("it can be taken back");
        }
        // Its directory can be replaced by somebody else: that is said, and not refused.
        chown(home.path(""), Some(65534), None).expect("it can be given away");
        let output = finished(command(&home, &["doctor"]));
        let said = shown(&output);
        assert!(said.contains("user 65534 can replace"), "{said}");
        drop(home.start(&[]).until_job("web", "running"));
    }
}
