//! WinDivert as a program sees it: what WinDivert.dll of version 2.2 says to its driver.
//!
//! Source of codes, numbers and layouts: include/windivert.h and include/windivert_device.h of basil00/WinDivert, 2.2.

use nt_abi::NtStatus;
use ntsim::{
    machine::Machine,
    nt::io::{IrpKind, OpenFile, PendingIo},
};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

/// `WINDIVERT_LAYER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Network = 0,
    Flow = 2,
    Socket = 3,
    Reflect = 4,
}

/// `WINDIVERT_FLAG_*`.
pub mod flag {
    pub const SNIFF: u64 = 1;
    pub const DROP: u64 = 2;
    pub const RECV_ONLY: u64 = 4;
}

/// `WINDIVERT_EVENT`.
pub mod event {
    pub const FLOW_ESTABLISHED: u8 = 1;
    pub const FLOW_DELETED: u8 = 2;
    pub const SOCKET_BIND: u8 = 3;
    pub const SOCKET_CONNECT: u8 = 4;
    pub const SOCKET_CLOSE: u8 = 7;
    pub const REFLECT_OPEN: u8 = 8;
    pub const REFLECT_CLOSE: u8 = 9;
}

/// `WINDIVERT_PARAM_*`.
pub mod param {
    pub const QUEUE_LENGTH: u32 = 0;
    pub const VERSION_MAJOR: u32 = 3;
    pub const VERSION_MINOR: u32 = 4;
}

/// `STATUS_PIPE_EMPTY`: what a read gets after a shutdown, as ERROR_NO_DATA.
pub const PIPE_EMPTY: NtStatus = NtStatus(0xC000_00D9_u32 as i32);

/// `CTL_CODE(FILE_DEVICE_NETWORK, function, method, access)`.
const fn control(function: u32, method: u32, access: u32) -> u32 {
    0x12 << 16 | access << 14 | function << 2 | method
}
const IN_DIRECT: u32 = 1;
const OUT_DIRECT: u32 = 2;
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
const INITIALIZE: u32 = control(0x921, OUT_DIRECT, READ_WRITE);
const STARTUP: u32 = control(0x922, IN_DIRECT, READ_WRITE);
const RECV: u32 = control(0x923, OUT_DIRECT, READ);
const SEND: u32 = control(0x924, IN_DIRECT, READ_WRITE);
const SET_PARAM: u32 = control(0x925, IN_DIRECT, READ_WRITE);
const GET_PARAM: u32 = control(0x926, OUT_DIRECT, READ);
const SHUTDOWN: u32 = control(0x927, IN_DIRECT, READ_WRITE);

/// `WINDIVERT_PRIORITY_HIGHEST`.
const HIGHEST: i32 = 30_000;

/// A filter object: tests that must all hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `WINDIVERT_FILTER_FIELD_*`, `WINDIVERT_FILTER_TEST_*`, argument.
    tests: Vec<(u32, u32, [u32; 4])>,
    /// `WINDIVERT_FILTER_FLAG_*`: what the driver has to register for. The DLL finds them by analysing the filter.
    flags: u64,
}

/// `WINDIVERT_FILTER_FLAG_*`.
mod registers {
    pub(super) const INBOUND: u64 = 0x10;
    pub(super) const OUTBOUND: u64 = 0x20;
    pub(super) const BOTH_VERSIONS: u64 = 0x40 | 0x80;
    /// The FLOW and SOCKET layers' events.
    pub(super) const EVENTS: u64 = 0x3F00;
}

impl Filter {
    /// Everything, both ways.
    pub fn all() -> Self {
        let flags = registers::INBOUND | registers::OUTBOUND | registers::BOTH_VERSIONS | registers::EVENTS;
        Self { tests: Vec::new(), flags }
    }

    /// What is sent.
    pub fn outbound() -> Self {
        let flags = registers::OUTBOUND | registers::BOTH_VERSIONS;
        Self { flags, ..Self::all().test(2, 1) }
    }

