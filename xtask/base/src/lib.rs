//! What the programs behind `cargo xtask` share. Kept small: `cargo xtask demo`
//! compiles it on a newcomer's machine.

mod flavour;
pub mod run;
pub mod system;
pub mod workspace;

pub use flavour::{Flavour, VMLINUX};
