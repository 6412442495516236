//! What the machine must have besides Rust: found by trying it, installed with
//! apt-get where that is possible and allowed, explained where it is not.

use std::path::Path;

use anyhow::{bail, Result};

use crate::run::{cmd, line};

/// Something that the machine must have.
pub(crate) struct Need {
    /// Debian's package.
    package: &'static str,
    /// What the package is for.
    why: &'static str,
    /// What to look for on other systems.
    elsewhere: &'static str,
    present: fn() -> bool,
}

/// For building the library with its BPF backends.
pub(crate) const BUILD: &[Need] = &[
    Need {
        package: "gcc",
        why: "compiles libbpf, links everything",
        elsewhere: "gcc (Fedora, Arch)",
        present: || line("cc --version").succeeds(),
    },
    Need {
        package: "libc6-dev",
        why: "headers of the C library, for libbpf",
        elsewhere: "glibc-devel (Fedora), glibc (Arch)",
        present: || header("stdio.h") && header("linux/types.h"),
    },
    Need {
        package: "make",
        why: "builds libbpf",
        elsewhere: "make (Fedora, Arch)",
        present: || line("make --version").succeeds(),
    },
    Need {
        package: "pkg-config",
        why: "lets libbpf's build find libelf and zlib",
        elsewhere: "pkgconf-pkg-config (Fedora), pkgconf (Arch)",
        present: || pkg_config("--version"),
    },
    Need {
        package: "libelf-dev",
        why: "libelf: libbpf reads BPF objects with it",
        elsewhere: "elfutils-libelf-devel (Fedora), libelf (Arch)",
        present: || pkg_config("--exists libelf") && header("libelf.h"),
    },
    Need {
        package: "zlib1g-dev",
        why: "zlib: libelf reads compressed sections with it",
        elsewhere: "zlib-devel (Fedora), zlib (Arch)",
        present: || pkg_config("--exists zlib") && header("zlib.h"),
    },
];

/// For rebuilding the BPF objects.
pub(crate) const BPF: &[Need] = &[
    Need {
        package: "clang-19",
        why: "compiles the BPF programs",
        elsewhere: "LLVM 19 with `clang-19` in PATH",
        present: || line("clang-19 --version").succeeds(),
    },
    Need {
        package: "llvm-19",
        why: "llvm-strip-19: takes debug sections out of the BPF objects",
        elsewhere: "LLVM 19 with `llvm-strip-19` in PATH",
        present: || line("llvm-strip-19 --version").succeeds(),
    },
];

/// For checking the format of the BPF sources.
pub(crate) const CLANG_FORMAT: &[Need] = &[Need {
    package: "clang-format-19",
    why: "checks the format of the BPF sources",
    elsewhere: "LLVM 19 with `clang-format-19` in PATH",
    present: || line("clang-format-19 --version").succeeds(),
}];

/// For building kernels.
pub(crate) const KERNEL: &[Need] = &[
    Need {
        package: "gcc",
        why: "compiles the kernel",
        elsewhere: "gcc (Fedora, Arch)",
        present: || line("gcc --version").succeeds(),
    },
    Need {
        package: "libc6-dev",
        why: "headers of the C library, for the build's own programs",
        elsewhere: "glibc-devel (Fedora), glibc (Arch)",
        present: || header("stdio.h") && header("linux/types.h"),
    },
    Need {
        package: "make",
        why: "drives the kernel's build",
        elsewhere: "make (Fedora, Arch)",
        present: || line("make --version").succeeds(),
    },
    Need {
        package: "flex",
        why: "generates the reader of Kconfig files",
        elsewhere: "flex (Fedora, Arch)",
        present: || line("flex --version").succeeds(),
    },
    Need {
        package: "bison",
        why: "generates the reader of Kconfig files",
        elsewhere: "bison (Fedora, Arch)",
        present: || line("bison --version").succeeds(),
    },
    Need {
        package: "bc",
        why: "computes a header of the kernel",
        elsewhere: "bc (Fedora, Arch)",
        present: || line("bc --version").succeeds(),
    },
    Need {
        package: "perl",
        why: "scripts of the kernel's build, checkpatch",
        elsewhere: "perl (Fedora, Arch)",
        present: || line("perl -MList::Util -e 1").succeeds(),
    },
    Need {
        package: "patch",
        why: "applies the patches",
        elsewhere: "patch (Fedora, Arch)",
        present: || line("patch --version").succeeds(),
    },
    Need {
        package: "xz-utils",
        why: "unpacks the kernel's source",
        elsewhere: "xz (Fedora, Arch)",
        present: || line("xz --version").succeeds(),
    },
    Need {
        package: "libelf-dev",
        why: "libelf: objtool and resolve_btfids read objects with it",
        elsewhere: "elfutils-libelf-devel (Fedora), libelf (Arch)",
        present: || header("libelf.h"),
    },
    Need {
        package: "zlib1g-dev",
        why: "zlib: resolve_btfids links it",
        elsewhere: "zlib-devel (Fedora), zlib (Arch)",
        present: || header("zlib.h"),
    },
    Need {
        package: "dwarves",
        why: "pahole: makes the kernel's BTF",
        elsewhere: "dwarves (Fedora), pahole (Arch)",
        present: || line("pahole --version").succeeds(),
    },
];

