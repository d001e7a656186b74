//! A program with an administrator's rights, hostile or careless, uploads images in ways that are not meant.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use sluice_control::device::upload;
use sluice_host::{Device, Host};
use sluice_protocol::{
    DEVICE_PATH, ioctl,
    status::PolicyReply,
    upload::{Begin, Part},
};
use zerocopy::IntoBytes;

use crate::support::{BLOCK_ALL, PERMIT_ALL, Rig};

/// What the driver and the I/O manager may take beside images: the part that is copied, and what they keep anyway.
const SLACK: usize = 2 * ioctl::MAX_PART_BYTES;

fn device(rig: &Rig) -> Box<dyn Device> {
    rig.host.open_device(DEVICE_PATH).expect("the device opens")
}

/// Bytes of pool in use.
fn pool(rig: &Rig) -> usize {
    rig.machine.pool.usage().1
}

fn begin(device: &dyn Device, bytes: u64) -> bool {
    device.control(ioctl::BEGIN_POLICY, Begin { bytes }.as_bytes(), &mut []).is_ok()
}

fn part(device: &dyn Device, offset: u64, bytes: &[u8]) -> bool {
    let part = [Part { offset }.as_bytes(), bytes].concat();
    device.control(ioctl::POLICY_PART, &part, &mut []).is_ok()
}

/// The reply to a commit; None when the request fails.
fn commit(device: &dyn Device) -> Option<PolicyReply> {
    let mut reply = PolicyReply::accepted(0);
    device.control(ioctl::COMMIT_POLICY, &[], reply.as_mut_bytes()).ok().map(|_| reply)
}

/// An image of some mebibytes.
fn large(rig: &Rig, first: u32) -> Vec<u8> {
    let mut text = String::from(PERMIT_ALL) + "[list.many]\nentries = [\n";
    for number in first..first + 200_000 {
        writeln!(text, "\"host{number}.example\",").expect("a string takes it");
    }
    let image = rig.compile(&(text + "]\n[[rule]]\naction = \"block\"\nremote-name = \"@many\"\n"));
    assert!(image.len() > 4 * SLACK, "{} bytes", image.len());
    image
}

#[test]
fn and_a_large_image_is_in_pool_once() {
    let rig = Rig::install();
    let (old, new) = (large(&rig, 1), large(&rig, 300_000));
    // The first policy that asks for names brings the table of learned ones.
    rig.load("[[rule]]\naction = \"block\"\nremote-name = \"a.example\"\n");
    let device = device(&rig);
    let before = pool(&rig);
    assert_eq!(upload(&*device, &old).expect("it loads").reason(), None);
    let loaded = pool(&rig);
    assert!(loaded - before < old.len() + SLACK, "{} bytes for an image of {}", loaded - before, old.len());
    let (most, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                most.fetch_max(pool(&rig), SeqCst);
            }
        });
        assert!(begin(&*device, new.len() as u64));
        for (number, bytes) in new.chunks(ioctl::MAX_PART_BYTES).enumerate() {
            assert!(part(&*device, (number * ioctl::MAX_PART_BYTES) as u64, bytes));
        }
        most.fetch_max(pool(&rig), SeqCst);
        assert_eq!(commit(&*device).and_then(|reply| reply.reason().map(str::to_owned)), None);
        over.store(true, SeqCst);
    });
    let most = most.load(SeqCst) - before;
    assert!(most > old.len() + new.len() - SLACK, "only {most} bytes seen");
    assert!(most < old.len() + new.len() + SLACK, "{most} bytes for {} and {}", old.len(), new.len());
    assert!(pool(&rig) - before < new.len() + SLACK, "the old image is freed");
    assert_eq!(rig.image(), new);
    drop(device);
    rig.uninstall();
}

