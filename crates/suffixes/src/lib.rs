//! Public suffixes, below which anybody can register names (publicsuffix.org).
//!
//! A separate crate because the list is two megabytes of code, inlined into its callers.

/// Whether a name in lower case is itself a public suffix of the list: `com`, `co.uk`, `github.io`.
#[must_use]
#[inline(never)]
pub fn is_public_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_whole_and_known() {
        for suffix in ["com", "co.uk", "github.io"] {
            assert!(is_public_suffix(suffix), "{suffix}");
        }
        for name in ["example.com", "example.co.uk", "nosuchtopleveldomain", ""] {
            assert!(!is_public_suffix(name), "{name}");
        }
    }
}
