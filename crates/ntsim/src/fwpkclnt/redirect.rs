//! Redirect handles: a callout sets one on a connection that it redirects, to recognize it later.

use super::handle::Handles;
use sluice_host::Guid;

/// `FWPS_CONNECTION_REDIRECT_STATE` (fwpsk.h): its first value. The others are for connections with redirect records,
/// of which the stack makes none.
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

    /// Whether the handle is valid.
    #[must_use]
    pub fn exists(&self, handle: u64) -> bool {
        self.0.get(handle).is_some()
    }

    /// Destroys a handle; false when it is not valid.
    pub fn destroy(&self, handle: u64) -> bool {
        self.0.remove(handle).is_some()
    }

    /// The number of handles.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
