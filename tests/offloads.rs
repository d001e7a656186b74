//! What sluice.sys leaves to the network card.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use sluice_host::Guid;
use sluice_protocol::object::CALLOUTS;
use support::{PERMIT_ALL, Rig};

/// A driver without these flags is known to halve the rate of a fast network card.
#[test]
fn no_offload_is_disabled_by_the_driver() {
    let rig = Rig::with_policy(PERMIT_ALL);
    assert_eq!(rig.machine.wfp.engine.refused_offloads(), []);
    let callouts = &rig.machine.wfp.engine.callouts;
    for object in &CALLOUTS {
        assert!(callouts.by_key(Guid(object.callout)).is_some_and(|slot| slot.is_registered()), "{}", object.name);
    }
    rig.uninstall();
}
