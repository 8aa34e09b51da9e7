//! The unit in `contrib` under a real systemd, which runs in namespaces of its own, on a copy of this
//! machine's files that is gone afterwards. It starts nothing but its journal and the daemon: what else
//! belongs to a boot would set this machine's kernel up. Firecracker is the fake: no KVM is needed.

mod system {
    use crate::support::{DEADLINE, Home, cgroups};
    use hearth_fake_firecracker::{Fake, kernels};
    use serde_json::{Value, json};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// Takes the cgroup it is to be in, the test's directory, the program, and the unit.
    const BOOT: &str = r#"
        set -e
        echo $$ > "$1/cgroup.procs"
        exec unshare --fork --pid --kill-child --mount --cgroup --uts --ipc --net sh -c '
            set -e
            mount --make-rprivate /
            over=$2/over root=$2/root
            mkdir "$over" "$root"
            mount -t tmpfs tmpfs "$over"
            mkdir "$over/upper" "$over/work"
            mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" overlay "$root"
            mount -t proc proc "$root/proc"
            mount -t sysfs -o ro sysfs "$root/sys"
            mount --bind "$root/proc/sys" "$root/proc/sys"
            mount -o remount,bind,ro "$root/proc/sys"
            mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
            mount --rbind /dev "$root/dev"
            mount -t tmpfs tmpfs "$root/run"
            mkdir -p "$root$2/images" "$root/etc/hearth" "$root/var/lib/hearth"
            mount -t tmpfs -o mode=0700 tmpfs "$root/var/lib/hearth"
            mount --bind "$2/images" "$root$2/images"
            cp "$2/hearth.toml" "$root/etc/hearth/"
            cp "$3" "$root/usr/local/bin/hearth"
            cp "$4" "$root/etc/systemd/system/hearth.service"
            mkdir -p "$root/etc/systemd/system/hearth.service.d"
            printf "[Unit]\nDefaultDependencies=no\n[Service]\nWatchdogSec=8\n" \
                > "$root/etc/systemd/system/hearth.service.d/test.conf"
            printf "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n" \
                > "$root/etc/systemd/system/hearth-test.target"
            echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"
            systemd=$(readlink -f "$(command -v /lib/systemd/systemd)")
            ip link set lo up
            exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
                chroot "$root" "$systemd" --unit=hearth-test.target --show-status=no
        ' boot "$@"
    "#;

    struct Systemd {
        home: Home,
        cgroup: PathBuf,
        unshare: Child,
    }

    impl Systemd {
        fn boot(home: Home) -> Systemd {
            let mount = cgroups::mount().expect("cgroup2");
            let cgroup = mount.join(format!("hearth-test-{}", std::process::id()));
            fs::create_dir(&cgroup).expect("a cgroup");
            let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/hearth.service");
            let mut boot = Command::new("sh");
            boot.args(["-c", BOOT, "boot"]).arg(&cgroup).arg(home.path(""));
            boot.arg(env!("CARGO_BIN_EXE_hearth")).arg(unit).stdin(Stdio::null());
            let log = fs::File::create(home.path("boot.log")).expect("a log");
            boot.stdout(log.try_clone().expect("a log")).stderr(log);
            let systemd = Systemd { unshare: boot.spawn().expect("it starts"), home, cgroup };
            systemd.until("systemd has booted", || {
                ["running", "degraded"]
                    .contains(&systemd.says("systemctl is-system-running").trim())
            });
            systemd
        }

