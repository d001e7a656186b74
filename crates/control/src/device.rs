//! The driver's control device, with typed requests.

use crate::ask::Answered;
use crate::error::ControlError;
use sluice_host::{Device, Host, HostError, HostResult, ServiceState, code};
use sluice_protocol::ask;
use sluice_protocol::filter::Filter;
use sluice_protocol::flows;
use sluice_protocol::names::Record;
use sluice_protocol::status::PolicyReply;
use sluice_protocol::upload::{Begin, Part, Wanted};
use sluice_protocol::{DEVICE_PATH, PROTOCOL_VERSION, SERVICE_NAME, Status, ioctl};
use std::collections::BTreeMap;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// The open control device of a driver that speaks our protocol.
pub struct Control(Box<dyn Device>);

impl Control {
    /// Opens the device and checks the protocol.
    ///
    /// # Errors
    /// The driver is not installed, not loaded or from another build, or the caller may not open it.
    pub fn open(host: &dyn Host) -> Result<(Self, Status), ControlError> {
        let device = match host.open_device(DEVICE_PATH) {
            Ok(device) => Self(device),
            Err(error) if matches!(error.code, code::ERROR_FILE_NOT_FOUND | code::ERROR_PATH_NOT_FOUND) => {
                return Err(absence(host, error));
            }
            Err(error) => return Err(ControlError::step("opening the driver's device")(error)),
        };
        let status = device.status()?;
        Ok((device, status))
    }

    /// [`ioctl::GET_STATUS`].
    ///
    /// # Errors
    /// The driver refused, speaks another protocol, or its answer has another length.
    pub fn status(&self) -> Result<Status, ControlError> {
        // A driver of another version has more counters, or fewer; it says which version first.
        let mut answer = vec![0; 4 * size_of::<Status>()];
        let written = self.ask("the status", ioctl::GET_STATUS, &mut answer)?;
        let answer = answer.get(..written).unwrap_or_default();
        if let Some(version) = answer.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
            && version != PROTOCOL_VERSION
        {
            return Err(ControlError::Protocol { driver: version, ours: PROTOCOL_VERSION });
        }
        whole::<Status>("the status", written)?;
        Status::read_from_bytes(answer)
            .map_err(|_| ControlError::Answer { request: "the status", what: "it is none".to_owned() })
    }

    /// Uploads an image and puts it in force ([`upload`]).
    ///
    /// # Errors
    /// A request failed. If the driver refuses the image, that is not an error here: the reply says so.
    pub fn set_policy(&self, image: &[u8]) -> Result<PolicyReply, ControlError> {
        upload(&*self.0, image)
    }

    /// The image in force, by [`ioctl::READ_POLICY`]; `None` without one.
    ///
    /// # Errors
    /// A request failed, or the policy was swapped each time it was asked for.
    pub fn policy(&self) -> Result<Option<Vec<u8>>, ControlError> {
        /// How often to begin again when the policy is swapped meanwhile.
        const TRIES: usize = 8;
        for _ in 0..TRIES {
            let Status { epoch, policy_bytes: bytes, .. } = self.status()?;
            if usize::try_from(bytes).is_err() || bytes > ioctl::MAX_POLICY_BYTES as u64 {
                let what = format!("it claims a policy of {bytes} bytes");
                return Err(ControlError::Answer { request: "the policy", what });
            }
            match self.parts(epoch, bytes) {
                Ok(image) => return Ok(Some(image)),
                Err(error) if error.code == code::ERROR_NOT_FOUND => return Ok(None),
                Err(error) if error.code == code::ERROR_REVISION_MISMATCH => {}
                Err(error) => return Err(ControlError::step("asking the driver for the policy")(error)),
            }
        }
        Err(ControlError::Answer { request: "the policy", what: "it was swapped while it was being read".to_owned() })
    }

