//! Redirect handles: what a callout puts into a connection that it redirects, to know it again.

use super::handle::Handles;
use sluice_host::Guid;

/// `FWPS_CONNECTION_REDIRECT_STATE` (fwpsk.h): the first of its values. The others belong to connections that a callout
/// redirected, and the stack asks at no redirect layer.
pub const NOT_REDIRECTED: u32 = 0;

/// The redirect handles of one machine, each with the provider it was made for.
#[derive(Debug)]
pub struct Redirects(Handles<Guid>);

impl Default for Redirects {
    fn default() -> Self {
        Self(Handles::new(0x5_0000_0000))
    }
}

impl Redirects {
    /// A new handle.
    #[must_use]
    pub fn create(&self, provider: Guid) -> u64 {
        self.0.add(provider)
    }

    /// Whether it is a handle.
    #[must_use]
    pub fn exists(&self, handle: u64) -> bool {
        self.0.get(handle).is_some()
    }

    /// Ends a handle; false when it is none.
    pub fn destroy(&self, handle: u64) -> bool {
        self.0.remove(handle).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
