//! Frames and messages.
//!
//! A frame is a 32-bit little-endian length and that many bytes of postcard. The client opens with [`Hello`], the
//! server answers with the same; from then on each [`Request`] gets one reply, a `Result<T, HostError>` whose `T` the
//! request implies.

use crate::{Callout, Filter, Guid, Parameter, Provider, ServiceConfig, StartType, Sublayer};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use std::time::Duration;

/// The longest frame: the largest policy image and room for what surrounds it.
pub(super) const MAX_FRAME: usize = sluice_protocol::ioctl::MAX_POLICY_BYTES + 4096;
/// The most output a client may ask of one device call.
pub(super) const MAX_OUTPUT: usize = sluice_protocol::ioctl::MAX_POLICY_BYTES;
/// The longest the server waits in one read. A client that wants to wait longer asks again; so within this time the
/// server notices that its client is gone.
pub(super) const MAX_READ_WAIT: Duration = Duration::from_millis(250);
/// The first bytes each side sends, followed by the protocol version.
pub(super) const HELLO: Hello = Hello { magic: *b"ntsim-host", version: 8 };

/// The opening message of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) magic: [u8; 10],
    pub(super) version: u32,
}

/// The requests on a connection that has opened nothing yet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    ServiceState(String),
    ServiceDriver(String),
    CreateService(ServiceConfig),
    StartService(String),
    StopService(String),
    DeleteService(String),
    SetServiceDriver(String, String),
    ServiceStart(String),
    SetServiceStart(String, StartType),
    ServiceParameter(String, String),
    SetServiceParameter(String, String, Option<Parameter>),
    System,
    Environment(String),
    Signature(String),
    ReadDriver(String),
    WriteDriver(String, Vec<u8>),
    RenameDriver(String, String),
    DeleteDriver(String),
    DeleteDriverAtRestart(String),
    AppId(String),
    InterfaceLuid(String),
    /// From here on the connection speaks [`EngineRequest`].
    OpenEngine,
    /// From here on the connection speaks [`DeviceRequest`].
    OpenDevice(String),
}

/// The requests to an open engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum EngineRequest {
    Begin,
    Commit,
    Abort,
    AddProvider(Provider),
    AddSublayer(Sublayer),
    AddCallout(Callout),
    AddFilter(Filter),
    DeleteProvider(Guid),
    DeleteSublayer(Guid),
    DeleteCallout(Guid),
    DeleteFilter(Guid),
    Provider(Guid),
    Sublayer(Guid),
    Callout(Guid),
    Filters(Option<Guid>),
    BootFilters(Guid),
    List,
    NetEvents,
    Options,
}

/// The requests to an open device.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum DeviceRequest<'a> {
    Control {
        code: u32,
        #[serde(borrow, with = "bytes")]
        input: &'a [u8],
        capacity: u64,
    },
    Read {
        capacity: u64,
        wait: Duration,
    },
}

/// Bytes as one run instead of a sequence of numbers.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}

/// Sends one message.
pub(super) fn send<T: Serialize>(mut stream: impl Write, message: &T) -> io::Result<()> {
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(invalid)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(invalid(format_args!("a message of {length} bytes is longer than the {MAX_FRAME} allowed")));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    stream.write_all(&frame)
}

/// Receives one frame into `buffer`. `false`: the other side closed the connection between two frames.
pub(super) fn receive_frame(mut stream: impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1])? == 0 {
        return Ok(false);
    }
    stream.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(invalid(format_args!("a frame of {length} bytes is longer than the {MAX_FRAME} allowed")));
    }
    buffer.clear();
    // Grows with what arrives, not with what the length claims.
    let received = stream.take(length as u64).read_to_end(buffer)?;
    if received < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(true)
}

/// Decodes a whole frame; bytes left over are an error.
pub(super) fn decode<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> io::Result<T> {
    match postcard::take_from_bytes(frame).map_err(invalid)? {
        (message, []) => Ok(message),
        (_, rest) => Err(invalid(format_args!("{} bytes after the end of a message", rest.len()))),
    }
}

/// Receives one message; it is an error if the connection ends here.
pub(super) fn receive<T: DeserializeOwned>(stream: impl Read) -> io::Result<T> {
    let mut frame = Vec::new();
    if !receive_frame(stream, &mut frame)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(&frame)
}

fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}
