//! The parsers behind functions that a linker keeps, and a panic handler that leaves a mark in the file where any of
//! them can reach it.
#![no_std]

use core::{hint::black_box, panic::PanicInfo};

use sluice_content::{
    Answer, Reason, dns,
    flow::{Datagrams, Decided, Stream},
    http1, http2, quic, tls,
};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        black_box(b"the panic handler is reachable");
    }
}

#[cfg(feature = "planted")]
#[unsafe(no_mangle)]
pub fn planted(bytes: &[u8], at: usize) -> u8 {
    bytes[at]
}

#[unsafe(no_mangle)]
pub fn client_hello<'p>(parser: &'p mut tls::ClientHello, bytes: &[u8]) -> Answer<'p> {
    parser.push(bytes)
}

#[unsafe(no_mangle)]
pub fn request<'p>(parser: &'p mut http1::Request, bytes: &[u8]) -> Answer<'p> {
    parser.push(bytes)
}

#[unsafe(no_mangle)]
pub fn http2_connection<'p>(parser: &'p mut http2::Connection, bytes: &[u8]) -> Answer<'p> {
    parser.push(bytes)
}

#[unsafe(no_mangle)]
pub fn query_in_a_stream<'p>(parser: &'p mut dns::Query, bytes: &[u8]) -> Answer<'p> {
    parser.push(bytes)
}

#[unsafe(no_mangle)]
pub fn query_in_a_datagram(bytes: &[u8]) -> dns::Query {
    dns::Query::datagram(bytes)
}

#[unsafe(no_mangle)]
pub fn dns_message(bytes: &[u8]) -> Result<(), Reason> {
    let (framed, _) = dns::framed(bytes).unwrap_or_default();
    dns::Message::read(framed)?.check()
}

#[unsafe(no_mangle)]
pub fn quic_connection<'p>(parser: &'p mut quic::Connection, datagram: &[u8], window: &mut quic::Window) -> Answer<'p> {
    parser.push(datagram, window)
}

#[unsafe(no_mangle)]
pub fn stream<'f>(flow: &'f mut Stream, bytes: &[u8]) -> Decided<'f> {
    flow.push(bytes)
}

#[unsafe(no_mangle)]
pub fn datagrams<'f>(flow: &'f mut Datagrams, datagram: &[u8], window: &mut quic::Window) -> Decided<'f> {
    flow.push(datagram, window)
}
