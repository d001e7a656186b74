//! The policy that is kept for the next start of the driver: its image, in a file beside the driver's.
//!
//! A policy is kept only when the driver has accepted it, and the file is replaced whole: first the new image is written
//! beside it and flushed, then the driver gets the policy, then the file gets its name. Whatever is interrupted, the
//! file holds the old policy or the new one.

use crate::error::ControlError;
use crate::status::identity;
use serde::Serialize;
use sluice_host::{Host, HostError, HostResult, code};
use sluice_policy::Image;

/// The kept image's name in the drivers folder.
pub const FILE: &str = "sluice.policy";
/// An image that is not in place yet.
pub(crate) const NEW: &str = "sluice-new.policy";

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptPolicy {
    /// How large its image is, in bytes; 0 when it cannot be read.
    pub bytes: u64,
    /// Its identity, as `sluice load` printed it; none when it is damaged.
    pub identity: Option<String>,
    /// How many rules it has; none when it is damaged.
    pub rules: Option<u32>,
    /// Why the driver would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Looks at the kept policy; `None` when there is none. What cannot be read is damaged.
pub(crate) fn look(host: &dyn Host) -> Option<KeptPolicy> {
    let damaged = |bytes, why| KeptPolicy { bytes, identity: None, rules: None, damaged: Some(why) };
    let content = match host.read_driver(FILE) {
        Ok(content) => content?,
        Err(error) => return Some(damaged(0, error.to_string())),
    };
    let bytes = content.len() as u64;
    Some(match Image::validate(content) {
        Ok(image) => KeptPolicy {
            bytes,
            identity: Some(identity(&image.identity())),
            rules: Some(image.rule_count()),
            damaged: None,
        },
        Err(why) => damaged(bytes, why.to_string()),
    })
}

/// The bundle that was applied last ([`apply`](crate::apply)): what a machine has is never older.
pub const BUNDLE_FILE: &str = "sluice.bundle";
/// A bundle that is not in place yet.
pub(crate) const BUNDLE_NEW: &str = "sluice-new.bundle";

/// A file in the drivers folder that is replaced whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    file: &'static str,
    new: &'static str,
}

/// Where the policy's image is kept.
pub(crate) const POLICY: Place = Place { file: FILE, new: NEW };
/// Where the applied bundle is kept.
pub(crate) const BUNDLE: Place = Place { file: BUNDLE_FILE, new: BUNDLE_NEW };

impl Place {
    /// Writes what is to be kept beside what is, and flushes it.
    pub(crate) fn write(self, host: &dyn Host, content: &[u8]) -> Result<(), ControlError> {
        let failed = || ControlError::step("writing the policy to keep");
        self.discard(host).map_err(failed())?;
        host.write_driver(self.new, content).map_err(failed())
    }

    /// Puts `content`, which was written, in place.
    ///
    /// # Errors
    /// A call failed, or another program has written something else meanwhile, which the driver may not have accepted.
    pub(crate) fn place(self, host: &dyn Host, content: &[u8]) -> HostResult<()> {
        if host.read_driver(self.new)?.as_deref() != Some(content) {
            return Err(HostError::new("keeping the policy beside another load", code::ERROR_BUSY));
        }
        host.rename_driver(self.new, self.file)
    }

    /// Deletes what was written and not put in place, or was left by an interruption.
    pub(crate) fn discard(self, host: &dyn Host) -> HostResult<()> {
        delete(host, self.new)
    }

    /// Keeps this content again, or none, after a later step has failed.
    pub(crate) fn restore(self, host: &dyn Host, content: Option<&[u8]>) -> HostResult<()> {
        self.discard(host)?;
        match content {
            _ if self.read(host)?.as_deref() == content => Ok(()),
            Some(content) => host.write_driver(self.new, content).and_then(|()| self.place(host, content)),
            None => delete(host, self.file),
        }
    }

    /// What is kept.
    pub(crate) fn read(self, host: &dyn Host) -> HostResult<Option<Vec<u8>>> {
        host.read_driver(self.file)
    }
}

