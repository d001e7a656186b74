use super::*;
use crate::machine::Machine;
use core::ptr;
use core::sync::atomic::AtomicU64;
use nt_abi::Irql;

const PROVIDER: u128 = 0x5707a1fc_de6f_5890_a761_edd98108d4d7;
const TRAITS: &[u8] = b"\x07\0Test\0";
const METADATA: &[u8] = b"\x0c\0\0Met\0One\0\x04";

/// Registers the provider; what its callback is told goes to `told`: the control code, the level and the keywords.
fn register(told: &[AtomicU64; 3]) -> u64 {
    unsafe extern "win64" fn enabled(
        _: *const RawGuid,
        code: u32,
        level: u8,
        any: u64,
        _: u64,
        _: *const c_void,
        context: u64,
    ) {
        assert_eq!(cpu::irql(), Irql::PASSIVE);
        // SAFETY: the context is the array of the test, which outlives the registration.
        let told = unsafe { &*(context as *const [AtomicU64; 3]) };
        for (place, value) in told.iter().zip([code.into(), level.into(), any]) {
            place.store(value, Ordering::Relaxed);
        }
    }
    let (id, mut handle) = (RawGuid::from(Guid(PROVIDER)), 0);
    // SAFETY: the output is ours, and so is the context.
    let status = unsafe { EtwRegister(&raw const id, Some(enabled), told.as_ptr() as u64, &raw mut handle) };
    assert_eq!(status, NtStatus::SUCCESS);
    handle
}

fn set_traits(handle: u64, traits: &[u8]) -> NtStatus {
    // SAFETY: the buffer is ours.
    unsafe { EtwSetInformation(handle, 2, traits.as_ptr(), traits.len() as u32) }
}

fn write(handle: u64, level: u8, parts: &[(&[u8], u8)]) -> NtStatus {
    let event = EventDescriptor { id: 0, version: 0, channel: 11, level, opcode: 0, task: 0, keyword: 2 };
    let data: Vec<_> = parts
        .iter()
        .map(|(bytes, kind)| DataDescriptor {
            pointer: bytes.as_ptr() as u64,
            size: bytes.len() as u32,
            kind: *kind,
            reserved: [0; 3],
        })
        .collect();
    // SAFETY: all of it is ours.
    unsafe { EtwWriteTransfer(handle, &raw const event, ptr::null(), ptr::null(), data.len() as u32, data.as_ptr()) }
}

fn told(told: &[AtomicU64; 3]) -> [u64; 3] {
    told.each_ref().map(|value| value.load(Ordering::Relaxed))
}

#[test]
fn a_session_gets_the_events_it_asked_for_with_their_fields() {
    let machine = Machine::new();
    let heard = [const { AtomicU64::new(9) }; 3];
    let handle = cpu::enter(&machine, Irql::PASSIVE, || {
        let handle = register(&heard);
        assert_eq!(set_traits(handle, TRAITS), NtStatus::SUCCESS);
        assert_eq!(set_traits(handle, TRAITS), NtStatus::INVALID_PARAMETER, "only once");
        assert_eq!(EtwProviderEnabled(handle, 1, 0), 0);
        handle
    })
    .unwrap();
    assert_eq!(told(&heard), [9; 3], "nobody listens");
    let session = Session::start(&machine, PROVIDER, Asked { level: 4, any: 6, all: 2 }).unwrap();
    assert_eq!(told(&heard), [1, 4, 6]);
    cpu::enter(&machine, Irql::DISPATCH, || {
        assert_eq!((EtwProviderEnabled(handle, 4, 2), EtwProviderEnabled(handle, 5, 2)), (1, 0));
        let parts: [(&[u8], u8); 3] = [(TRAITS, 2), (METADATA, 1), (&[7], 0)];
        assert_eq!(write(handle, 4, &parts), NtStatus::SUCCESS);
        assert_eq!(write(handle, 5, &parts), NtStatus::SUCCESS);
        assert_eq!(write(0, 4, &parts), NtStatus::INVALID_HANDLE);
        assert_eq!(write(handle, 4, &[(METADATA, 1), (&[0; 0xffff], 0)]), NtStatus::INTEGER_OVERFLOW);
        let many: [(&[u8], u8); 129] = [(&[], 0); 129];
        assert_eq!(write(handle, 4, &many), NtStatus::INVALID_PARAMETER);
    })
    .unwrap();
    let records = session.stop().unwrap();
    assert_eq!(told(&heard), [0, 0, 0], "it was told that nobody listens");
    let [record] = &records[..] else { panic!("one event, not {records:?}") };
    assert_eq!((record.provider.as_str(), record.event.as_str(), &record.fault), ("Test", "Met", &None));
    assert_eq!((record.channel, record.level, record.keyword, record.irql), (11, 4, 2, Irql::DISPATCH));
    assert_eq!(record.field("One"), Some(&Value::Number(7)));
}

