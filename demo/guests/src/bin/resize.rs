//! The demo's short-lived task: paints a picture, scales it down, prints what came out, and ends.

use std::env;

const WIDTH: usize = 1600;
const HEIGHT: usize = 1200;
const SCALE: usize = 8;
const CHANNELS: usize = 3;

fn main() {
    let bucket = env::var("S3_BUCKET").unwrap_or_else(|_| "none".to_owned());
    let picture = paint();
    let small = scale_down(&picture);
    println!(
        "resize: {WIDTH}x{HEIGHT} to {}x{}, checksum {:016x}, for bucket {bucket}",
        WIDTH / SCALE,
        HEIGHT / SCALE,
        checksum(&small)
    );
}

/// Circles of colour around the middle.
fn paint() -> Vec<u8> {
    let mut pixels = Vec::with_capacity(WIDTH * HEIGHT * CHANNELS);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let distance = x.abs_diff(WIDTH / 2).pow(2) + y.abs_diff(HEIGHT / 2).pow(2);
            pixels.extend([(distance >> 4) as u8, (distance >> 8) as u8, (x ^ y) as u8]);
        }
    }
    pixels
}

/// Each pixel is the mean of the square that it stands for.
fn scale_down(pixels: &[u8]) -> Vec<u8> {
    let mut small = Vec::with_capacity(pixels.len() / (SCALE * SCALE));
    for top in (0..HEIGHT).step_by(SCALE) {
        for left in (0..WIDTH).step_by(SCALE) {
            for channel in 0..CHANNELS {
                let rows =
                    (top..top + SCALE).flat_map(|y| (left..left + SCALE).map(move |x| (x, y)));
                let sum: usize = rows
                    .map(|(x, y)| usize::from(pixels[(y * WIDTH + x) * CHANNELS + channel]))
                    .sum();
                small.push((sum / (SCALE * SCALE)) as u8);
            }
        }
    }
    small
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