    fn parts(&self, epoch: u32, bytes: u64) -> HostResult<Vec<u8>> {
        let mut image = Vec::new();
        loop {
            let offset = image.len() as u64;
            let left = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut part = vec![0; left.clamp(1, ioctl::MAX_PART_BYTES)];
            let wanted = Wanted { offset, epoch, reserved: 0 };
            let written = self.0.control(ioctl::READ_POLICY, wanted.as_bytes(), &mut part)?;
            let Some(part) = part.get(..written).filter(|part| !part.is_empty()) else {
                return Err(HostError::new("DeviceIoControl", code::ERROR_BAD_LENGTH));
            };
            image.extend_from_slice(part);
            if image.len() as u64 >= bytes {
                return Ok(image);
            }
        }
    }

    /// [`ioctl::FLOWS`], until there are no more: each flow that lives throughout is in it once.
    ///
    /// # Errors
    /// A request failed, or its answer is no list of flows in order.
    pub fn flows(&self) -> Result<Vec<flows::Record>, ControlError> {
        const AT_ONCE: usize = 1024;
        let mut all = BTreeMap::new();
        let mut from = 0;
        loop {
            let mut output = vec![0; AT_ONCE * size_of::<flows::Record>()];
            let asking = ControlError::step("asking the driver for flows");
            let input = ioctl::From { number: from };
            let written = self.0.control(ioctl::FLOWS, input.as_bytes(), &mut output).map_err(asking)?;
            let part = output.get(..written).and_then(|bytes| <[flows::Record]>::ref_from_bytes(bytes).ok());
            let in_order = |part: &&[flows::Record]| {
                part.iter()
                    .try_fold(from, |least, one| (one.number >= least).then(|| one.number.saturating_add(1)))
                    .is_some()
            };
            let Some(part) = part.filter(in_order) else {
                return Err(ControlError::Answer {
                    request: "flows",
                    what: "it is no list of flows in order".to_owned(),
                });
            };
            let Some(last) = part.last() else { return Ok(all.into_values().collect()) };
            all.extend(part.iter().map(|one| (one.flow.flow, *one)));
            // The last list may have more, and places in it may have changed: again from its beginning, unless it fills an
            // answer alone.
            let list = last.number >> flows::PLACE_BITS << flows::PLACE_BITS;
            let whole = part.len() < AT_ONCE || list <= from;
            from = if whole { last.number.saturating_add(1) } else { list };
        }
    }

    /// [`ioctl::RULE_NAMES`]: the rules' names of a policy that is no longer in force, `None` if they are not kept.
    ///
    /// # Errors
    /// The request failed, or the answer is no list of names.
    pub fn rule_names(&self, epoch: u32) -> Result<Option<Vec<String>>, ControlError> {
        let mut names = vec![0; ioctl::MAX_RULE_NAMES_BYTES];
        match self.0.control(ioctl::RULE_NAMES, &epoch.to_le_bytes(), &mut names) {
            Ok(written) => {
                let names = listed(names.get(..written).unwrap_or_default());
                let what = || "it is no list of names".to_owned();
                names.map(Some).ok_or_else(|| ControlError::Answer { request: "the rules' names", what: what() })
            }
            Err(error) if error.code == code::ERROR_NOT_FOUND => Ok(None),
            Err(error) => Err(ControlError::step("asking the driver for the rules' names")(error)),
        }
    }

    /// [`ioctl::RECORD_ALL`], until this is dropped.
    ///
    /// # Errors
    /// The driver refused: too many handles ask already.
    pub fn record_all(&self) -> Result<(), ControlError> {
        self.ask("every decision", ioctl::RECORD_ALL, &mut []).map(drop)
    }

    /// [`ioctl::TAKE_EVENTS`]: the events that there are, without waiting.
    ///
    /// # Errors
    /// The request failed.
    pub fn take_events(&self, output: &mut [u8]) -> Result<usize, ControlError> {
        self.ask("events", ioctl::TAKE_EVENTS, output)
    }

    /// [`ioctl::FILTER_EVENTS`].
    ///
    /// # Errors
    /// The request failed.
    pub fn filter_events(&self, filter: &Filter) -> Result<(), ControlError> {
        let asking = ControlError::step("telling the driver which events are wanted");
        self.0.control(ioctl::FILTER_EVENTS, filter.as_bytes(), &mut []).map(drop).map_err(asking)
    }

