//! Runs a command as root in a virtual machine, on the host's own file system.
//! `cargo xtask vm` builds this and calls it; see there for what a person types.

mod accelerator;
mod machine;
mod patience;
mod splat;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use accelerator::Accelerator;
use machine::{Ended, Machine};
use patience::READY;

/// Run a command in a virtual machine.
#[derive(Parser)]
struct Arguments {
    /// The kernel: bzImage or vmlinux.
    #[arg(long)]
    image: PathBuf,
    /// Want lockdep to be on, and to be on still at the end.
    #[arg(long)]
    lockdep: bool,
    /// Arguments for the kernel.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    #[arg(long, default_value = "2")]
    cpus: u8,
    /// As QEMU takes it.
    #[arg(long, default_value = "2G")]
    memory: String,
    /// Seconds for boot and command.
    #[arg(long, default_value = "900")]
    limit: u32,
    /// A clock that counts instructions.
    #[arg(long)]
    icount: bool,
    /// Where to put the kernel's log.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Where to remember whether KVM works.
    #[arg(long)]
    kvm_cache: Option<PathBuf>,
    /// One word: for the shell. More words: a program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The exit status when the command has given none.
mod status {
    /// The kernel found fault with itself, or lockdep was off.
    pub(crate) const SPLAT: u8 = 123;
    /// The time was up.
    pub(crate) const TIME: u8 = 124;
    /// The machine did not come up, or went away.
    pub(crate) const MACHINE: u8 = 125;
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::from(status::MACHINE)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8> {
    let dir = env::current_dir().context("the current folder is gone")?;
    let image = arguments.image.canonicalize();
    let image =
        image.with_context(|| format!("cannot find the kernel {}", arguments.image.display()))?;
    let accelerator = match arguments.icount {
        true => Accelerator::Icount,
        false => Accelerator::find(&image, arguments.kvm_cache.as_deref()),
    };
    // The last rootflags count, not vmtest's: with a cache that trusts the host not to
    // change its files meanwhile, starting a program asks the host far less often.
    // A log that loses nothing, and none of the mitigations, which cost time. Nor a
    // check whether the timer ticks, which an emulated one on a busy machine fails.
    let kernel_arguments = format!(
        "rootflags=trans=virtio,version=9p2000.L,cache=loose,msize=512000 log_buf_len=8M mitigations=off no_timer_check random.trust_cpu=on {}",
        arguments.append
    );
    let machine = Machine {
        image: &image,
        accelerator,
        kernel_arguments: &kernel_arguments,
        cpus: arguments.cpus,
        memory: &arguments.memory,
        limit: arguments.limit,
        dir: &dir,
    };
    eprintln!(
        "vm: booting {} ({}, {} CPUs, {} of memory, for {} s at most)",
        image.display(),
        accelerator.name(),
        arguments.cpus,
        arguments.memory,
        arguments.limit
    );
    let command = shell(&arguments.command);
    let mut ended = machine.run(&command)?;
    for attempt in 2..=ATTEMPTS {
        if !was_left(&ended) {
            break;
        }
        eprintln!(
            "vm: the guest was up and its agent too slow for vmtest: attempt {attempt} of {ATTEMPTS}"
        );
        ended = machine.run(&command)?;
    }
    let status = judge(&ended, arguments);
    if let Some(path) = &arguments.log {
        let log = ended.dmesg.as_ref().unwrap_or(&ended.serial);
        fs::write(path, log).with_context(|| format!("cannot write {}", path.display()))?;
        if ended.status.is_none() || status == status::SPLAT {
            eprintln!("vm: all that the kernel said: {}", path.display());
        }
    }
    Ok(status)
}

/// vmtest waits 5 s for each answer of the guest's agent, which an emulated debug
/// kernel on a busy machine may need longer for.
const ATTEMPTS: u32 = 3;

/// The guest came up, vmtest gave up on it, and the command had not begun.
fn was_left(ended: &Ended) -> bool {
    let logs_are_clean = splat::find(&ended.serial).is_empty();
    let began = ended.status.is_some() || !ended.booted.is_empty();
    ended.trouble.is_some() && ended.serial.contains(READY) && !began && logs_are_clean
}

/// The command as a shell takes it.
fn shell(words: &[String]) -> String {
    match words {
        [script] => script.clone(),
        words => {
            let quoted = words
                .iter()
                .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
            quoted.collect::<Vec<_>>().join(" ")
        }
    }
}

/// Says how it went, and gives the exit status.
fn judge(ended: &Ended, arguments: &Arguments) -> u8 {
    let took = ended.took.as_secs_f64();
    let logs = [ended.dmesg.as_deref().unwrap_or_default(), &ended.serial];
    let splats = logs.map(splat::find);
    let splat = splats.iter().find(|splat| !splat.is_empty());
    if let Some(splat) = splat {
        eprintln!("vm: the kernel found a fault:\n{}", splat.join("\n"));
    }
    let lockdep = ended.lockdep_stats.as_deref().unwrap_or_default();
    let lockdep_lost = arguments.lockdep && ended.status.is_some() && !splat::lockdep_on(lockdep);
    if lockdep_lost {
        eprintln!("vm: /proc/lockdep_stats does not say `debug_locks: 1`: lockdep is off, or was switched off");
    }

    match ended.status {
        _ if splat.is_some() || lockdep_lost => {
            eprintln!(
                "vm: FAILED: {took:.1} s, command's exit status {:?}",
                ended.status
            );
            status::SPLAT
        }
        Some(status) => {
            let locks = if arguments.lockdep {
                ", lockdep on"
            } else {
                ""
            };
            eprintln!(
                "vm: exit status {status}; boot {} s, everything {took:.1} s; kernel log clean{locks}",
                ended.booted
            );
            u8::try_from(status).unwrap_or(u8::MAX)
        }
        None if ended.took.as_secs() >= u64::from(arguments.limit) => {
            eprintln!("vm: FAILED: not done after {} s", arguments.limit);
            tail(ended);
            status::TIME
        }
        None => {
            match &ended.trouble {
                Some(trouble) => eprintln!("vm: FAILED: the machine went away: {trouble:#}"),
                None => eprintln!("vm: FAILED: the machine gave no exit status"),
            }
            tail(ended);
            status::MACHINE
        }
    }
}

/// Shows the end of what the machine said.
fn tail(ended: &Ended) {
    eprint!("{}", ended.qemu);
    let lines: Vec<&str> = ended.serial.lines().collect();
    let first = lines.len().saturating_sub(30);
    eprintln!("{}", lines[first..].join("\n"));
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn one_word_is_a_script_and_more_are_a_program() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shell(&words(&["echo $((1 + 1)); false"])),
            "echo $((1 + 1)); false"
        );
        assert_eq!(shell(&words(&["echo", "it's"])), r"'echo' 'it'\''s'");
    }
}
