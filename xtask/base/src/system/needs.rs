//! The lists of what each kind of work needs. How they are used is one level up.

use super::{header, pkg_config, Need};
use crate::run::line;

/// For building the library with its BPF backends.
pub const BUILD: &[Need] = &[
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
pub const BPF: &[Need] = &[
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
pub const CLANG_FORMAT: &[Need] = &[Need {
    package: "clang-format-19",
    why: "checks the format of the BPF sources",
    elsewhere: "LLVM 19 with `clang-format-19` in PATH",
    present: || line("clang-format-19 --version").succeeds(),
}];

/// For building kernels.
pub const KERNEL: &[Need] = &[
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
pub const KERNEL_CHECK: &[Need] = &[Need {
    package: "sparse",
    why: "checks address spaces and lock annotations",
    elsewhere: "sparse (Fedora, Arch)",
    present: || line("sparse --version").succeeds(),
}];

/// For liburing's test programs, beside what kernels need.
pub const LIBURING: &[Need] = &[Need {
    package: "dpkg-dev",
    why: "dpkg-source: unpacks liburing's source package",
    elsewhere: "dpkg-dev (Fedora), dpkg (Arch)",
    present: || line("dpkg-source --version").succeeds(),
}];

/// For a peer in the benchmarks that comes from PyPI.
pub const DRGN: &[Need] = &[Need {
    package: "python3-venv",
    why: "python3 with venv and pip: fetches drgn, to be measured beside",
    elsewhere: "python3 (Fedora, Arch)",
    present: || line("python3 -c").arg("import ensurepip, venv").succeeds(),
}];

/// For virtual machines.
pub const VM: &[Need] = &[
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
pub const SUITE: &[Need] = &[
    Need {
        package: "util-linux",
        why: "unshare, setpriv: namespaces and users for the tests",
        elsewhere: "util-linux (Fedora, Arch)",
        present: || line("unshare --version").succeeds() && line("setpriv --version").succeeds(),
    },
    Need {
        package: "strace",
        why: "the system calls of a snapshot, for a test to count",
        elsewhere: "strace (Fedora, Arch)",
        present: || line("strace -V").succeeds(),
    },
];
