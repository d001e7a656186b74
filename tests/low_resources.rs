//! Every fallible import of the driver fails once for each call stack that leads to it, over a whole life cycle:
//! install, policy, connections, a swap that revokes a flow, events, unload. Whatever fails, the machine stays up,
//! nothing leaks, and a policy in force stays in force.

#[path = "support/hello.rs"]
mod hello;
#[path = "support/passing.rs"]
mod passing;
#[path = "support/quic.rs"]
mod quic;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{ops::ControlFlow, sync::Arc};

use ntsim::{
    host::LocalHost,
    machine::{Config, Machine},
    verifier::low_resources::survey,
};
use passing::{BY_POLICY, ESSENTIAL, POLICY, closed, passes};
use shim::{layer::Direction, stack::Verdict};
use sluice_control::{
    EventOptions, events, install,
    install::{Options, install_with},
    load_image, status, uninstall,
};
use sluice_host::Host;
use sluice_protocol::{KEPT_POLICY, SERVICE_NAME};
use support::{BLOCK_ALL, Rig, driver};
use wire::{Segment, Wire, udp};

/// Permits everything but a name.
const NAMES: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\nlog = true\n\
                     [[rule]]\nname = \"ads\"\naction = \"block\"\nremote-name = \"ads.example\"\n";

/// One life cycle; every step may fail, none may do harm.
fn live(machine: &Arc<Machine>, permit: &[u8], block: &[u8]) -> Result<(), String> {
    let host = LocalHost::new(machine.clone());
    if install(&host, &driver()).is_ok() {
        let policy = || status(&host).ok().and_then(|status| status.driver).and_then(|driver| driver.policy);
        let mut wire = Wire::new(machine);
        for image in [permit, block, permit] {
            let before = policy();
            let loaded = load_image(&host, image);
            if loaded.is_err() && policy() != before {
                return Err("a policy that failed to load has changed the one in force".to_owned());
            }
            let (verdict, mut tcp) = wire.connect("203.0.113.10", 443);
            if verdict == Verdict::Forward {
                wire.receive(&mut tcp, Segment::SynAck);
                wire.send(&mut tcp, Segment::Ack);
                wire.send(&mut tcp, Segment::Data(b"hello"));
            }
            let (verdict, mut tcp) = wire.connect("203.0.113.10", 80);
            if verdict == Verdict::Forward {
                wire.receive(&mut tcp, Segment::SynAck);
                wire.send(&mut tcp, Segment::Data(b"GET / HTTP/1.1\r\nHo"));
                wire.send(&mut tcp, Segment::Data(b"st: news.example\r\n\r\n"));
            }
            let hello = quic::initial(0, &quic::crypto(&hello::message("news.example", 1500), 0, 900));
            wire.pass(&udp("203.0.113.10", 443, Direction::Outbound, &hello), Direction::Outbound);
            for (message, direction) in [
                (hello::question(1, "news.example"), Direction::Outbound),
                (
                    hello::answer(1, "news.example", &[("news.example", 1, 60, vec![203, 0, 113, 10])]),
                    Direction::Inbound,
                ),
            ] {
                wire.pass(&udp("203.0.113.53", 53, direction, &message), direction);
            }
            wire.pass(&udp("2001:db8:1::10", 53, Direction::Outbound, b"?"), Direction::Outbound);
        }
        // Having no event is fine too: the point is that asking does no harm.
        let _ = events(&host, &EventOptions::default(), &mut |_| ControlFlow::Continue(()));
        wire.finish();
    }
    machine.low_resources.disable();
    uninstall(&host).map_err(|error| format!("it does not uninstall: {error}"))?;
    if let Some(report) = host.unload_reports().iter().find(|report| !report.is_clean()) {
        return Err(format!("it left behind: {report}"));
    }
    machine.stopped().map_or(Ok(()), |bugcheck| Err(bugcheck.to_string()))
}

/// The start of a machine that fails closed, without a policy and with a kept one. Whatever fails, nothing passes that is
/// not by the policy, once the filters are there.
fn start_closed(machine: &Arc<Machine>, policy: &[u8]) -> Result<(), String> {
    let host = LocalHost::new(machine.clone());
    let (fail, driver) = (closed(), driver());
    let installed = install_with(&host, &Options { fail: Some(&fail), ..Options::of(&driver) }).is_ok();
    let is_closed = |when: &str| match passes(&host) {
        ESSENTIAL | BY_POLICY => Ok(()),
        now => {
            if installed {
                Err(format!("{when} it is open: {now:?}"))
            } else {
                Ok(())
            }
        }
    };
    is_closed("without a policy")?;
    let _ = host.stop_service(SERVICE_NAME);
    machine.disk.write(KEPT_POLICY, policy);
    let _ = host.start_service(SERVICE_NAME);
    is_closed("with a kept policy")?;
    machine.low_resources.disable();
    uninstall(&host).map_err(|error| format!("it does not uninstall: {error}"))?;
    if let Some(report) = host.unload_reports().iter().find(|report| !report.is_clean()) {
        return Err(format!("it left behind: {report}"));
    }
    machine.stopped().map_or(Ok(()), |bugcheck| Err(bugcheck.to_string()))
}

#[test]
fn a_machine_that_fails_closed_stays_closed_whatever_fails_at_its_start() {
    let rig = Rig::install();
    let policy = rig.compile(POLICY);
    rig.uninstall();
    let survey = survey(&Config::default(), |machine| start_closed(machine, &policy)).expect("the start is sound");
    let casualties: Vec<_> = survey.casualties.iter().map(|(site, what)| format!("{site}: {what}")).collect();
    assert!(casualties.is_empty(), "{}", casualties.join("\n"));
    let imports: Vec<_> = survey.failed.iter().map(|site| site.import.as_str()).collect();
    for import in ["ZwOpenFile", "ZwReadFile", "FwpmBfeStateSubscribeChanges0", "FwpsCalloutRegister"] {
        assert!(imports.contains(&import), "{import} never failed: {imports:?}");
    }
}

#[test]
fn every_failing_call_stack_is_survived() {
    let rig = Rig::install();
    let (permit, block) = (rig.compile(NAMES), rig.compile(BLOCK_ALL));
    rig.uninstall();
    let survey = survey(&Config::default(), |machine| live(machine, &permit, &block)).expect("the life cycle is sound");
    let casualties: Vec<_> = survey.casualties.iter().map(|(site, what)| format!("{site}: {what}")).collect();
    assert!(casualties.is_empty(), "{}", casualties.join("\n"));
    let imports: Vec<_> = survey.failed.iter().map(|site| site.import.as_str()).collect();
    for import in ["ExAllocatePool2", "FwpsCalloutRegister", "FwpsFlowAssociateContext0"] {
        assert!(imports.contains(&import), "{import} never failed: {imports:?}");
    }
    eprintln!("{} call stacks failed, {} survived", survey.stacks(), survey.survived());
}
