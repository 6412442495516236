//! Facts about the running kernel: its version, for the few things that it does
//! not say in another way, and its page size.

/// True on Linux `major.minor` and later.
pub(crate) fn at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    parse(&name.release().to_string_lossy()) >= Some((major, minor))
}

/// The base-2 logarithm of the machine's base page size.
pub(crate) fn page_shift() -> u8 {
    rustix::param::page_size().trailing_zeros() as u8
}

/// `6.12.117-cloud-amd64` is (6, 12).
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(parse("7.2-rc1"), Some((7, 2)));
        assert!(parse("6.9.0") < Some((6, 18)));
        assert_eq!(parse("kernel"), None);
    }
}
