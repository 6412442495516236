//! Numbers in a text, each taken from the front of what is left of it. `None` where
//! there is no number, or one that is too large.

/// `4096`
#[inline]
pub(super) fn decimal(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut any) = (0_u64, false);
    while let Some((&byte @ b'0'..=b'9', after)) = rest.split_first() {
        let digit = u64::from(byte - b'0');
        number = number.checked_mul(10)?.checked_add(digit)?;
        (*rest, any) = (after, true);
    }
    any.then_some(number)
}

/// `-1`
#[inline]
pub(super) fn signed(rest: &mut &[u8]) -> Option<i64> {
    match rest.strip_prefix(b"-") {
        Some(after) => {
            *rest = after;
            0_i64.checked_sub_unsigned(decimal(rest)?)
        }
        None => decimal(rest)?.try_into().ok(),
    }
}

/// `7f00dead`, as the kernel prints it: in lower case, without a prefix.
#[inline]
pub(super) fn hex(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut any) = (0_u64, false);
    while let Some((&byte, after)) = rest.split_first() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => break,
        };
        if number >> 60 != 0 {
            return None;
        }
        number = number << 4 | u64::from(digit);
        (*rest, any) = (after, true);
    }
    any.then_some(number)
}

/// The blanks that a number is aligned by.
#[inline]
pub(super) fn skip_spaces(rest: &mut &[u8]) {
    while let Some(after) = rest.strip_prefix(b" ") {
        *rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_ends_where_its_digits_end() {
        let mut rest = &b"12ab/7"[..];
        assert_eq!((decimal(&mut rest), rest), (Some(12), &b"ab/7"[..]));
        assert_eq!((hex(&mut rest), rest), (Some(0xab), &b"/7"[..]));
        assert_eq!((hex(&mut rest), rest), (None, &b"/7"[..]));
    }

    #[test]
    fn what_does_not_fit_is_none() {
        for text in ["18446744073709551616", "99999999999999999999999", "", "-1"] {
            assert_eq!(decimal(&mut text.as_bytes()), None, "{text}");
        }
        for text in ["10000000000000000", "", "x"] {
            assert_eq!(hex(&mut text.as_bytes()), None, "{text}");
        }
        for text in ["9223372036854775808", "-9223372036854775809", "-", "--1"] {
            assert_eq!(signed(&mut text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(number: u64, sign: i64) {
            let read = |by: fn(&mut &[u8]) -> Option<u64>, text: String| by(&mut text.as_bytes());
            prop_assert_eq!(read(decimal, number.to_string()), Some(number));
            prop_assert_eq!(read(hex, format!("{number:x}")), Some(number));
            prop_assert_eq!(signed(&mut sign.to_string().as_bytes()), Some(sign));
        }
    }
}
