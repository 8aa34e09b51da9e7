//! Which device has which role. The host says it on the kernel's command line, since before that is known
//! there is no drive to read it from. The host alone knows how devices are named.

/// A drive as the init looks for it, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestDrive {
    /// The root filesystem.
    Rootfs,
    /// Changes to the root filesystem.
    Scratch,
    /// The [`Config`](crate::Config).
    Config,
    /// The [`Status`](crate::Status).
    Status,
}

impl GuestDrive {
    /// The parameter that names its device. The kernel leaves a parameter with a dot to others.
    fn parameter(self) -> &'static str {
        match self {
            GuestDrive::Rootfs => "hearth.drive.rootfs",
            GuestDrive::Scratch => "hearth.drive.scratch",
            GuestDrive::Config => "hearth.drive.config",
            GuestDrive::Status => "hearth.drive.status",
        }
    }
}

/// The assignment of a device to a role, as a word of the kernel's command line.
#[must_use]
pub fn drive_assignment(role: GuestDrive, device: &str) -> String {
    format!("{}={device}", role.parameter())
}

/// The device of a role on a kernel's command line, if one is assigned.
#[must_use]
pub fn assigned_device(command_line: &str, role: GuestDrive) -> Option<&str> {
    let of_role =
        |word: &&str| word.split_once('=').is_some_and(|(key, _)| key == role.parameter());
    command_line.split_ascii_whitespace().find(of_role)?.split_once('=').map(|(_, device)| device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigned_device_is_found_among_other_words() {
        let scratch = drive_assignment(GuestDrive::Scratch, "/dev/vdc");
        assert_eq!(scratch, "hearth.drive.scratch=/dev/vdc");
        let line =
            format!("quiet x.hearth.drive.scratch=/dev/no hearth.drive.root {scratch} pci=off\n");
        assert_eq!(assigned_device(&line, GuestDrive::Scratch), Some("/dev/vdc"));
        assert_eq!(assigned_device(&line, GuestDrive::Rootfs), None);
        assert_eq!(assigned_device("", GuestDrive::Config), None);
    }
}