    /// [`ioctl::GET_NAMES`], as often as it takes.
    ///
    /// # Errors
    /// The driver refused, or its answer is no whole number of records in order.
    pub fn names(&self) -> Result<Vec<Record>, ControlError> {
        const AT_ONCE: usize = 512;
        let (mut all, mut next) = (Vec::<Record>::new(), 0);
        loop {
            let mut output = vec![0; AT_ONCE * size_of::<Record>()];
            let asking = ControlError::step("asking the driver for names");
            let from = ioctl::From { number: next };
            let written = self.0.control(ioctl::GET_NAMES, from.as_bytes(), &mut output).map_err(asking)?;
            let part = output.get(..written).and_then(|bytes| <[Record]>::ref_from_bytes(bytes).ok());
            let in_order = |part: &&[Record]| {
                part.iter().try_fold(next, |from, one| (one.number >= from).then_some(one.number + 1)).is_some()
            };
            let Some(part) = part.filter(in_order) else {
                let what = format!("{written} bytes that are no records in order");
                return Err(ControlError::Answer { request: "names", what });
            };
            let Some(last) = part.last() else { return Ok(all) };
            next = last.number + 1;
            all.extend(part);
        }
    }

    /// [`ioctl::FORGET_NAMES`].
    ///
    /// # Errors
    /// The driver refused.
    pub fn forget_names(&self) -> Result<(), ControlError> {
        self.ask("no more names", ioctl::FORGET_NAMES, &mut []).map(drop)
    }

    /// [`ioctl::ANSWER_QUESTIONS`], until this is dropped.
    ///
    /// # Errors
    /// Another program answers, or the driver refused.
    pub fn answer_questions(&self) -> Result<(), ControlError> {
        self.0.control(ioctl::ANSWER_QUESTIONS, &[], &mut []).map(drop).map_err(|error| match error.code {
            code::ERROR_BUSY => ControlError::AnsweredElsewhere,
            _ => ControlError::step("asking the driver to be asked")(error),
        })
    }

    /// [`ioctl::OPEN_QUESTIONS`], all at once.
    ///
    /// # Errors
    /// The driver refused, or its answer is no whole number of questions.
    pub fn questions(&self) -> Result<Vec<ask::Question>, ControlError> {
        let mut output = vec![0; ask::MAX_QUESTIONS * size_of::<ask::Question>()];
        let asking = ControlError::step("asking the driver for questions");
        let from = ioctl::From { number: 0 };
        let written = self.0.control(ioctl::OPEN_QUESTIONS, from.as_bytes(), &mut output).map_err(asking)?;
        let (all, rest) = output.get(..written).unwrap_or_default().as_chunks::<{ size_of::<ask::Question>() }>();
        if !rest.is_empty() {
            let what = format!("{written} bytes that are no questions");
            return Err(ControlError::Answer { request: "questions", what });
        }
        Ok(all.iter().filter_map(|bytes| ask::Question::read_from_bytes(bytes).ok()).collect())
    }

    /// [`ioctl::ANSWER`].
    ///
    /// # Errors
    /// The driver refused for another reason than that the question is closed or there is no room.
    pub fn answer(&self, answer: &ask::Answer) -> Result<Answered, ControlError> {
        match self.0.control(ioctl::ANSWER, answer.as_bytes(), &mut []) {
            Ok(_) => Ok(Answered::Yes),
            Err(error) if error.code == code::ERROR_NOT_FOUND => Ok(Answered::Closed),
            Err(error) if error.code == code::ERROR_NO_SYSTEM_RESOURCES => Ok(Answered::NotRemembered),
            Err(error) => Err(ControlError::step("answering a question")(error)),
        }
    }

    /// Reads events; 0 bytes when none came within `timeout`.
    ///
    /// # Errors
    /// The read failed.
    pub fn read(&self, output: &mut [u8], timeout: Duration) -> Result<usize, ControlError> {
        self.0.read(output, timeout).map_err(ControlError::step("reading events from the driver"))
    }