#[test]
fn who_registers_later_is_told_as_well() {
    let machine = Machine::new();
    let session = Session::start(&machine, PROVIDER, Asked::EVERYTHING).unwrap();
    let other = Session::start(&machine, PROVIDER + 1, Asked::EVERYTHING).unwrap();
    let heard = [const { AtomicU64::new(9) }; 3];
    cpu::enter(&machine, Irql::PASSIVE, || {
        let handle = register(&heard);
        // Without traits the types of data mean nothing.
        assert_eq!(write(handle, 1, &[(METADATA, 1), (&[7], 0)]), NtStatus::SUCCESS);
        assert_eq!(EtwUnregister(handle), NtStatus::SUCCESS);
    })
    .unwrap();
    assert_eq!(told(&heard), [1, 0, 0]);
    let bytes = Value::Bytes([METADATA, &[7]].concat());
    assert_eq!(session.take()[0].fields, [(String::new(), bytes)]);
    assert_eq!(other.take(), []);
}

#[test]
fn a_descriptor_of_no_type_and_a_registration_that_is_gone_are_violations() {
    let wrong = |f: fn(u64) -> NtStatus| {
        let machine = Machine::new();
        let _session = Session::start(&machine, PROVIDER, Asked::EVERYTHING).unwrap();
        let heard = [const { AtomicU64::new(0) }; 3];
        let call = || {
            let handle = register(&heard);
            assert_eq!(set_traits(handle, b"\x06\0Test\0"), NtStatus::INVALID_PARAMETER);
            assert_eq!(set_traits(handle, TRAITS), NtStatus::SUCCESS);
            f(handle)
        };
        cpu::enter(&machine, Irql::PASSIVE, call).unwrap_err().parameters[0]
    };
    assert_eq!(wrong(|handle| write(handle, 1, &[(&[7], 4)])), MALFORMED);
    assert_eq!(
        wrong(|handle| {
            assert_eq!(EtwUnregister(handle), NtStatus::SUCCESS);
            write(handle, 1, &[])
        }),
        NOT_REGISTERED
    );
    assert_eq!(
        wrong(|handle| {
            assert_eq!(EtwUnregister(handle), NtStatus::SUCCESS);
            EtwUnregister(handle)
        }),
        NOT_REGISTERED
    );
}

#[test]
fn registrations_are_counted_until_undone() {
    let machine = Machine::new();
    let heard = [const { AtomicU64::new(0) }; 3];
    cpu::enter(&machine, Irql::PASSIVE, || {
        let handle = register(&heard);
        assert_eq!(machine.executive.tracing.left_by(&(0..u64::MAX)).len(), 1);
        assert_eq!(EtwUnregister(handle), NtStatus::SUCCESS);
        assert!(machine.executive.tracing.left_by(&(0..u64::MAX)).is_empty());
    })
    .unwrap();
}

#[test]
fn new_activities_differ() {
    let (mut a, mut b) = ([0; 16], [0; 16]);
    // SAFETY: the outputs are ours.
    unsafe {
        assert_eq!(EtwActivityIdControl(3, &mut a), NtStatus::SUCCESS);
        assert_eq!(EtwActivityIdControl(3, &mut b), NtStatus::SUCCESS);
        assert_eq!(EtwActivityIdControl(9, &mut b), NtStatus::INVALID_PARAMETER);
    }
    assert_ne!(a, b);
}
