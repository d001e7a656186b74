//! What a request asks for.

use crate::nt::io::IrpKind;
use crate::wdf::abi::{RequestParameters, request_type};

/// How the data of a control request travels: the low two bits of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// One system buffer for input and output.
    Buffered,
    /// Input in the system buffer, the caller's output buffer locked for reading.
    InDirect,
    /// Input in the system buffer, the caller's output buffer locked for writing.
    OutDirect,
    /// The caller's addresses as they are.
    Neither,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// To open a file.
    Create,
    /// To read this many bytes.
    Read(usize),
    /// To write this many bytes.
    Write(usize),
    /// A device control.
    Control {
        /// Its code.
        code: u32,
        /// Bytes of input.
        input: usize,
        /// Bytes of output.
        output: usize,
    },
}

impl Operation {
    /// `WDF_REQUEST_TYPE`, which is the major function code.
    #[must_use]
    pub(crate) const fn request_type(self) -> u32 {
        match self {
            Self::Create => request_type::CREATE,
            Self::Read(_) => request_type::READ,
            Self::Write(_) => request_type::WRITE,
            Self::Control { .. } => request_type::DEVICE_CONTROL,
        }
    }

    /// How a control request's data travels; `None` for other requests.
    #[must_use]
    pub(crate) const fn method(self) -> Option<Method> {
        match self {
            Self::Control { code, .. } => Some(match code & 3 {
                0 => Method::Buffered,
                1 => Method::InDirect,
                2 => Method::OutDirect,
                _ => Method::Neither,
            }),
            _ => None,
        }
    }

    /// Bytes of output the caller takes.
    #[must_use]
    pub(crate) const fn output_length(self) -> usize {
        match self {
            Self::Read(length) => length,
            Self::Control { output, .. } => output,
            Self::Create | Self::Write(_) => 0,
        }
    }

    /// The most that `IoStatus.Information` may say with a success status, where the framework's verifier looks
    /// (FxRequest::VerifyCompleteInternal): at reads, writes, and controls of user mode that take output. Without
    /// output, a driver may say how much of the input it used; with a warning, how much output there would be.
    #[must_use]
    pub(crate) const fn most_information(self) -> Option<usize> {
        match self {
            Self::Read(length) | Self::Write(length) => Some(length),
            Self::Control { output, .. } if output != 0 => Some(output),
            Self::Create | Self::Control { .. } => None,
        }
    }

    /// What the driver gets as `WDF_REQUEST_PARAMETERS`.
    #[must_use]
    pub(crate) const fn parameters(self) -> RequestParameters {
        let kind = self.request_type();
        match self {
            Self::Create => RequestParameters::other(kind),
            Self::Read(length) | Self::Write(length) => RequestParameters::transfer(kind, length, 0, 0),
            Self::Control { code, input, output } => RequestParameters::control(kind, output, input, code, 0),
        }
    }
}

impl From<IrpKind> for Operation {
    fn from(kind: IrpKind) -> Self {
        match kind {
            IrpKind::Read { length } => Self::Read(length),
            IrpKind::Write { length } => Self::Write(length),
            IrpKind::DeviceControl { code, input, output } => Self::Control { code, input, output },
        }
    }
}
