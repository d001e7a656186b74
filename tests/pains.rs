//! What drivers of this kind have got wrong: each mistake has a test of its name, here or beside what it is about
//! (SPECIFICATION.md lists them). On the real driver in ntsim, whose verifier ends a test at the first fault.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ntsim::{
    machine::Machine,
    trace::{Form, Tracer},
};
use shim::{layer::Direction, stack::Verdict};
use sluice_control::{load_image, objects, uninstall};
use sluice_host::{Host, ServiceState};
use sluice_protocol::SERVICE_NAME;
use support::{BLOCK_ALL, PERMIT_ALL, Rig, driver};
use wire::{Segment, Tcp, Wire, ping, udp};

const REMOTE: &str = "203.0.113.10";

/// The filter engine holds a flow's context until flowDeleteFn: while a classify with it runs on another processor, a
/// policy swaps and the flow ends. Freed memory is unusable in ntsim, and a second free stops the machine.
#[test]
fn a_flow_context_that_wfp_still_holds_is_not_freed() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let images = [PERMIT_ALL, BLOCK_ALL].map(|policy| rig.compile(policy));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut wire = Wire::new(&rig.machine);
                    let (mut verdict, mut tcp) = wire.connect(REMOTE, 443);
                    for (inbound, segment) in
                        [(true, Segment::SynAck), (false, Segment::Ack), (false, Segment::Data(b"x"))]
                    {
                        if verdict == Verdict::Forward {
                            verdict =
                                if inbound { wire.receive(&mut tcp, segment) } else { wire.send(&mut tcp, segment) };
                        }
                    }
                    wire.finish();
                }
            });
        }
        for image in images.iter().cycle().take(100) {
            load_image(&rig.host, image).expect("every swap succeeds");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(rig.counter("flows_opened") > 0);
    assert_eq!(rig.counter("flows_opened"), rig.counter("flows_closed"), "each is freed once, when its flow has ended");
    assert_eq!(rig.machine.wfp.engine.flows.context_count(), 0);
    rig.uninstall();
}

/// Flows end on three processors in the very moment in which the driver takes its contexts away.
#[test]
fn an_unload_that_races_with_flow_deletion_frees_everything_once() {
    for round in 0..5 {
        let rig = Rig::with_policy(PERMIT_ALL);
        let machine = rig.machine.clone();
        let (established, unloading) = (Barrier::new(4), Barrier::new(4));
        thread::scope(|scope| {
            for number in 1..=3 {
                let (machine, established, unloading) = (&machine, &established, &unloading);
                scope.spawn(move || {
                    let mut wire = Wire::new(machine);
                    (0..60).for_each(|port| _ = wire.establish(REMOTE, number * 100 + port));
                    established.wait();
                    unloading.wait();
                    wire.finish();
                });
            }
            established.wait();
            assert_eq!(rig.counter("flows_opened"), 180, "round {round}");
            unloading.wait();
            rig.uninstall();
        });
        assert!(machine.stopped().is_none());
    }
}

/// With flows alive, a read that waits, and packets that keep coming.
#[test]
fn an_unload_does_not_hang() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let machine = rig.machine.clone();
    let device = rig.host.open_device(sluice_protocol::DEVICE_PATH).expect("the device opens");
    assert_eq!(device.read(&mut [0; 256], Duration::from_millis(10)), Ok(0));
    drop(device);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut wire = Wire::new(&machine);
                let mut tcp = wire.establish(REMOTE, 443);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(wire.send(&mut tcp, Segment::Data(b"more")), Verdict::Forward);
                }
                wire.finish();
            });
        }
        rig.uninstall(); // which would not return
        stop.store(true, Ordering::Relaxed);
    });
}

/// The power fails while filters are there and the service is half gone; what is left is found again and removed.
#[test]
fn no_filter_is_orphaned_by_a_crash() {
    let rig = Rig::with_policy(BLOCK_ALL);
    rig.host.delete_service(SERVICE_NAME).expect("it is marked for deletion");
    let host = rig.host.restart();
    let filters = |what: &str| {
        let mut engine = host.open_engine().expect("the engine opens");
        engine.filters(Some(objects::PROVIDER)).expect(what).len()
    };
    assert_eq!(host.service_state(SERVICE_NAME), Ok(ServiceState::Absent));
    assert!(filters("a list") > 0, "they are persistent, and outlive their driver");
    uninstall(&host).expect("without a service it removes the rest");
    assert_eq!(filters("a list"), 0);
    sluice_control::install(&host, &driver()).expect("and nothing is in the way of another installation");
    uninstall(&host).expect("it uninstalls");
}

/// Windows asks again when its policy has changed: an answer from before does not hold.
#[test]
fn a_reauthorization_is_not_ignored() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let mut wire = Wire::new(&rig.machine);
    // A connection of which the driver keeps nothing: it is decided when Windows asks, and only then.
    let outbound =
        |wire: &mut Wire| wire.pass(&udp(REMOTE, 99, Direction::Outbound, b"x"), Direction::Outbound).verdict;
    assert_eq!(outbound(&mut wire), Verdict::Forward);
    let before = rig.counter("reauthorizations");
    rig.load(BLOCK_ALL);
    assert_ne!(outbound(&mut wire), Verdict::Forward, "after a new policy");
    rig.load(PERMIT_ALL);
    assert_eq!(outbound(&mut wire), Verdict::Forward, "and after another one");
    assert!(rig.counter("reauthorizations") > before, "Windows has asked again");
    wire.finish();
    rig.uninstall();
}