    /// What is received.
    pub fn inbound() -> Self {
        let flags = registers::INBOUND | registers::BOTH_VERSIONS;
        Self { flags, ..Self::all().test(1, 1) }
    }

    /// And `field == value`.
    fn test(mut self, field: u32, value: u32) -> Self {
        self.tests.push((field, 0, [value, 0, 0, 0]));
        self
    }

    /// And `udp.DstPort == port`.
    pub fn udp_to(self, port: u16) -> Self {
        self.test(9, 1).test(54, port.into())
    }

    /// And `udp.SrcPort == port`.
    pub fn udp_from(self, port: u16) -> Self {
        self.test(9, 1).test(53, port.into())
    }

    /// And `tcp.DstPort == port`.
    pub fn tcp_to(self, port: u16) -> Self {
        self.test(8, 1).test(39, port.into())
    }

    /// And `tcp.SrcPort == port`.
    pub fn tcp_from(self, port: u16) -> Self {
        self.test(8, 1).test(38, port.into())
    }

    /// And `tcp.PayloadLength > 0`.
    pub fn with_tcp_payload(mut self) -> Self {
        const GREATER: u32 = 4;
        self.tests.push((52, GREATER, [0; 4]));
        self
    }

    /// And `ip.DstAddr == address` or `ipv6.DstAddr == address`.
    pub fn to(mut self, address: IpAddr) -> Self {
        self.tests.push(match address {
            // IPv4 addresses are compared as ::ffff:0:0/96 addresses, in the host's order of bytes.
            IpAddr::V4(v4) => (22, 0, [v4.to_bits(), 0xFFFF, 0, 0]),
            IpAddr::V6(v6) => (29, 0, words(v6)),
        });
        self
    }

    /// And `remotePort == port`, at the layers FLOW and SOCKET.
    pub fn remote_port(self, port: u16) -> Self {
        self.test(64, port.into())
    }

    /// As an array of `WINDIVERT_FILTER`.
    fn bytes(&self) -> Vec<u8> {
        const ACCEPT: u32 = 0x7FFE;
        const REJECT: u32 = 0x7FFF;
        // `zero == 0` holds always.
        let tests = if self.tests.is_empty() { vec![(0, 0, [0; 4])] } else { self.tests.clone() };
        let last = tests.len() - 1;
        let object = |(at, (field, test, argument)): (usize, (u32, u32, [u32; 4]))| {
            let success = if at == last { ACCEPT } else { at as u32 + 1 };
            let head = [field | test << 11 | success << 16, REJECT];
            head.into_iter().chain(argument).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        tests.into_iter().enumerate().flat_map(object).collect()
    }
}

/// An IPv6 address as WinDivert has it: the least significant word first.
fn words(address: Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    core::array::from_fn(|at| (bits >> (32 * at)) as u32)
}

/// `WINDIVERT_ADDRESS`.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub struct Address {
    pub timestamp: i64,
    pub layer: u8,
    pub event: u8,
    bits: u8,
    reserved1: u8,
    reserved2: u32,
    data: [u8; 64],
}

const _: () = assert!(size_of::<Address>() == 80);

/// What the layers FLOW and SOCKET say of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub process: u32,
    pub local: (IpAddr, u16),
    pub remote: (IpAddr, u16),
    pub protocol: u8,
}

impl Address {
    pub fn zeroed() -> Self {
        Self { timestamp: 0, layer: 0, event: 0, bits: 0, reserved1: 0, reserved2: 0, data: [0; 64] }
    }

    /// For a packet that is made up, with its checksums right.
    pub fn of_network(outbound: bool, ipv6: bool) -> Self {
        let mut address = Self::zeroed();
        address.bits = u8::from(outbound) << 1 | u8::from(ipv6) << 4 | 0xE0;
        address.data[0] = 7; // the only interface
        address
    }

    fn bit(&self, number: u8) -> bool {
        self.bits >> number & 1 != 0
    }

