//! KVM where it runs a guest, emulation elsewhere.
//!
//! The device says nothing: there are machines whose /dev/kvm opens, creates
//! virtual machines, and never runs them. So a guest is booted, within a time limit.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a guest's code is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// QEMU's emulation.
    Tcg,
    /// The same with a clock that counts instructions, a nanosecond each, and stands
    /// still for nothing but sleep.
    Icount,
}

/// Seconds for the kernel to get as far as looking for its root file system.
const LIMIT: &str = "20";

impl Accelerator {
    /// The best that works here; asked once per boot of this machine, if `cache` can keep it.
    pub(crate) fn find(image: &Path, cache: Option<&Path>) -> Self {
        if !Path::new("/dev/kvm").exists() {
            return Self::Tcg;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = cache.and_then(|path| fs::read_to_string(path).ok());
        let known = known.as_deref().and_then(|text| text.split_once(' '));
        let works = match known {
            Some((of, answer)) if of == boot.trim() => answer.trim() == "runs",
            _ => {
                eprintln!("vm: does KVM run a guest here? (up to {LIMIT} s, once per boot)");
                let works = kvm_runs(image);
                eprintln!(
                    "vm: {}",
                    if works {
                        "it does"
                    } else {
                        "it does not, so this is emulated"
                    }
                );
                let answer = if works { "runs" } else { "fails" };
                if let Some(path) = cache {
                    // Asked again next time, if it cannot be kept.
                    let _ = fs::write(path, format!("{} {answer}\n", boot.trim()));
                }
                works
            }
        };
        if works {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }

    /// QEMU's arguments.
    pub(crate) fn arguments(self) -> &'static str {
        match self {
            Self::Kvm => "-accel kvm -cpu host",
            // With five-level paging, an interrupt in identify_cpu(), while it has the
            // features cleared, makes KASAN report a wild access (6.12): no LA57.
            Self::Tcg => "-accel tcg,thread=multi -cpu max,la57=off",
            Self::Icount => "-accel tcg,thread=single -icount shift=0,sleep=off -cpu max,la57=off",
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulation",
            Self::Icount => "emulation, by the instruction",
        }
    }
}

/// Boots the image without a root file system: a guest that runs says that it
/// panics for it. One that crashes early, which also ends QEMU, says nothing.
fn kvm_runs(image: &Path) -> bool {
    let output = Command::new("timeout")
        .args(["--kill-after=2", LIMIT, "qemu-system-x86_64"])
        .args(["-accel", "kvm", "-cpu", "host", "-m", "512"])
        .args("-nodefaults -no-user-config -display none -no-reboot -serial stdio".split(' '))
        .arg("-kernel")
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Kernel panic"))
}