        /// What a command in there says.
        fn says(&self, line: &str) -> String {
            let unshare = self.unshare.id();
            let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
            let init = children.unwrap_or_default();
            let mut command = Command::new("nsenter");
            command.args(["-t", init.trim(), "-m", "-p", "-C", "-u", "-i", "-n", "-r", "-w", "--"]);
            command.args(["env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
            command.args(["sh", "-c", line]).stdin(Stdio::null());
            let output = command.output().expect("nsenter ran");
            String::from_utf8_lossy(&output.stdout).into_owned()
        }

        fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
            let begin = Instant::now();
            while !holds() {
                if begin.elapsed() > DEADLINE {
                    let boot = fs::read_to_string(self.home.path("boot.log")).unwrap_or_default();
                    let log = self.says("systemctl status hearth; journalctl -u hearth -o cat");
                    panic!("not so: {what}\n{boot}\n{log}");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }

        fn shows(&self, property: &str) -> String {
            self.says(&format!("systemctl show -p {property} --value hearth")).trim().to_owned()
        }

        /// Waits until the daemon serves the job; returns its process and that of the job's Firecracker.
        fn serving(&self) -> (String, String) {
            let mut vm = String::new();
            self.until("the job runs", || {
                let jobs: Value =
                    serde_json::from_str(&self.says("hearth ps -o json")).unwrap_or_default();
                vm = jobs[0]["vm_id"].as_str().unwrap_or_default().replacen("vm-", "", 1);
                jobs[0]["status"] == "running"
            });
            let pid = self.says(&format!("cat /var/lib/hearth/instances/{vm}/pid"));
            (self.shows("MainPID"), pid.trim().to_owned())
        }

        /// How many daemons have begun to listen.
        fn starts(&self) -> usize {
            self.says("journalctl -u hearth -o cat").matches("listening on").count()
        }
    }

    impl Drop for Systemd {
        fn drop(&mut self) {
            // Everything in there ends with the first process.
            let _ = self.unshare.kill();
            let _ = self.unshare.wait();
            let begin = Instant::now();
            while remove_tree(&self.cgroup).is_err() && begin.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The kernel's own files in a cgroup go with it.
    fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
            remove_tree(&entry.path())?;
        }
        fs::remove_dir(cgroup)
    }

    #[test]
    fn unit_starts_reloads_and_watches_a_daemon_and_microvms_stay() {
        let home = Home::new();
        let images = home.path("images");
        fs::create_dir(&images).expect("made");
        fs::write(images.join("speaker"), kernels::speaker("OK\n")).expect("written");
        // The build's directory may be in a home, which the unit does not see.
        let fake = Fake::new(&images).binary();
        let program = fs::canonicalize(&fake).expect("a program");
        fs::remove_file(&fake).expect("removed");
        fs::copy(program, &fake).expect("copied");
        let spec = json!({
            "boot": "raw", "kernel": "speaker", "lifecycle": "service",
            "resources": {"vcpu": 1, "mem_mb": 32},
        });
        let jobs = json!([{"job_id": "web", "spec": spec}]).to_string();
        fs::write(images.join("vms.json"), jobs).expect("written");
        let images = images.display();
        let config = format!(
            "jail = \"off\"\nimages = \"{images}\"\nfirecracker = \"{}\"\ndesired = \"{images}/vms.json\"\n",
            fake.display()
        );
        home.write("hearth.toml", &config);
        let systemd = Systemd::boot(home);

        // It is up once it says so.
        systemd.says("systemctl start hearth");
        assert_eq!(systemd.shows("ActiveState"), "active");
        systemd.until("its log says so", || systemd.starts() == 1);
        let (daemon, vm) = systemd.serving();

        systemd.says("systemctl reload hearth");
        systemd.until("it has restarted", || systemd.starts() == 2);
        assert_eq!(systemd.serving(), (daemon.clone(), vm.clone()));
        assert_eq!(systemd.shows("NRestarts"), "0");

        // SIGSTOP stands for what no watchdog of the daemon's own can end.
        for (nth, signal) in (1..).zip(["KILL", "STOP"]) {
            systemd.says(&format!("systemctl kill --kill-who=main -s {signal} hearth"));
            systemd.until(&format!("it is started again after SIG{signal}"), || {
                systemd.shows("NRestarts") == nth.to_string() && systemd.starts() == nth + 2
            });
            assert_eq!(systemd.serving().1, vm, "after SIG{signal}");
        }

        systemd.says("systemctl stop hearth");
        assert_eq!(systemd.shows("ActiveState"), "inactive");
        assert_eq!(systemd.says(&format!("kill -0 {vm} && echo lives")).trim(), "lives");
        systemd.says("systemctl start hearth");
        let (again, same) = systemd.serving();
        assert!(again != daemon && same == vm, "{again}, {same}");
        check_without_netlink(&systemd);
    }

    /// A daemon that can't ask whose a TCP connection is admits no one over TCP, and says what to do.
    fn check_without_netlink(systemd: &Systemd) {
        systemd.says(
            "cat > /etc/systemd/system/hearth.service.d/netlink.conf <<'END'
                [Service]
                RestrictAddressFamilies=
                RestrictAddressFamilies=AF_UNIX AF_INET
                ExecStartPre=-/usr/local/bin/hearth doctor\nEND
             systemctl daemon-reload && systemctl restart hearth",
        );
        let mut said = String::new();
        systemd.until("root is refused", || {
            said = systemd.says("hearth ps 2>&1");
            said.contains("not admitted") || said.contains("not known")
        });
        assert!(said.contains("cannot ask the kernel"), "{said}");
        assert!(said.contains("hearth serve --listen unix:///run/hearth.sock"), "{said}");
        let closed = "requests over TCP are refused, since their users are not known";
        let doctor = format!("bad  callers   {closed}");
        systemd.until("its log and doctor say so", || {
            let log = systemd.says("journalctl -u hearth -o cat");
            log.matches(closed).count() > 1 && log.contains(&doctor)
        });
    }
}
