//! The control device for user mode: `\\.\Global\Sluice`.

use kernel::{
    status::{NtResult, NtStatus},
    utf16,
    wdf::{ControlDevice, DeviceConfig, DeviceEvents, Driver, FileId, Output, Request},
};
use sluice_protocol::{
    DEVICE_NAME, DEVICE_SDDL, PROTOCOL_VERSION, SYMBOLIC_LINK, Status, ask, flows,
    ioctl::{self, From, MAX_PART_BYTES},
    names,
    upload::Wanted,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::{PAST, SLUICE, UPLOADS, learned, listing, upload::Uploads};

/// Creates the device; nobody can open it before its `opening`. PASSIVE_LEVEL.
pub(crate) fn create(driver: &Driver) -> NtResult<ControlDevice<Device>> {
    let config = DeviceConfig { name: utf16!(DEVICE_NAME), link: utf16!(SYMBOLIC_LINK), sddl: utf16!(DEVICE_SDDL) };
    ControlDevice::create(driver, &config)
}

/// The requests the device handles. PASSIVE_LEVEL, one request at a time.
pub(crate) struct Device;

impl DeviceEvents for Device {
    fn control(request: Request, code: u32) {
        match code {
            ioctl::GET_STATUS => request.complete_with_bytes(status().as_bytes()),
            ioctl::BEGIN_POLICY => upload(request, Uploads::begin),
            ioctl::POLICY_PART => upload(request, Uploads::part),
            ioctl::COMMIT_POLICY => commit(request),
            ioctl::READ_POLICY => read_policy(request),
            ioctl::RECORD_ALL => record_all(request),
            ioctl::TAKE_EVENTS => SLUICE.events.take(request),
            ioctl::FILTER_EVENTS => SLUICE.events.want(request),
            ioctl::RULE_NAMES => rule_names(request),
            ioctl::GET_NAMES => listed::<names::Record>(request, names),
            ioctl::FLOWS => listed::<flows::Record>(request, listing::list),
            ioctl::FORGET_NAMES => forget_names(request),
            ioctl::ANSWER_QUESTIONS => answer_questions(request),
            ioctl::OPEN_QUESTIONS => listed::<ask::Question>(request, questions),
            ioctl::ANSWER => answer(request),
            _ => request.complete(NtStatus::INVALID_DEVICE_REQUEST),
        }
    }

    fn read(request: Request) {
        SLUICE.events.wait(request);
    }

    fn closed(file: FileId) {
        SLUICE.events.forget(file);
        SLUICE.questions.forget(file);
        UPLOADS.abandon(file);
    }
}

fn status() -> Status {
    let counters = SLUICE.counters.sums(&SLUICE.flows);
    let mut status = Status { protocol_version: PROTOCOL_VERSION, counters, ..Status::default() };
    SLUICE.kept.report(&mut status);
    SLUICE.asking.report(&mut status);
    if let Some(policy) = SLUICE.policy.read() {
        status.epoch = policy.epoch;
        status.rules = policy.image.rule_count();
        status.policy_bytes = policy.image.as_bytes().len() as u64;
        status.policy_identity = policy.image.identity();
    }
    status
}

fn upload(mut request: Request, step: fn(&Uploads, FileId, &[u8]) -> NtResult<()>) {
    let file = request.file().ok_or(NtStatus::INVALID_DEVICE_REQUEST);
    let done = file.and_then(|file| step(&UPLOADS, file, request.input()));
    request.complete(done.err().unwrap_or(NtStatus::SUCCESS));
}

fn commit(mut request: Request) {
    // A caller whose buffer cannot hold the reason must not change anything.
    if let Err(status) = request.output(size_of::<sluice_protocol::status::PolicyReply>()) {
        return request.complete(status);
    }
    if !request.input().is_empty() {
        return request.complete(NtStatus::INVALID_PARAMETER);
    }
    let file = request.file().ok_or(NtStatus::INVALID_DEVICE_REQUEST);
    match file.and_then(|file| UPLOADS.take(file)).and_then(|image| SLUICE.policy.load(image)) {
        Ok(reply) => request.complete_with_bytes(reply.as_bytes()),
        Err(status) => request.complete(status),
    }
}

/// Writes records from the number on that the input asks for.
fn listed<R>(mut request: Request, list: impl FnOnce(u64, &mut Output<'_>)) {
    let Ok(From { number }) = From::read_from_bytes(request.input()) else {
        return request.complete(NtStatus::INVALID_PARAMETER);
    };
    let written = request.output(size_of::<R>()).map(|mut output| {
        list(number, &mut output);
        output.written()
    });
    request.answer(written);
}

fn names(from: u64, output: &mut Output<'_>) {
    let now = learned::now();
    SLUICE.learned.list(from, |number, entry| {
        if output.room() < size_of::<names::Record>() {
            return false;
        }
        let mut record = names::Record {
            number,
            address: entry.address.to_be_bytes(),
            seconds: u32::try_from(entry.ends.saturating_sub(now)).unwrap_or(u32::MAX),
            name_bytes: 0,
            reserved: [0; 3],
            name: [0; names::LONGEST],
        };
        for (place, letter) in record.name.iter_mut().zip(entry.name.as_bytes()) {
            *place = *letter;
            record.name_bytes = record.name_bytes.saturating_add(1);
        }
        output.push(record.as_bytes());
        true
    });
}

fn forget_names(mut request: Request) {
    if !request.input().is_empty() {
        return request.complete(NtStatus::INVALID_PARAMETER);
    }
    SLUICE.learned.forget();
    request.complete(NtStatus::SUCCESS);
}

fn answer_questions(mut request: Request) {
    if !request.input().is_empty() {
        return request.complete(NtStatus::INVALID_PARAMETER);
    }
    let who = request.file().zip(request.process_id()).ok_or(NtStatus::INVALID_DEVICE_REQUEST);
    let done = who.and_then(|(file, process)| SLUICE.questions.answers(file, process));
    request.complete(done.err().unwrap_or(NtStatus::SUCCESS));
}

fn questions(from: u64, output: &mut Output<'_>) {
    SLUICE.questions.list(from, output);
}

fn answer(mut request: Request) {
    let Ok(answer) = ask::Answer::read_from_bytes(request.input()) else {
        return request.complete(NtStatus::INVALID_PARAMETER);
    };
    let file = request.file().ok_or(NtStatus::INVALID_DEVICE_REQUEST);
    let done = file.and_then(|file| SLUICE.questions.answer(file, &answer));
    request.complete(done.err().unwrap_or(NtStatus::SUCCESS));
}

fn record_all(mut request: Request) {
    if !request.input().is_empty() {
        return request.complete(NtStatus::INVALID_PARAMETER);
    }
    let status = match request.file().ok_or(NtStatus::INVALID_DEVICE_REQUEST).and_then(|file| SLUICE.events.watch(file))
    {
        Ok(()) => NtStatus::SUCCESS,
        Err(status) => status,
    };
    request.complete(status);
}

fn read_policy(mut request: Request) {
    let Ok(Wanted { offset, epoch, reserved: 0 }) = Wanted::read_from_bytes(request.input()) else {
        return request.complete(NtStatus::INVALID_PARAMETER);
    };
    let Some(policy) = SLUICE.policy.read() else { return request.complete(NtStatus::NOT_FOUND) };
    if policy.epoch != epoch {
        return request.complete(NtStatus::REVISION_MISMATCH);
    }
    let rest = usize::try_from(offset).ok().and_then(|offset| policy.image.as_bytes().get(offset..));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
        return request.complete(NtStatus::INVALID_PARAMETER);
    };
    let written = request.output(1).and_then(|mut output| {
        if output.room() > MAX_PART_BYTES {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        output.push(rest.get(..output.room()).unwrap_or(rest));
        Ok(output.written())
    });
    request.answer(written);
}

fn rule_names(mut request: Request) {
    let Ok(epoch) = <[u8; 4]>::try_from(request.input()).map(u32::from_le_bytes) else {
        return request.complete(NtStatus::INVALID_PARAMETER);
    };
    // Copied first: a request is not completed with the lock held.
    let found = PAST.with(epoch, |names| {
        request.output(names.len()).map(|mut output| {
            output.push(names);
            output.written()
        })
    });
    match found {
        Some(Ok(written)) => request.complete_with(written),
        Some(Err(status)) => request.complete(status),
        None => request.complete(NtStatus::NOT_FOUND),
    }
}