/// For checking patches: more than building them takes.
pub(crate) const KERNEL_CHECK: &[Need] = &[Need {
    package: "sparse",
    why: "checks address spaces and lock annotations",
    elsewhere: "sparse (Fedora, Arch)",
    present: || line("sparse --version").succeeds(),
}];

/// For virtual machines.
pub(crate) const VM: &[Need] = &[
    Need {
        package: "qemu-system-x86",
        why: "the virtual machine",
        elsewhere: "qemu-system-x86 (Fedora, Arch)",
        present: || line("qemu-system-x86_64 --version").succeeds(),
    },
    Need {
        package: "qemu-guest-agent",
        why: "runs in the guest, from the host's files, and starts the command",
        elsewhere: "qemu-guest-agent (Fedora, Arch)",
        present: || line("qemu-ga --version").succeeds(),
    },
    Need {
        package: "util-linux",
        why: "setpriv, mount, dmesg: for the machine and in it",
        elsewhere: "util-linux (Fedora, Arch)",
        present: || line("setpriv --version").succeeds() && line("dmesg --version").succeeds(),
    },
];

/// For the integration tests.
pub(crate) const SUITE: &[Need] = &[Need {
    package: "util-linux",
    why: "unshare, setpriv: namespaces and users for the tests",
    elsewhere: "util-linux (Fedora, Arch)",
    present: || line("unshare --version").succeeds() && line("setpriv --version").succeeds(),
}];

/// Installs what is missing, or says what to install.
pub(crate) fn ensure<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        println!("every package that is needed is here");
        return Ok(());
    }
    install(missing)
}

/// The same, with nothing to say where nothing is missing.
pub(crate) fn ensure_quietly(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    install(missing)
}

fn install(missing: Vec<&Need>) -> Result<()> {
    let Some(mut apt) = apt_get() else {
        bail!("{}", explain(&missing));
    };
    println!("this machine lacks, and apt-get will now install:");
    for need in &missing {
        println!("  {:<16} {}", need.package, need.why);
    }
    let options = ["install", "--yes", "--no-install-recommends"];
    let packages = missing.iter().map(|need| need.package);
    let install: Vec<&str> = apt.iter().copied().chain(options).chain(packages).collect();
    apt.push("update");
    cmd(apt).run()?;
    cmd(install).run()?;
    let still = self::missing(missing);
    if still.is_empty() {
        return Ok(());
    }
    bail!("installed, and still not usable: {}", names(&still));
}

/// Fetches apt's lists anew; does nothing where that cannot be done.
pub(crate) fn apt_update() -> Result<()> {
    match apt_get() {
        Some(mut apt) => {
            apt.push("update");
            cmd(apt).run()
        }
        None => Ok(()),
    }
}

fn missing<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Vec<&'a Need> {
    needs.into_iter().filter(|need| !(need.present)()).collect()
}

fn names(needs: &[&Need]) -> String {
    let names: Vec<&str> = needs.iter().map(|need| need.package).collect();
    names.join(" ")
}

/// How to call apt-get with the rights to install; `None` where there is no way.
fn apt_get() -> Option<Vec<&'static str>> {
    let debian = Path::new("/etc/debian_version").exists();
    if !debian || !line("apt-get --version").succeeds() {
        return None;
    }
    // Through env, as sudo does not hand variables on.
    let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    if is_root() {
        Some(quiet.to_vec())
    } else if line("sudo -n true").succeeds() {
        Some(["sudo", "-n"].into_iter().chain(quiet).collect())
    } else {
        None
    }
}

/// Whether this process has user id 0.
pub(crate) fn is_root() -> bool {
    line("id -u").read().is_ok_and(|id| id.trim() == "0")
}

fn explain(missing: &[&Need]) -> String {
    let mut text = String::from(
        "this machine lacks packages, and they cannot be installed from here\n\
         (that takes Debian's apt-get, and root or a sudo that asks no password):\n\n",
    );
    for need in missing {
        text += &format!("  {:<16} {}\n", need.package, need.why);
        text += &format!("  {:<16}   elsewhere: {}\n", "", need.elsewhere);
    }
    text += "\nOn Debian and Ubuntu:  sudo apt-get install ";
    text + &names(missing)
}

/// Whether the C preprocessor finds a header.
fn header(name: &str) -> bool {
    line("cc -E -x c /dev/null -include").arg(name).succeeds()
}

/// pkg-config under the name by which builds will call it.
fn pkg_config(arguments: &str) -> bool {
    let program = std::env::var_os("PKG_CONFIG").unwrap_or("pkg-config".into());
    cmd([program]).args(arguments.split_whitespace()).succeeds()
}

/// One line on the machine, for reports.
pub(crate) fn describe() -> String {
    let say = |words: &str| {
        let said = line(words).read().unwrap_or_default();
        said.lines().next().unwrap_or("unknown").to_owned()
    };
    let user = if is_root() { "root" } else { "no root" };
    format!("{}, {}, {user}", say("uname -sr"), say("rustc --version"))
}
