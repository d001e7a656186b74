//! The bytes of every record that crosses the boundary. A change here is a new protocol version.

use sluice_protocol::{
    Event, PROTOCOL_VERSION, Status, ask,
    event::{RULE_DEFAULT, asked, direction, flags, verdict},
    filter::{Filter, by_rule},
    ioctl, names,
    status::{Counter, PolicyReply},
    upload,
};
use zerocopy::IntoBytes;

#[test]
fn event_v10() {
    let mut event = Event {
        sequence: 0x0102_0304_0506_0708,
        time: 0x1112_1314_1516_1718,
        filter_id: 0x2122_2324_2526_2728,
        flow: 0x3132_3334_3536_3738,
        process_id: 0x4142_4344,
        epoch: 0x5152_5354,
        rule: RULE_DEFAULT,
        layer: 48,
        verdict: verdict::BLOCK,
        direction: direction::OUTBOUND,
        protocol: 6,
        ip_version: 4,
        flags: flags::HARD | flags::LOOPBACK,
        local_port: 50_000,
        remote_port: 443,
        asked: asked::TIMED_OUT,
        lost: 0x6162_6364,
        unrecorded: 0x7172_7374,
        ring: 0x8182,
        ..Event::zeroed()
    };
    event.local[..4].copy_from_slice(&[10, 0, 0, 1]);
    event.remote[..4].copy_from_slice(&[203, 0, 113, 9]);
    event.set_application(&[b'a', 0, b'b', 0]);
    let mut golden = Vec::new();
    golden.extend([8, 7, 6, 5, 4, 3, 2, 1]);
    golden.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
    golden.extend([0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
    golden.extend([0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31]);
    golden.extend([0x44, 0x43, 0x42, 0x41, 0x54, 0x53, 0x52, 0x51, 0xff, 0xff, 0xff, 0xff]);
    golden.extend([48, 0, 2, 1, 6, 4, 0x21, 0, 0x50, 0xc3, 0xbb, 0x01]);
    golden.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    golden.extend([203, 0, 113, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    golden.extend([4, 0, 0, 4, 0x64, 0x63, 0x62, 0x61, 0x74, 0x73, 0x72, 0x71, 0x82, 0x81, 0, 0, b'a', 0, b'b', 0]);
    golden.resize(256, 0);
    assert_eq!(event.as_bytes(), golden);
}

/// A counter more or less is another version: a command of the other one reads a status of another length.
#[test]
fn counters_v10() {
    assert_eq!((PROTOCOL_VERSION, Counter::COUNT), (10, 53));
}

#[test]
fn status_v10() {
    let mut status = Status {
        protocol_version: 1,
        epoch: 2,
        rules: 3,
        policy_bytes: 4,
        policy_identity: [5; 16],
        kept: 7,
        kept_status: 8,
        fails_closed: 9,
        ..Status::default()
    };
    *status.counters.get_mut(Counter::ConnectsBlocked) = 6;
    let mut golden = vec![1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    golden.extend([5; 16]);
    golden.extend([8, 0, 0, 0, 9, 0, 0, 0]);
    golden.extend([0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
    golden.resize(48 + Counter::COUNT * 8, 0);
    assert_eq!(status.as_bytes(), golden);
}

#[test]
fn policy_reply_v10() {
    let reply = PolicyReply::refused(2, &"no");
    let mut golden = vec![2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'n', b'o'];
    golden.resize(256, 0);
    assert_eq!(reply.as_bytes(), golden);
}

#[test]
fn uploads_v10() {
    let begin = upload::Begin { bytes: 0x0102_0304_0506_0708 };
    assert_eq!(begin.as_bytes(), [8, 7, 6, 5, 4, 3, 2, 1]);
    let part = upload::Part { offset: 0x1112_1314_1516_1718 };
    assert_eq!(part.as_bytes(), [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
}

#[test]
fn names_v10() {
    let mut record = names::Record {
        number: 0x0102_0304_0506_0708,
        address: [9; 16],
        seconds: 0x1112_1314,
        name_bytes: 3,
        reserved: [0; 3],
        name: [0; names::LONGEST],
    };
    record.name[..3].copy_from_slice(b"a.b");
    let mut golden = vec![8, 7, 6, 5, 4, 3, 2, 1];
    golden.extend([9; 16]);
    golden.extend([0x14, 0x13, 0x12, 0x11, 3, 0, 0, 0, b'a', b'.', b'b']);
    golden.resize(136, 0);
    assert_eq!(record.as_bytes(), golden);
    assert_eq!(record.name(), b"a.b");
    assert_eq!(ioctl::From { number: 7 }.as_bytes(), [7, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn filter_v10() {
    let filter = Filter {
        verdicts: 1 << verdict::BLOCK,
        directions: 1 << direction::OUTBOUND,
        by_rule: by_rule::OF_GENERATION,
        epoch: 0x0102_0304,
        rule: 0x1112_1314,
        ..Filter::ALL.with_application("a".encode_utf16())
    };
    let mut golden = vec![4, 2, 1, 1, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 0, 0, 0, 0, b'a'];
    golden.resize(128, 0);
    assert_eq!(filter.as_bytes(), golden);
}

#[test]
fn questions_and_answers_v10() {
    let mut question = ask::Question {
        id: 0x0102_0304_0506_0708,
        asked: 0x1112_1314_1516_1718,
        process_created: 0x2122_2324_2526_2728,
        milliseconds: 0x3132_3334,
        epoch: 0x4142_4344,
        rule: 0x5152_5354,
        process_id: 0x6162_6364,
        parent_id: 0x7172_7374,
        held: 0x8182_8384,
        protocol: 6,
        ip_version: 4,
        unanswered: verdict::BLOCK,
        local_port: 50_000,
        remote_port: 443,
        local: [1; 16],
        remote: [2; 16],
        ..ask::Question::zeroed()
    };
    question.set_name(b"a.b");
    question.add_sid(&[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]);
    question.set_application(&[b'a', 0]);
    let mut golden = vec![8, 7, 6, 5, 4, 3, 2, 1];
    golden.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
    golden.extend([0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
    golden.extend([0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 0x54, 0x53, 0x52, 0x51]);
    golden.extend([0x64, 0x63, 0x62, 0x61, 0x74, 0x73, 0x72, 0x71, 0x84, 0x83, 0x82, 0x81]);
    golden.extend([6, 4, 2, 0, 0x50, 0xc3, 0xbb, 0x01]);
    golden.extend([1; 16]);
    golden.extend([2; 16]);
    golden.extend([2, 0, 12, 0, 3, 0, 0, 0, b'a', b'.', b'b']);
    golden.resize(200, 0);
    golden.extend([1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]);
    golden.resize(504, 0);
    golden.extend([b'a', 0]);
    golden.resize(1024, 0);
    assert_eq!(question.as_bytes(), golden);
    let answer = ask::Answer { id: 7, verdict: verdict::PERMIT, scope: ask::scope::PROCESS, reserved: [0; 6] };
    assert_eq!(answer.as_bytes(), [7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0]);
}