fn delete(host: &dyn Host, file: &str) -> HostResult<()> {
    // One that cannot be read is deleted all the same.
    if matches!(host.read_driver(file), Ok(None)) { Ok(()) } else { host.delete_driver(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{file, machine};
    use crate::policy::{Loading, load, load_with};
    use crate::testing::Memory;
    use sluice_protocol::status::PolicyReply;

    const FIRST: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n";
    const SECOND: &str = "[default]\noutbound = \"block\"\ninbound = \"block\"\n";
    const ONCE: Loading = Loading { once: true, ..Loading::DEFAULT };

    fn in_force(memory: &Memory) -> Vec<u8> {
        memory.driver.lock().unwrap().policies.last().cloned().unwrap_or_default()
    }

    fn kept(memory: &Memory) -> Option<Vec<u8>> {
        assert!(!memory.files.borrow().contains_key(NEW), "nothing half done stays");
        memory.files.borrow().get(FILE).cloned()
    }

    #[test]
    fn what_is_loaded_is_kept_and_once_is_not() {
        let memory = machine();
        let report = load(&memory, file(FIRST).path()).unwrap();
        assert!(report.kept);
        assert_eq!(kept(&memory), Some(in_force(&memory)));
        let first = kept(&memory);
        let report = load_with(&memory, file(SECOND).path(), ONCE).unwrap();
        assert!(!report.kept);
        assert_eq!(kept(&memory), first);
        assert_ne!(Some(in_force(&memory)), first);
    }

    #[test]
    fn what_the_driver_refuses_is_never_kept() {
        let memory = machine();
        load(&memory, file(FIRST).path()).unwrap();
        let first = kept(&memory);
        memory.driver.lock().unwrap().reply = PolicyReply::refused(1, &"no");
        load(&memory, file(SECOND).path()).unwrap_err();
        assert_eq!(kept(&memory), first);
    }

    /// Each call that changes something fails once. Either nothing has changed, or the new policy is in force and it is
    /// said that it is not kept; and the next load finishes.
    #[test]
    fn a_load_that_fails_at_any_step_keeps_the_old_policy_or_the_new() {
        let loaded = || {
            let memory = machine();
            load(&memory, file(FIRST).path()).unwrap();
            memory.files.borrow_mut().insert(NEW.to_owned(), b"left by an interruption".to_vec());
            memory.calls.borrow_mut().clear();
            memory
        };
        let whole = {
            let memory = loaded();
            load(&memory, file(SECOND).path()).unwrap();
            memory.calls.take()
        };
        assert!(whole.contains(&"MoveFileExW"), "{whole:?}");
        for (call, name) in whole.iter().enumerate() {
            let memory = loaded();
            let before = (kept(&loaded_without_remains(&memory)), in_force(&memory));
            memory.fail_at.set(Some(call));
            match load(&memory, file(SECOND).path()) {
                Ok(report) => assert_eq!((*name, report.lacks.len()), ("FwpmEngineOpen0", 1)),
                Err(ControlError::NotKept { .. }) => {
                    assert_eq!((*name, memory.files.borrow().get(FILE).cloned()), ("MoveFileExW", before.0));
                    assert_ne!(in_force(&memory), before.1);
                }
                Err(error) => {
                    let state = (memory.files.borrow().get(FILE).cloned(), in_force(&memory));
                    assert_eq!(state, before, "call {call}, {name}: {error}");
                }
            }
            memory.fail_at.set(None);
            load(&memory, file(SECOND).path()).unwrap();
            assert_eq!(kept(&memory), Some(in_force(&memory)), "call {call}, {name}");
        }
    }

    fn loaded_without_remains(memory: &Memory) -> Memory {
        let without = machine();
        without.files.replace(memory.files.borrow().clone());
        without.files.borrow_mut().remove(NEW);
        without
    }

    /// Two programs load at once: only what its own driver request accepted is kept.
    #[test]
    fn an_image_of_another_load_is_not_put_in_place() {
        let memory = machine();
        load(&memory, file(FIRST).path()).unwrap();
        let first = kept(&memory).unwrap();
        POLICY.write(&memory, b"ours").unwrap();
        POLICY.write(&memory, b"another's").unwrap();
        assert_eq!(POLICY.place(&memory, b"ours").unwrap_err().code, code::ERROR_BUSY);
        assert_eq!(memory.files.borrow().get(FILE), Some(&first));
    }

    #[test]
    fn a_damaged_file_is_seen() {
        let memory = machine();
        assert_eq!(look(&memory), None);
        let report = load(&memory, file(FIRST).path()).unwrap();
        let found = look(&memory).unwrap();
        assert_eq!((found.identity, found.rules, found.damaged), (Some(report.identity), Some(0), None));
        memory.files.borrow_mut().get_mut(FILE).unwrap().pop();
        let found = look(&memory).unwrap();
        assert!(found.identity.is_none() && found.damaged.is_some(), "{found:?}");
        memory.unreadable.set(Some(FILE));
        assert!(look(&memory).unwrap().damaged.unwrap().contains("too long"));
    }
}
