//! The control device, given everything that it must refuse.

mod support;

use std::time::Duration;

use filter_engine::{security::Sid, token::Token};
use nt_abi::NtStatus;
use ntsim::host::LocalHost;
use sluice_control::{device::upload, load_image};
use sluice_host::{Device, Host};
use sluice_protocol::{
    DEVICE_PATH, Event, PROTOCOL_VERSION, Status,
    filter::Filter,
    ioctl, names,
    status::PolicyReply,
    upload::{Begin, Part, Wanted},
};
use support::{BLOCK_ALL, PERMIT_ALL, Rig};
use zerocopy::{FromBytes, IntoBytes};

fn device(host: &LocalHost) -> Box<dyn Device> {
    host.open_device(DEVICE_PATH).expect("the device opens")
}

fn status(device: &dyn Device) -> Status {
    let mut status = Status::default();
    assert_eq!(device.control(ioctl::GET_STATUS, &[], status.as_mut_bytes()), Ok(size_of::<Status>()));
    status
}

/// Uploads an image to the driver and returns its reply.
fn set_policy(device: &dyn Device, image: &[u8]) -> PolicyReply {
    upload(device, image).expect("the IOCTLs themselves succeed")
}

#[test]
fn a_fresh_driver_has_no_policy_and_counted_nothing() {
    let rig = Rig::install();
    let device = device(&rig.host);
    let status = status(&*device);
    assert_eq!(status, Status { protocol_version: PROTOCOL_VERSION, ..Status::default() });
    let from_the_start = Wanted { offset: 0, epoch: 0, reserved: 0 };
    let read = device.control(ioctl::READ_POLICY, from_the_start.as_bytes(), &mut [0; 4096]);
    assert!(read.is_err(), "there is no policy to read");
    drop(device);
    rig.uninstall();
}

#[test]
fn only_system_and_administrators_open_the_device() {
    let rig = Rig::install();
    let token = |sids: &[Sid]| Token { sids: sids.to_vec() };
    let (user, administrators) = (Sid::new(5, &[21, 1, 2, 3, 1001]), Sid::new(5, &[32, 544]));
    let (everyone, users) = (Sid::new(1, &[0]), Sid::new(5, &[32, 545]));
    let open = |caller: &Token| rig.machine.io.open_as(&rig.machine, DEVICE_PATH, caller).map(drop);
    assert_eq!(open(&token(&[user.clone(), everyone.clone(), users])), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(open(&token(&[user, everyone, administrators])), Ok(()));
    assert_eq!(open(&Token::local_system()), Ok(()));
    rig.uninstall();
}

#[test]
fn output_buffers_of_every_length() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let device = device(&rig.host);
    let size = size_of::<Status>();
    for length in 0..size + 16 {
        let mut output = vec![0xaa; length];
        let answer = device.control(ioctl::GET_STATUS, &[], &mut output);
        if length < size {
            assert!(answer.is_err(), "it wrote {answer:?} into {length} bytes");
            assert!(output.iter().all(|byte| *byte == 0xaa), "it touched a buffer it refused");
        } else {
            assert_eq!(answer, Ok(size), "with {length} bytes");
            assert!(output[size..].iter().all(|byte| *byte == 0xaa), "it wrote more than it reports");
        }
    }
    drop(device);
    rig.uninstall();
}

#[test]
fn the_policy_in_force_is_read_in_parts_of_any_size() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let device = device(&rig.host);
    let (image, epoch) = (rig.image(), status(&*device).epoch);
    assert!(image.len() > 300, "parts of it are smaller");
    let read = |wanted: Wanted, output: &mut [u8]| device.control(ioctl::READ_POLICY, wanted.as_bytes(), output);
    let at = |offset: usize| Wanted { offset: offset as u64, epoch, reserved: 0 };
    for length in [1, 7, 256, image.len(), image.len() + 9, ioctl::MAX_PART_BYTES] {
        let mut whole = Vec::new();
        while whole.len() < image.len() {
            let mut part = vec![0xaa; length];
            let written = read(at(whole.len()), &mut part).expect("a part");
            assert_eq!(written, length.min(image.len() - whole.len()));
            assert!(part[written..].iter().all(|byte| *byte == 0xaa), "it wrote more than it reports");
            whole.extend_from_slice(&part[..written]);
        }
        assert_eq!(whole, image, "the driver returns the image it was given");
    }
    for wrong in [
        at(image.len()),
        Wanted { offset: u64::MAX, ..at(0) },
        Wanted { epoch: epoch + 1, ..at(0) },
        Wanted { epoch: 0, ..at(0) },
        Wanted { reserved: 1, ..at(0) },
    ] {
        let mut part = [0xaa; 64];
        assert!(read(wrong, &mut part).is_err() && part == [0xaa; 64], "{wrong:?}");
    }
    assert!(read(at(0), &mut []).is_err(), "no room");
    assert!(read(at(0), &mut vec![0; ioctl::MAX_PART_BYTES + 1]).is_err(), "more than a part");
    assert!(device.control(ioctl::READ_POLICY, &at(0).as_bytes()[..15], &mut [0; 64]).is_err());
    drop(device);
    rig.uninstall();
}

#[test]
fn a_policy_cut_short_at_every_length_is_refused_and_the_old_one_stays() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let device = device(&rig.host);
    let before = status(&*device);
    let image = rig.compile(PERMIT_ALL);
    for length in 1..image.len() {
        let reply = set_policy(&*device, &image[..length]);
        assert!(reply.reason().is_some(), "{length} of {} bytes were taken for a policy", image.len());
        assert_eq!(reply.epoch, before.epoch);
    }
    assert!(upload(&*device, &[]).is_err(), "no policy at all");
    let after = status(&*device);
    assert_eq!(after.policy_identity, before.policy_identity);
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(after.counters.policies_refused, image.len() as u64 - 1);
    drop(device);
    rig.uninstall();
}