    pub fn is_sniffed(&self) -> bool {
        self.bit(0)
    }

    pub fn is_outbound(&self) -> bool {
        self.bit(1)
    }

    pub fn is_impostor(&self) -> bool {
        self.bit(3)
    }

    pub fn is_ipv6(&self) -> bool {
        self.bit(4)
    }

    /// The driver is to compute all checksums.
    pub fn without_checksums(&self) -> Self {
        Self { bits: self.bits & 0x1F, ..self.clone() }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|byte| self.data[at + byte]))
    }

    /// The interface and sub-interface, at the layer NETWORK.
    pub fn interface(&self) -> (u32, u32) {
        (self.word(0), self.word(4))
    }

    /// At the layers FLOW and SOCKET.
    pub fn endpoint(&self) -> Endpoint {
        let address = |at| {
            let bits =
                (0..4_usize).fold(0_u128, |bits, word| bits | u128::from(self.word(at + 4 * word)) << (32 * word));
            let v6 = Ipv6Addr::from_bits(bits);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        };
        let port = |at: usize| u16::from_le_bytes([self.data[at], self.data[at + 1]]);
        Endpoint {
            process: self.word(16),
            local: (address(20), port(52)),
            remote: (address(36), port(54)),
            protocol: self.data[56],
        }
    }

    /// The process that opened the handle, at the layer REFLECT.
    pub fn reflected_process(&self) -> u32 {
        self.word(8)
    }
}

/// Where the driver writes what it says about a packet.
struct Room {
    address: Address,
    length: u32,
}

/// A read under way. Forgotten without [`Self::wait`], it leaves its memory to the driver.
pub struct Reading {
    pending: PendingIo,
    room: *mut Room,
}

impl Reading {
    pub fn is_done(&self) -> bool {
        self.pending.is_done()
    }

    /// What it ended with, which must be soon.
    pub fn status(self) -> NtStatus {
        assert!(self.pending.is_done(), "the read still waits");
        self.wait(Duration::ZERO).map_or_else(|status| status, |_| NtStatus::SUCCESS)
    }

    fn wait(self, patience: Duration) -> Result<(Vec<u8>, Address), NtStatus> {
        let (status, packet) = self.pending.wait(Some(patience)).unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
        // SAFETY: from `into_raw`; the request is completed, so the driver writes there no more.
        let room = unsafe { Box::from_raw(self.room) };
        if !status.is_success() {
            return Err(status);
        }
        assert_eq!(room.length as usize, size_of::<Address>(), "one address for one packet");
        Ok((packet, room.address))
    }
}

/// An open WinDivert handle.
#[derive(Debug)]
pub struct Handle {
    file: OpenFile,
}

/// `WINDIVERT_IOCTL`: 16 bytes, read according to the code.
fn message(first: u64, second: u64) -> [u8; 16] {
    let mut message = [0; 16];
    message[..8].copy_from_slice(&first.to_le_bytes());
    message[8..].copy_from_slice(&second.to_le_bytes());
    message
}

impl Handle {
    /// `WinDivertOpen`.
    pub fn open(
        machine: &Arc<Machine>,
        filter: &Filter,
        layer: Layer,
        priority: i16,
        flags: u64,
    ) -> Result<Self, NtStatus> {
        let handle = Self { file: machine.io.open(machine, r"\\.\WinDivert")? };
        let priority = (i32::from(priority) + HIGHEST) as u64;
        let version = handle.call(INITIALIZE, message(layer as u64 | priority << 32, flags), &hello())?;
        assert_eq!(version[..8], 0x5359_5376_6964_5723_u64.to_le_bytes(), "WINDIVERT_MAGIC_SYS");
        let driver: Vec<u32> = (8..20).step_by(4).map(|at| u32::from(version[at])).collect();
        assert_eq!(driver, [2, 2, 64], "the driver's version and bits");
        handle.call(STARTUP, message(filter.flags, 0), &filter.bytes())?;
        Ok(handle)
    }

