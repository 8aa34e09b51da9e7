//! Bare guests: kernels of a few instructions, which real Firecracker boots as well.

/// Where they are loaded: 16 MiB, so that they need more memory than that.
const LOAD_ADDRESS: u64 = 0x100_0000;

/// `mov dx, 0x3f8`: the first serial port.
const TO_SERIAL: [u8; 4] = [0x66, 0xba, 0xf8, 0x03];
/// `hlt`, again and again.
const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// Says a text on the serial port, then halts for ever.
#[must_use]
pub fn speaker(text: &str) -> Vec<u8> {
    let mut code = TO_SERIAL.to_vec();
    text.bytes().for_each(|byte| code.extend([0xb0, byte, 0xee]));
    code.extend(HALT);
    elf(&code)
}

/// Says a text on the serial port, over and over, as fast as it can. It has to be short: the jump back is
/// of 127 bytes at most.
#[must_use]
pub fn flooder(text: &str) -> Vec<u8> {
    let mut code = TO_SERIAL.to_vec();
    text.bytes().for_each(|byte| code.extend([0xb0, byte, 0xee]));
    let back = i8::try_from(text.len() * 3 + 2).expect("a short text");
    code.extend([0xeb, (-back).cast_unsigned()]);
    elf(&code)
}

/// Resets the machine: the keyboard controller's command 0xfe pulses the reset line.
#[must_use]
pub fn rebooter() -> Vec<u8> {
    let mut code = vec![0xb0, 0xfe, 0xe6, 0x64];
    code.extend(HALT);
    elf(&code)
}

/// A 64-bit ELF executable with one segment (elf(5)).
#[must_use]
pub fn elf(code: &[u8]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes());
    put(&62_u16.to_le_bytes());
    put(&1_u32.to_le_bytes());
    for number in [LOAD_ADDRESS, 64, 0] {
        put(&u64::to_le_bytes(number));
    }
    put(&0_u32.to_le_bytes());
    for number in [64_u16, 56, 1, 0, 0, 0] {
        put(&number.to_le_bytes());
    }
    put(&1_u32.to_le_bytes());
    put(&5_u32.to_le_bytes());
    let size = code.len() as u64;
    for number in [120, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 16] {
        put(&u64::to_le_bytes(number));
    }
    put(code);
    elf
}
