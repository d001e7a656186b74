//! Constant UTF-16 strings.

use wdk_sys::UNICODE_STRING;

/// A constant string in UTF-16, made at compile time from ASCII.
#[derive(Debug)]
pub struct Utf16<const N: usize>([u16; N]);

impl<const N: usize> Utf16<N> {
    /// Converts `text`, which must be ASCII and of length `N`; in a constant, anything else does not compile.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        assert!(bytes.len() == N, "N is the text's length");
        let mut units = [0; N];
        let mut at = 0;
        while at < N {
            assert!(bytes[at].is_ascii(), "only ASCII");
            units[at] = bytes[at] as u16;
            at += 1;
        }
        Self(units)
    }

    /// A UNICODE_STRING over it. The kernel functions that get one take it as constant.
    pub(crate) const fn as_unicode_string(&'static self) -> UNICODE_STRING {
        let bytes = (N * 2) as u16;
        UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: self.0.as_ptr().cast_mut() }
    }
}

/// A `&'static Utf16` of a constant `&str`.
#[macro_export]
macro_rules! utf16 {
    ($text:expr) => {{
        const UNITS: $crate::text::Utf16<{ $text.len() }> = $crate::text::Utf16::new($text);
        static TEXT: $crate::text::Utf16<{ $text.len() }> = UNITS;
        &TEXT
    }};
}
