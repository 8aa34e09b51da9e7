//! Runs a bare guest: the instructions that `kernels` uses, and no others. It is not an emulator; an
//! instruction that it doesn't know is a fault of the guest, which resets the machine.

use crate::output::Console;
use std::time::Duration;

/// The first serial port's data register.
const SERIAL: u16 = 0x3f8;
/// The keyboard controller's command register, and its command that pulses the reset line.
const KEYBOARD: u8 = 0x64;
const RESET: u8 = 0xfe;
/// A guest that never halts leaves some of the processor to the test.
const JUMPS_BETWEEN_PAUSES: u32 = 512;
const PAUSE: Duration = Duration::from_millis(1);

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It waits for an interrupt, and there is none.
    ForEver,
    /// It reset the machine, or did what it can't.
    Reset,
}

/// Runs code from `at` until it halts or resets; a loop that does neither never returns.
pub(crate) fn run(code: &[u8], mut at: usize, console: &mut Console) -> Halt {
    let (mut al, mut dx, mut jumps) = (0_u8, 0_u16, 0_u32);
    loop {
        match *code.get(at..).unwrap_or_default() {
            [0x66, 0xba, low, high, ..] => {
                dx = u16::from_le_bytes([low, high]);
                at += 4;
            }
            [0xb0, byte, ..] => {
                al = byte;
                at += 2;
            }
            [0xee, ..] => {
                if dx == SERIAL {
                    console.put(al);
                }
                at += 1;
            }
            [0xe6, KEYBOARD, ..] if al == RESET => return Halt::Reset,
            [0xe6, _, ..] => at += 2,
            // Nothing ever interrupts it.
            [0xf4, ..] => return Halt::ForEver,
            [0xeb, offset, ..] => {
                let target = (at + 2).checked_add_signed(isize::from(offset.cast_signed()));
                let Some(target) = target else { return Halt::Reset };
                at = target;
                jumps += 1;
                if jumps.is_multiple_of(JUMPS_BETWEEN_PAUSES) {
                    std::thread::sleep(PAUSE);
                }
            }
            _ => return Halt::Reset,
        }
    }
}
