//! Every check of the simulated kernel can fail: drivers with one defect each (driver/planted/examples), and one
//! without any, in which nothing may be found.
//!
//! `./dev test` builds them; so does `cargo xtask build --only planted`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use filter_engine::layers::LayerId;
use filter_engine::{Classify, LayerData, Outcome};
use nt_abi::Irql;
use nt_abi::PacketBuffer;
use nt_abi::fwp::FwpsIncomingMetadataValues0;
use nt_abi::fwp::value::Incoming;
use ntsim::cpu::{self, Bugcheck, code};
use ntsim::fwpkclnt::UserSession;
use ntsim::machine::{Config, Machine};
use ntsim::nt::io::IrpKind;
use ntsim::pe::LoadError;
use sluice_host::{Callout, Engine, Filter, FilterAction, Guid, Sublayer, Weight};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The callout's key in driver/planted/src/lib.rs.
const CALLOUT: Guid = Guid(0x706c_616e_7465_6400_6361_6c6c_6f75_7400);
const SUBLAYERS: [Guid; 2] = [Guid(1 << 96), Guid(2 << 96)];
const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

/// The outcome of a driver's run.
struct Life {
    /// The outcome of its classify call.
    outcome: Option<Outcome>,
    /// How it ended: stopped, or unloaded with what it left behind.
    end: Result<Vec<String>, Bugcheck>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Loads a driver, sends it an IOCTL, lets it classify a connection at DISPATCH_LEVEL, and unloads it.
fn live(name: &str, special_pool: bool) -> Life {
    let file = folder().join("target/sluice/x86_64/planted").join(name).with_extension("sys");
    let bytes = std::fs::read(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask build --only planted`", file.display()));
    let config = Config { special_pool, unload_patience: Duration::from_millis(200), ..Config::default() };
    let machine = Machine::with(config);
    let mut outcome = None;
    let end = run(&machine, name, &bytes, &mut outcome);
    Life { outcome, end }
}

fn run(
    machine: &Arc<Machine>,
    name: &str,
    bytes: &[u8],
    outcome: &mut Option<Outcome>,
) -> Result<Vec<String>, Bugcheck> {
    match machine.load_driver(name, bytes) {
        Ok(_) => {}
        Err(LoadError::Bugcheck(bugcheck)) => return Err(bugcheck),
        Err(error) => panic!("{name}: {error}"),
    }
    let file = machine.io.open(machine, r"\\.\Planted").unwrap_or_else(|status| panic!("{name}: {status}"));
    let control = IrpKind::DeviceControl { code: 0x22_2000, input: 4, output: 8 };
    // Not waited for: one driver never completes it.
    let request = file.start(control, b"ping")?;
    *outcome = Some(classify_one(machine)?);
    drop(request);
    drop(file);
    machine.check_running()?;
    match machine.unload_driver(name) {
        Ok(report) => Ok(report.lines()),
        Err(ntsim::machine::UnloadError::Bugcheck(bugcheck)) => Err(bugcheck),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// A filter that blocks in the heavier sublayer, the callout in the lighter one, and a connection.
fn classify_one(machine: &Arc<Machine>) -> Result<Outcome, Bugcheck> {
    let layer = machine.wfp.engine.layers().get(LAYER).expect("a layer of the table");
    let mut session = UserSession::open(machine, true);
    for (at, key) in SUBLAYERS.into_iter().enumerate() {
        let weight = 2 - at as u16;
        let (name, description) = ("sublayer".to_owned(), String::new());
        let sublayer = Sublayer { key, name, description, persistent: false, provider: None, weight };
        session.add_sublayer(&sublayer).expect("a good sublayer");
    }
    let (name, description) = ("callout".to_owned(), String::new());
    let callout = Callout { key: CALLOUT, name, description, persistent: false, provider: None, layer: layer.key };
    session.add_callout(&callout).expect("a good callout");
    for (sublayer, action) in SUBLAYERS.into_iter().zip([FilterAction::Block, FilterAction::CalloutUnknown(CALLOUT)]) {
        let filter = Filter {
            key: None,
            name: "filter".to_owned(),
            description: String::new(),
            flags: 0,
            provider: None,
            layer: layer.key,
            sublayer,
            weight: Weight::Auto,
            conditions: Vec::new(),
            action,
        };
        session.add_filter(&filter).expect("a good filter");
    }
    let mut incoming = Incoming::new(layer.fields.len());
    incoming.u32(layer.field_index("IP_REMOTE_ADDRESS").expect("a field of the layer"), 0xC000_0201);
    let flow = machine.wfp.engine.flows.create();
    let mut packet = PacketBuffer::copy_of(b"a packet");
    let layer_data = LayerData::Pointer(packet.list(0, 0, 8).cast());
    let metadata = FwpsIncomingMetadataValues0 { flow_handle: flow.id(), ..FwpsIncomingMetadataValues0::default() };
    let call = Classify {
        layer: LAYER,
        values: incoming.values(),
        metadata: &metadata,
        layer_data,
        flow: Some(&flow),
        request: None,
    };
    cpu::enter(machine, Irql::DISPATCH, || machine.wfp.classify(&call, 0, None))
}

/// The driver stops the machine with this code and these words in the message, and its code is on the stack.
#[track_caller]
fn stops(name: &str, special_pool: bool, code: u32, words: &str) {
    let bugcheck = match live(name, special_pool).end {
        Err(bugcheck) => bugcheck,
        Ok(left) => panic!("{name} was not stopped; it left {left:?}"),
    };
    assert_eq!(bugcheck.code, code, "{bugcheck}");
    assert!(bugcheck.why.contains(words), "expected {words:?}: {bugcheck}");
    let module = format!("{name}.sys");
    let named = bugcheck.why.contains(&module)
        || bugcheck.driver_frames().any(|frame| frame.module.as_deref() == Some(module.as_str()));
    assert!(named, "nothing names {module}: {bugcheck}");
}

/// The driver unloads and leaves behind exactly one thing for each of these phrases.
#[track_caller]
fn leaves(name: &str, words: &[&str]) {
    let left = match live(name, false).end {
        Ok(left) => left,
        Err(bugcheck) => panic!("{name} was stopped: {bugcheck}"),
    };
    assert_eq!(left.len(), words.len(), "{left:?}");
    for word in words {
        assert!(left.iter().any(|line| line.contains(word)), "expected {word:?}: {left:?}");
    }
}

const ORDINARY: bool = false;
const SPECIAL: bool = true;

macro_rules! drivers {
    (
        stop { $($stop:ident $pool:ident $code:ident $why:literal;)* }
        leave { $($leave:ident [$($left:literal),*];)* }
        other { $($other:ident),* }
    ) => {
        $(#[test] fn $stop() { stops(stringify!($stop), $pool, code::$code, $why); })*
        $(#[test] fn $leave() { leaves(stringify!($leave), &[$($left),*]); })*

        const ALL: &[&str] = &[$(stringify!($stop),)* $(stringify!($leave),)* $(stringify!($other),)*];
    };
}

drivers! {
    stop {
        pageable_call ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION
            "ZwOpenKey was called at DISPATCH_LEVEL; it may be called at PASSIVE_LEVEL at most";
        fwps_irql ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION
            "FwpsInjectionHandleCreate0 was called at DISPATCH_LEVEL; it may be called at PASSIVE_LEVEL at most";
        wait_at_dispatch ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "KeWaitForSingleObject";
        paged_allocation ORDINARY BAD_POOL_CALLER "64 bytes of paged pool at DISPATCH_LEVEL";
        paged_touch SPECIAL DRIVER_IRQL_NOT_LESS_OR_EQUAL "0 bytes from the beginning of the 64-byte paged block";
        wrong_tag ORDINARY BAD_POOL_CALLER "the 64-byte block with tag 'Plnt'";
        double_free ORDINARY BAD_POOL_CALLER "was freed twice: the 64-byte block with tag 'Plnt'";
        inner_free ORDINARY BAD_POOL_CALLER "which is 16 bytes into the 64-byte block";
        use_after_free SPECIAL PAGE_FAULT_IN_NONPAGED_AREA "inside the 64-byte block with tag 'Plnt'";
        overrun SPECIAL PAGE_FAULT_IN_NONPAGED_AREA "48 bytes from the beginning of the 48-byte block";
        underrun ORDINARY BAD_POOL_HEADER "was written to before its beginning";
        execute_pool ORDINARY ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY "was executed, which is not code";
        null_read ORDINARY DRIVER_IRQL_NOT_LESS_OR_EQUAL "0x10 was read, which is not valid memory";
        readonly_write ORDINARY ATTEMPTED_WRITE_TO_READONLY_MEMORY "which is read-only memory";
        stack_overflow ORDINARY UNEXPECTED_KERNEL_MODE_TRAP "the kernel stack overflowed";
        divide ORDINARY KMODE_EXCEPTION_NOT_HANDLED "divided by zero";
        fastfail ORDINARY KERNEL_SECURITY_CHECK_FAILURE "__fastfail(3)";
        stops_itself ORDINARY MANUALLY_INITIATED_CRASH "the driver called KeBugCheckEx";
        lock_recursion ORDINARY SPIN_LOCK_ALREADY_OWNED "was acquired by the processor that holds it";
        lock_not_held ORDINARY SPIN_LOCK_NOT_OWNED "was released by a processor that does not hold it";
        lock_irql ORDINARY IRQL_NOT_LESS_OR_EQUAL "lower to IRQL 12 while at DISPATCH_LEVEL";
        lock_order ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "is held; before it was lock_order.sys+";
        lock_kept ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "returned holding the spin lock lock_kept.sys+";
        lock_kept_passive ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "returned holding the spin lock lock_kept_passive.sys+";
        classify_irql ORDINARY IRQL_UNEXPECTED_VALUE "was called at DISPATCH_LEVEL and returned at IRQL 12";
        callback_irql ORDINARY WDF_VIOLATION "was called at PASSIVE_LEVEL and returned at DISPATCH_LEVEL";
        dpc_irql ORDINARY IRQL_UNEXPECTED_VALUE "the DPC routine dpc_irql.sys+";
        region_kept ORDINARY APC_INDEX_MISMATCH "EvtIoDeviceControl region_kept.sys+";
        request_twice ORDINARY WDF_VIOLATION "is a WDFREQUEST that was completed; it is gone";
        request_touched ORDINARY WDF_VIOLATION "is a WDFREQUEST that was completed; it is gone";
        request_buffer SPECIAL PAGE_FAULT_IN_NONPAGED_AREA "inside the 8-byte block with tag 'Io  '";
        request_overfilled ORDINARY WDF_VIOLATION "with 4096 bytes, its buffer holds 8";
        tag_zero ORDINARY BAD_POOL_CALLER "pool was allocated with tag 0";
        paged_free ORDINARY BAD_POOL_CALLER "the 64-byte paged block with tag 'Plnt'";
        timer_freed ORDINARY TIMER_OR_DPC_INVALID "was freed, and the timer in it";
        shared_recursion ORDINARY SPIN_LOCK_ALREADY_OWNED "was acquired by the processor that holds it";
        mutex_not_held ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "was released, which nobody holds";
        resource_not_held ORDINARY RESOURCE_NOT_OWNED "released";
        mutex_order ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "is held; before it was mutex_order.sys+";
        request_marked ORDINARY WDF_VIOLATION "is completed while it is marked cancelable";
        object_dereference ORDINARY DRIVER_VERIFIER_DETECTED_VIOLATION "was dereferenced more often than it was referenced";
    }
    leave {
        clean [];
        pool_leak ["123 bytes of NonPaged pool, tag 'Plnt', allocated by pool_leak.sys+"];
        mdl_leak ["tag 'Mdl ', allocated by mdl_leak.sys+"];
        nbl_leak ["576 bytes of NonPaged pool, tag 'NDnb', allocated by nbl_leak.sys+", "240 bytes"];
        callout_left ["1 registered callouts"];
        context_left ["1 registered callouts", "1 flow contexts"];
        injection_handle ["1 injection handles"];
        engine_handle ["1 FwpmEngineOpen0"];
        pended_left ["1 classify handles"];
        request_kept ["was never completed"];
        object_reference ["taken by object_reference.sys+"];
        key_left ["handle"];
        timer_left ["timer at timer_left.sys+"];
        work_left ["work item of work_left.sys+", "1 system threads still running"];
        thread_left ["1 system threads still running"];
        device_left ["device \\Device\\Leftover"];
        link_left ["symbolic link"];
        notify_left ["notify_left.sys+"];
        trace_left ["trace_left.sys+"];
        lookaside_left ["lookaside"];
        resource_left ["resource"];
    }
    other { ignores_rights }
}

/// Windows does not stop for it: the action is not taken, so a driver that relies on it does not work.
#[test]
fn ignores_rights() {
    let life = live("ignores_rights", ORDINARY);
    assert_eq!(life.end.expect("nothing stops it"), Vec::<String>::new());
    assert_eq!(life.outcome.expect("it was asked").rights_violations, 1);
}

/// Ordinary pool finds the same defects as special pool, only later.
#[test]
fn ordinary_pool_finds_overruns_when_freed_and_late_writes_at_unload() {
    stops("overrun", ORDINARY, code::BAD_POOL_HEADER, "was written to past its end");
    leaves("use_after_free", &["a write after free at"]);
}

#[test]
fn special_pool_finds_nothing_in_a_clean_driver() {
    let life = live("clean", SPECIAL);
    assert_eq!(life.end.expect("nothing stops it"), Vec::<String>::new());
}

#[test]
fn every_planted_driver_is_tried() {
    let examples = folder().join("driver/planted/examples");
    let mut found: Vec<String> = std::fs::read_dir(&examples)
        .expect("the sources of the planted drivers")
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    let mut tried = ALL.to_vec();
    tried.sort_unstable();
    assert_eq!(found, tried);
    assert!(tried.len() > 20);
}