    /// `DeviceIoControl`. `data` is the output buffer with what it holds before; returned is what it holds after.
    fn call(&self, code: u32, input: [u8; 16], data: &[u8]) -> Result<Vec<u8>, NtStatus> {
        let kind = IrpKind::DeviceControl { code, input: input.len(), output: data.len() };
        let mut after = data.to_vec();
        let pending = self.file.start_direct(kind, &input, data).unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
        let (status, _) = pending.wait_into(&mut after, None).unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
        if status.is_success() { Ok(after) } else { Err(status) }
    }

    /// `WinDivertRecvEx`: one packet, or `None` when none comes in time.
    pub fn receive(&self, patience: Duration) -> Option<(Vec<u8>, Address)> {
        match self.try_receive(patience) {
            Ok(received) => Some(received),
            Err(NtStatus::CANCELLED) => None,
            Err(status) => panic!("WinDivertRecv: {status}"),
        }
    }

    /// The same with its status: STATUS_CANCELLED when none comes in time.
    pub fn try_receive(&self, patience: Duration) -> Result<(Vec<u8>, Address), NtStatus> {
        self.start_receiving().wait(patience)
    }

    /// `WinDivertRecvEx` with an OVERLAPPED.
    pub fn start_receiving(&self) -> Reading {
        let room = Box::into_raw(Box::new(Room { address: Address::zeroed(), length: size_of::<Address>() as u32 }));
        // SAFETY: just made; only addresses of its fields are taken.
        let (address, length) = unsafe { (&raw mut (*room).address, &raw mut (*room).length) };
        let kind = IrpKind::DeviceControl { code: RECV, input: 16, output: 65_575 /* WINDIVERT_MTU_MAX */ };
        let pending = self.file.start(kind, &message(address as u64, length as u64));
        Reading { pending: pending.unwrap_or_else(|bugcheck| panic!("{bugcheck}")), room }
    }

    /// `WinDivertSendEx`.
    pub fn send(&self, packet: &[u8], address: &Address) -> Result<(), NtStatus> {
        let input = message(core::ptr::from_ref(address) as u64, size_of::<Address>() as u64);
        self.call(SEND, input, packet).map(|_| ())
    }

    /// `WinDivertShutdown`: 1 receiving, 2 sending, 3 both.
    pub fn shutdown(&self, how: u32) -> Result<(), NtStatus> {
        self.call(SHUTDOWN, message(how.into(), 0), &[]).map(|_| ())
    }

    /// `WinDivertSetParam`.
    pub fn set(&self, param: u32, value: u64) -> Result<(), NtStatus> {
        self.call(SET_PARAM, message(value, param.into()), &[]).map(|_| ())
    }

    /// `WinDivertGetParam`.
    pub fn get(&self, param: u32) -> Result<u64, NtStatus> {
        let value = self.call(GET_PARAM, message(param.into(), 0), &[0; 8])?;
        Ok(u64::from_le_bytes(value.try_into().expect("eight bytes")))
    }

    /// Sends bytes of a filter object as they are.
    pub fn open_with_object(machine: &Arc<Machine>, object: &[u8]) -> Result<Self, NtStatus> {
        let handle = Self { file: machine.io.open(machine, r"\\.\WinDivert")? };
        handle.call(INITIALIZE, message((HIGHEST as u64) << 32, 0), &hello())?;
        handle.call(STARTUP, message(registers::OUTBOUND | registers::BOTH_VERSIONS, 0), object)?;
        Ok(handle)
    }
}

/// `WINDIVERT_VERSION` as the DLL sends it.
fn hello() -> [u8; 64] {
    let mut version = [0; 64];
    version[..8].copy_from_slice(&0x4C4C_4476_6964_5724_u64.to_le_bytes()); // WINDIVERT_MAGIC_DLL
    for (at, value) in [(8, 2_u32), (12, 2), (16, 64)] {
        version[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    version
}