#[test]
fn a_policy_with_any_byte_changed_is_refused_and_the_old_one_stays() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let device = device(&rig.host);
    let before = status(&*device);
    let image = rig.compile(PERMIT_ALL);
    for place in 0..image.len() {
        let mut damaged = image.clone();
        damaged[place] ^= 0x5a;
        assert!(set_policy(&*device, &damaged).reason().is_some(), "byte {place} does not matter?");
    }
    assert_eq!(status(&*device).policy_identity, before.policy_identity);
    let reply = set_policy(&*device, &image);
    assert_eq!((reply.reason(), reply.epoch), (None, before.epoch + 1));
    drop(device);
    rig.uninstall();
}

#[test]
fn a_caller_without_room_for_the_reply_changes_nothing() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let device = device(&rig.host);
    let before = status(&*device);
    let image = rig.compile(PERMIT_ALL);
    let begin = Begin { bytes: image.len() as u64 };
    assert_eq!(device.control(ioctl::BEGIN_POLICY, begin.as_bytes(), &mut []), Ok(0));
    let part = [&[0; size_of::<Part>()], &image[..]].concat();
    assert_eq!(device.control(ioctl::POLICY_PART, &part, &mut []), Ok(0));
    for length in 0..size_of::<PolicyReply>() {
        assert!(device.control(ioctl::COMMIT_POLICY, &[], &mut vec![0; length]).is_err());
    }
    let after = status(&*device);
    assert_eq!((after.epoch, after.policy_identity), (before.epoch, before.policy_identity));
    drop(device);
    rig.uninstall();
}

#[test]
fn unknown_codes_are_refused_with_buffers_of_every_length() {
    let rig = Rig::install();
    let device = device(&rig.host);
    // Our own functions with other transfer methods and accesses, and neighbours.
    let known = [
        ioctl::GET_STATUS,
        ioctl::BEGIN_POLICY,
        ioctl::READ_POLICY,
        ioctl::RECORD_ALL,
        ioctl::POLICY_PART,
        ioctl::COMMIT_POLICY,
        ioctl::TAKE_EVENTS,
        ioctl::RULE_NAMES,
        ioctl::FILTER_EVENTS,
    ];
    let strangers = (0..9).flat_map(|function| (0..4).map(move |access| 0x0012_2000 | access << 14 | function << 2));
    for code in strangers.chain([0, 1, u32::MAX, 0x0012_6ffc]).filter(|code| !known.contains(code)) {
        for length in [0, 1, 7, 8, 255, 256, 257, 4096] {
            let answer = device.control(code, &vec![0; length], &mut vec![0; length]);
            assert!(answer.is_err(), "{code:#x} with {length} bytes: {answer:?}");
        }
    }
    assert!(device.control(ioctl::RECORD_ALL, &[0], &mut []).is_err(), "it takes no input");
    assert!(device.control(ioctl::FORGET_NAMES, &[0], &mut []).is_err(), "it takes no input");
    let filter = |filter: &[u8]| device.control(ioctl::FILTER_EVENTS, filter, &mut []);
    for length in 0..300 {
        assert_eq!(filter(&vec![0; length]).is_ok(), length == size_of::<Filter>(), "{length} bytes of a filter");
    }
    assert!(filter(Filter { by_rule: 2, ..Filter::ALL }.as_bytes()).is_err(), "there is no such condition");
    for length in 0..300 {
        let input = device.control(ioctl::GET_NAMES, &vec![0; length], &mut [0; 4096]);
        assert_eq!(input.is_ok(), length == size_of::<ioctl::From>(), "{length} bytes in");
        let output = device.control(ioctl::GET_NAMES, &[0; 8], &mut vec![0; length]);
        assert_eq!(output.is_ok(), length >= size_of::<names::Record>(), "{length} bytes out");
    }
    drop(device);
    rig.uninstall();
}

#[test]
fn every_decision_is_recorded_for_so_many_at_a_time() {
    let rig = Rig::install();
    let ask = |device: &dyn Device| device.control(ioctl::RECORD_ALL, &[], &mut []);
    let mut devices: Vec<_> = (0..ioctl::MAX_RECORD_ALL).map(|_| device(&rig.host)).collect();
    for device in &devices {
        assert_eq!((ask(&**device), ask(&**device)), (Ok(0), Ok(0)), "asking again changes nothing");
    }
    let another = device(&rig.host);
    assert!(ask(&*another).is_err(), "there is no slot for another");
    devices.pop();
    assert_eq!(ask(&*another), Ok(0), "a closed handle makes room");
    drop((devices, another));
    rig.uninstall();
}

#[test]
fn a_read_too_short_for_an_event_is_refused_and_one_without_events_waits() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let device = device(&rig.host);
    for length in 0..size_of::<Event>() {
        assert!(device.read(&mut vec![0; length], Duration::from_secs(5)).is_err(), "a read of {length} bytes");
    }
    let mut events = [0; 4 * size_of::<Event>()];
    assert_eq!(device.read(&mut events, Duration::from_millis(50)), Ok(0), "nothing happened");
    assert!(Event::read_from_bytes(&events[..size_of::<Event>()]).is_ok_and(|event| event == Event::zeroed()));
    drop(device);
    rig.uninstall();
}

#[test]
fn images_come_and_go() {
    let rig = Rig::install();
    for (number, policy) in [PERMIT_ALL, BLOCK_ALL, PERMIT_ALL].into_iter().enumerate() {
        let epoch = load_image(&rig.host, &rig.compile(policy)).expect("the image loads");
        assert_eq!(epoch, number as u32 + 1);
    }
    rig.uninstall();
}