    fn ask(&self, what: &str, code: u32, output: &mut [u8]) -> Result<usize, ControlError> {
        self.0.control(code, &[], output).map_err(ControlError::step(format!("asking the driver for {what}")))
    }
}

/// [`ioctl::BEGIN_POLICY`], a [`ioctl::POLICY_PART`] for every [`ioctl::MAX_PART_BYTES`] of the image, and
/// [`ioctl::COMMIT_POLICY`].
///
/// # Errors
/// A request failed. If the driver refuses the image, that is not an error here: the reply says so.
pub fn upload(device: &dyn Device, image: &[u8]) -> Result<PolicyReply, ControlError> {
    let send = |code: u32, input: &[u8], output: &mut [u8]| {
        device.control(code, input, output).map_err(ControlError::step("giving the driver a policy"))
    };
    let mut offset = 0;
    send(ioctl::BEGIN_POLICY, Begin { bytes: image.len() as u64 }.as_bytes(), &mut [])?;
    for bytes in image.chunks(ioctl::MAX_PART_BYTES) {
        let part = [Part { offset }.as_bytes(), bytes].concat();
        send(ioctl::POLICY_PART, &part, &mut [])?;
        offset += bytes.len() as u64;
    }
    let mut reply = PolicyReply::accepted(0);
    let written = send(ioctl::COMMIT_POLICY, &[], reply.as_mut_bytes())?;
    whole::<PolicyReply>("a policy", written)?;
    Ok(reply)
}

/// The names that [`ioctl::RULE_NAMES`] gives.
fn listed(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        names.push(str::from_utf8(name).ok()?.to_owned());
        bytes = rest;
    }
    Some(names)
}

/// Why there is no device.
fn absence(host: &dyn Host, error: HostError) -> ControlError {
    match host.service_state(SERVICE_NAME) {
        Ok(ServiceState::Absent) => ControlError::NotInstalled,
        Ok(ServiceState::Stopped) => ControlError::NotLoaded,
        Ok(ServiceState::StopPending) => ControlError::Unloading,
        Ok(ServiceState::Running) => ControlError::step("opening the driver's device")(error),
        Err(error) => ControlError::step("querying the service")(error),
    }
}

/// Refuses an answer that is not exactly one `T`.
fn whole<T: FromBytes>(request: &'static str, written: usize) -> Result<(), ControlError> {
    if written == size_of::<T>() {
        return Ok(());
    }
    Err(ControlError::Answer { request, what: format!("{written} bytes instead of {}", size_of::<T>()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_of_another_version_is_told_by_its_version_whatever_the_length_of_its_status() {
        struct Other(Vec<u8>);
        impl Device for Other {
            fn control(&self, _: u32, _: &[u8], output: &mut [u8]) -> HostResult<usize> {
                output[..self.0.len()].copy_from_slice(&self.0);
                Ok(self.0.len())
            }
            fn read(&self, _: &mut [u8], _: Duration) -> HostResult<usize> {
                Ok(0)
            }
        }
        let ours = size_of::<Status>();
        for length in [ours - 8, ours, ours + 40] {
            let mut status = vec![0; length];
            status[0] = 200;
            let error = Control(Box::new(Other(status))).status().unwrap_err();
            assert!(matches!(error, ControlError::Protocol { driver: 200, ours: PROTOCOL_VERSION }), "{error}");
        }
        let mut short = PROTOCOL_VERSION.to_le_bytes().to_vec();
        short.push(0);
        let error = Control(Box::new(Other(short))).status().unwrap_err();
        assert!(error.to_string().contains("5 bytes"), "{error}");
    }

    #[test]
    fn names_are_listed_with_their_lengths() {
        assert_eq!(listed(&[]), Some(Vec::new()));
        assert_eq!(listed(&[1, 0, 0, 0, b'a', 0, 0, 0, 0]), Some(vec!["a".to_owned(), String::new()]));
        for damaged in [&[1, 0, 0][..], &[2, 0, 0, 0, b'a'], &[1, 0, 0, 0, 0xff], &[255, 255, 255, 255, 1]] {
            assert_eq!(listed(damaged), None, "{damaged:?}");
        }
    }
}
