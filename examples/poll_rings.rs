//! Looks at every ring of the machine once a second: what its buffers pin, and
//! how that has changed.
//!
//! `poll_rings [ROUNDS]`

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::thread;
use std::time::Duration;

use uring_bpf_iter::{RegisteredBufs, RingFinder, UringBufReader};

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = match env::args().nth(1) {
        Some(rounds) => rounds.parse()?,
        None => u64::MAX,
    };
    // Both load BPF programs: they are kept, not loaded again for each ring.
    let mut finder = RingFinder::new()?;
    let mut reader = UringBufReader::new();
    let mut before = HashMap::new();
    for round in 1..=rounds {
        let rings = finder.find_all()?.rings;
        println!("round {round}: {} rings", rings.len());
        let mut now = HashMap::new();
        for ring in &rings {
            // A ring may be gone by now, or too busy: the others are shown.
            let pinned = reader.snapshot(ring).map(|bufs| bufs.pinned_bytes());
            let owner = ring.owner();
            match pinned {
                Ok(bytes) => {
                    let change = match before.get(&ring.inode) {
                        Some(&old) if old == bytes => "",
                        Some(_) => ", changed",
                        None => ", new",
                    };
                    let (inode, name, pid) = (ring.inode, &owner.name, owner.pid);
                    println!("  ring {inode} of {name:?}[{pid}]: {bytes} bytes{change}");
                    now.insert(ring.inode, bytes);
                }
                Err(error) => println!("  {error}"),
            }
        }
        before = now;
        if round < rounds {
            thread::sleep(Duration::from_secs(1));
        }
    }
    Ok(())
}
