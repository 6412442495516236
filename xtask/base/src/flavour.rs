//! What a kernel is built for. How it is built is known in `xtask/kernel`.

/// The kernel as it was linked: of flavour kcore, beside the image.
pub const VMLINUX: &str = "vmlinux";

/// What a kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// For numbers: no lock or memory checking.
    Plain,
    /// For truth: lockdep, KASAN, kmemleak and the like.
    Debug,
    /// For programs that read its memory: `/proc/kcore`, and vmlinux beside the image.
    Kcore,
}

impl Flavour {
    /// As it is written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Debug => "debug",
            Self::Kcore => "kcore",
        }
    }
}
