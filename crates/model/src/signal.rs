//! Signals by name and by number, as `docker run --stop-signal` takes them.

use crate::text::suggest;
use std::fmt;

/// A signal of Linux on x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(u8);

/// The names, by number. 32 and 33, which the C library keeps for itself, have none.
#[rustfmt::skip]
const NAMES: [&str; 65] = [
    "", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE",
    "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT",
    "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU",
    "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS", "32", "33",
    "SIGRTMIN", "SIGRTMIN+1", "SIGRTMIN+2", "SIGRTMIN+3", "SIGRTMIN+4", "SIGRTMIN+5",
    "SIGRTMIN+6", "SIGRTMIN+7", "SIGRTMIN+8", "SIGRTMIN+9", "SIGRTMIN+10", "SIGRTMIN+11",
    "SIGRTMIN+12", "SIGRTMIN+13", "SIGRTMIN+14", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX-13",
    "SIGRTMAX-12", "SIGRTMAX-11", "SIGRTMAX-10", "SIGRTMAX-9", "SIGRTMAX-8", "SIGRTMAX-7",
    "SIGRTMAX-6", "SIGRTMAX-5", "SIGRTMAX-4", "SIGRTMAX-3", "SIGRTMAX-2", "SIGRTMAX-1",
    "SIGRTMAX",
];
/// Other names of some.
const ALIASES: [(&str, Signal); 3] =
    [("SIGIOT", Signal(6)), ("SIGCLD", Signal(17)), ("SIGPOLL", Signal(29))];

impl Signal {
    /// What ends a command unless its spec says otherwise.
    pub const TERM: Signal = Signal(15);

    /// The signal of a number from 1 to 64.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Signal> {
        u8::try_from(number).ok().filter(|number| (1..=64).contains(number)).map(Signal)
    }

    /// Reads a name with or without `SIG`, in either case, or a number.
    ///
    /// # Errors
    /// The nearest name, if one is near.
    pub fn parse(text: &str) -> Result<Signal, Option<&'static str>> {
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        let named = NAMES.iter().position(|known| *known == name);
        let number = named.and_then(|number| i64::try_from(number).ok());
        let alias = || ALIASES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
        // A number has one form: no sign, no leading zero.
        let numbered = || {
            let number = text.parse().ok().filter(|number: &i64| number.to_string() == text);
            number.and_then(Signal::from_number)
        };
        let signal = number.and_then(Signal::from_number).or_else(alias).or_else(numbered);
        signal.ok_or_else(|| suggest(&name, &NAMES[1..32]))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name, as in `SIGINT` and `SIGRTMIN+3`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_has_the_names_and_numbers_of_docker() {
        let read = |text: &str| Signal::parse(text).map(Signal::number).ok();
        for (text, number) in [
            ("SIGINT", 2),
            ("INT", 2),
            ("sigint", 2),
            ("2", 2),
            ("SIGRTMIN+3", 37),
            ("rtmin+15", 49),
            ("RTMIN", 34),
            ("SIGRTMAX-14", 50),
            ("RTMAX", 64),
            ("64", 64),
            ("33", 33),
            ("SIGIOT", 6),
            ("CLD", 17),
            ("SIGPOLL", 29),
            ("WINCH", 28),
            ("SIGSYS", 31),
        ] {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-2",
            "+2",
            "02",
            "2 ",
            " INT",
            "INT\r",
            "SIGSIGINT",
            "SIG2",
            "RTMIN+0",
            "RTMIN+16",
            "RTMIN+03",
            "RTMAX-15",
            "RTMAX+1",
            "SIGRTMIN +3",
            "256",
            "TER",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(Signal::parse("SIGTERMM"), Err(Some("SIGTERM")));
        assert_eq!(Signal::parse("USR11"), Err(Some("SIGUSR1")));
        assert_eq!(Signal::parse("never"), Err(None));
    }

    #[test]
    fn every_number_has_one_name_which_reads_back() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).expect("a signal");
            assert_eq!(Signal::parse(signal.name()), Ok(signal));
            assert_eq!(Signal::parse(&number.to_string()), Ok(signal));
        }
        for number in [0, 65, -1, 271, i64::MAX] {
            assert_eq!(Signal::from_number(number), None, "{number}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
    }
}
