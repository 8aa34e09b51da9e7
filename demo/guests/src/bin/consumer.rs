//! The demo's background worker: says every few seconds that it is at work. There is no broker in
//! the guest, so the messages are its own.

use std::env;
use std::thread;
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(5);

fn main() {
    let brokers = env::var("KAFKA_BROKERS").unwrap_or_else(|_| "none".to_owned());
    println!("consumer: started, brokers {brokers}");
    for message in 1_u64.. {
        println!("consumer: message {message} handled");
        thread::sleep(PAUSE);
    }
}
