//! A program suspends its thread while the driver decides for it: neither an administrator's command nor anybody's
//! events may wait for that.

use std::{ops::ControlFlow, sync::mpsc, thread, time::Duration};

use ntsim::cpu::suspend::Suspension;
use shim::stack::Verdict;
use sluice_control::{EventOptions, Item, device::Control, events, load_image, status};

use crate::{
    support::{BLOCK_ALL, PERMIT_ALL, Rig},
    wire::Wire,
};

/// Whatever takes longer waits for the suspended thread.
const PATIENCE: Duration = Duration::from_secs(20);
/// One of this many driver instructions is tried.
const STRIDE: usize = 5;

/// Loads, queries and reads while the thread is suspended.
fn administer(rig: &Rig, image: &[u8], at: u64) {
    load_image(&rig.host, image).expect("the policy loads");
    status(&rig.host).expect("a status");
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse, "instruction {at}: the new policy decides");
    let mut seen = false;
    events(&rig.host, &EventOptions::default(), &mut |item| {
        seen |= matches!(item, Item::Event(event) if event.remote_address.to_string() == "203.0.113.66");
        ControlFlow::Continue(())
    })
    .expect("events");
    assert!(seen, "instruction {at}: the event of a later decision is there");
}

#[test]
fn at_any_instruction_of_a_decision() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let (permit, block) = (rig.compile(PERMIT_ALL), rig.compile(BLOCK_ALL));
    let (watcher, _) = Control::open(&rig.host).expect("the device opens");
    watcher.record_all().expect("every decision");
    let mut suspended = 0;
    for at in (0..).step_by(STRIDE) {
        load_image(&rig.host, &permit).expect("the policy loads");
        let suspension = Suspension::at(at);
        let there = thread::scope(|scope| {
            let victim = scope.spawn(|| {
                let mut wire = Wire::new(&rig.machine);
                suspension.run(|| wire.connect("203.0.113.10", 443).0)
            });
            let there = suspension.wait();
            if there {
                let (done, is_done) = mpsc::channel::<()>();
                let administrator = scope.spawn(|| {
                    administer(&rig, &block, at);
                    drop(done);
                });
                let waited = is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
                suspension.resume();
                administrator.join().expect("the administrator");
                assert!(!waited, "instruction {at}: the administrator waits for a suspended thread");
            }
            victim.join().expect("the victim");
            there
        });
        if !there {
            break;
        }
        suspended += 1;
    }
    drop(watcher);
    eprintln!("suspended at {suspended} instructions");
    assert!(suspended > 5, "only {suspended} instructions of the driver below DISPATCH_LEVEL");
    rig.uninstall();
}