#[test]
fn and_abandons_it() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let (epoch, before) = (rig.status().driver.and_then(|driver| driver.policy).expect("a policy").epoch, pool(&rig));
    let abandoned = device(&rig);
    assert!(begin(&*abandoned, ioctl::MAX_POLICY_BYTES as u64));
    assert!(part(&*abandoned, 0, &[7; 4096]));
    assert!(pool(&rig) >= before + ioctl::MAX_POLICY_BYTES, "room for all of it is reserved at once");
    let another = device(&rig);
    assert!(!begin(&*another, 8), "one upload at a time");
    drop(abandoned);
    assert!(pool(&rig) < before + SLACK, "a closed handle's upload is freed");
    assert_eq!(upload(&*another, &rig.compile(PERMIT_ALL)).expect("there is room now").epoch, epoch + 1);
    // Beginning again drops what was begun.
    assert!((0..3).all(|_| begin(&*another, 64 << 20)));
    assert!(pool(&rig) < before + (64 << 20) + SLACK);
    drop(another);
    assert!(pool(&rig) < before + SLACK);
    rig.uninstall();
}

#[test]
fn and_interleaves_it_with_another() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let image = rig.compile(PERMIT_ALL);
    let (owner, other) = (device(&rig), device(&rig));
    let (head, tail) = image.split_at(image.len() / 2);
    assert!(begin(&*owner, image.len() as u64));
    let meddle = |at: usize| {
        assert!(!begin(&*other, image.len() as u64));
        assert!(!part(&*other, at as u64, &image[at..]));
        assert!(commit(&*other).is_none());
    };
    assert!(part(&*owner, 0, head));
    meddle(head.len());
    assert!(commit(&*owner).is_none(), "parts are missing");
    assert!(part(&*owner, head.len() as u64, tail), "the upload goes on all the same");
    meddle(0);
    let reply = commit(&*owner).expect("it is complete");
    assert_eq!(reply.reason(), None);
    assert_eq!(rig.image(), image);
    assert!(commit(&*owner).is_none(), "an upload is committed once");
    drop((owner, other));
    rig.uninstall();
}

#[test]
fn and_lies_about_its_lengths() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let (before, image) = (rig.image(), rig.compile(PERMIT_ALL));
    let device = device(&rig);
    assert!(!part(&*device, 0, &image), "nothing was begun");
    assert!(commit(&*device).is_none());
    let most = ioctl::MAX_POLICY_BYTES as u64;
    for length in [0, most + 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        assert!(!begin(&*device, length), "{length} bytes");
    }
    for length in (0..32).filter(|length| *length != size_of::<Begin>()) {
        assert!(device.control(ioctl::BEGIN_POLICY, &vec![1; length], &mut []).is_err(), "an input of {length} bytes");
    }
    let length = image.len() as u64;
    assert!(begin(&*device, length));
    for short in 0..size_of::<Part>() {
        assert!(device.control(ioctl::POLICY_PART, &vec![0; short], &mut []).is_err(), "a head of {short} bytes");
    }
    assert!(!part(&*device, 0, &[]), "no bytes");
    assert!(!part(&*device, 0, &vec![0; ioctl::MAX_PART_BYTES + 1]), "more than a part has");
    assert!(!part(&*device, 0, &[&image[..], &[0]].concat()), "more than was announced");
    for offset in [1, length - 1, length, 1 << 32, u64::MAX - 7, u64::MAX] {
        assert!(!part(&*device, offset, &image[..8]), "a part at {offset}");
    }
    assert!(part(&*device, 0, &image[..100]), "nothing of that changed the upload");
    for offset in [0, 99, 101, u64::MAX] {
        assert!(!part(&*device, offset, &image[100..]), "a part at {offset}");
    }
    assert!(
        device.control(ioctl::COMMIT_POLICY, &[0], &mut [0; size_of::<PolicyReply>()]).is_err(),
        "it takes no input"
    );
    assert_eq!(rig.image(), before, "the policy in force stays");
    assert!(part(&*device, 100, &image[100..]));
    assert_eq!(commit(&*device).and_then(|reply| reply.reason().map(str::to_owned)), None);
    assert_eq!(rig.image(), image);
    drop(device);
    rig.uninstall();
}