/// What the machine writes of the driver's calls.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every handle of the filter engine is opened, used and closed by one thread, with several that load policies at once.
#[test]
fn no_engine_handle_is_shared_by_threads() {
    let (machine, lines) = (Machine::new(), Lines::default());
    let tracer = Tracer::new(Box::new(lines.clone()), Form::Json, &["Fwpm*".to_owned()]);
    machine.hooks.trace(tracer).expect("the first tracer");
    let rig = Rig::on(machine);
    let image = rig.compile(PERMIT_ALL);
    thread::scope(|scope| {
        for _ in 0..3 {
            // Another one may be loading: then it is refused.
            scope.spawn(|| (0..10).for_each(|_| drop(load_image(&rig.host, &image))));
        }
    });
    rig.uninstall();
    let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("UTF-8");
    let mut open: BTreeMap<u64, bool> = BTreeMap::new();
    let mut sessions = 0;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if line["event"] != "call" {
            continue;
        }
        let open = open.entry(line["thread"].as_u64().expect("a number")).or_default();
        match line["function"].as_str().expect("a name") {
            "FwpmEngineOpen0" => {
                assert!(!*open, "one at a time");
                (*open, sessions) = (true, sessions + 1);
            }
            "FwpmEngineClose0" => assert!(std::mem::take(open), "closed by who opened it"),
            name if name.starts_with("FwpmBfeState") => {}
            name => assert!(*open, "{name} by a thread that has opened no engine"),
        }
    }
    assert!(sessions > 0, "policies make Windows reauthorize");
    assert!(open.values().all(|open| !open), "none is left open");
}

/// What a life allocates is freed: 50 times everything, and after each the pool has what it had.
#[test]
fn the_pool_does_not_leak() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let names = rig.compile(
        "[default]\noutbound = \"permit\"\ninbound = \"permit\"\n[[rule]]\nname = \"ads\"\naction = \"block\"\n\
         remote-name = \"ads.example\"\n",
    );
    let permit = rig.compile(PERMIT_ALL);
    let mut blocks = Vec::new();
    for _ in 0..50 {
        for image in [&names, &permit] {
            load_image(&rig.host, image).expect("it loads");
            let mut wire = Wire::new(&rig.machine);
            let mut tcp = wire.establish(REMOTE, 80);
            wire.send(&mut tcp, Segment::Data(b"GET / HTTP/1.1\r\nHo")); // half of a name
            wire.pass(&udp(REMOTE, 53, Direction::Outbound, b"?"), Direction::Outbound);
            wire.finish();
        }
        blocks.push(rig.machine.pool.usage().0);
    }
    // The first rounds fill what stays: the names of policies that are no longer in force, the learned names.
    assert_eq!(blocks.last(), blocks.get(20), "{blocks:?}");
    rig.uninstall(); // which counts what is left then: nothing
}

/// Inbound packets come at DISPATCH_LEVEL. ntsim stops the machine at a call above a function's level.
#[test]
fn no_function_is_called_at_too_high_an_irql() {
    let rig = Rig::with_policy(
        "[default]\nlog = true\n[[rule]]\nname = \"ads\"\naction = \"block\"\nremote-name = \"ads.example\"\n",
    );
    let verdicts = |irql: nt_abi::Irql| {
        let mut wire = Wire::new(&rig.machine).at(irql);
        let mut verdicts = Vec::new();
        for remote in [REMOTE, "2001:db8:1::10"] {
            let mut tcp = wire.establish(remote, 80);
            for data in [&b"GET / HTTP/1.1\r\nHo"[..], b"st: news.example\r\n\r\n", b"more"] {
                verdicts.push(wire.send(&mut tcp, Segment::Data(data)));
            }
            let mut blocked = wire.establish(remote, 80);
            verdicts.push(wire.send(&mut blocked, Segment::Data(b"GET / HTTP/1.1\r\nHost: ads.example\r\n\r\n")));
            for (port, data) in [(53, &b"no question"[..]), (443, b"no hello")] {
                for direction in [Direction::Outbound, Direction::Inbound] {
                    verdicts.push(wire.pass(&udp(remote, port, direction, data), direction).verdict);
                }
            }
            verdicts.push(wire.pass(&ping(remote), Direction::Outbound).verdict);
            let mut knock = Tcp::new(remote, 50_000, 22);
            verdicts.push(wire.receive(&mut knock, Segment::Syn));
        }
        wire.finish();
        verdicts
    };
    let at_passive = verdicts(nt_abi::Irql::PASSIVE);
    assert!(at_passive.contains(&Verdict::Abort) && at_passive.contains(&Verdict::Forward));
    assert_eq!(verdicts(nt_abi::Irql::DISPATCH), at_passive, "at any level the same");
    rig.uninstall();
}
