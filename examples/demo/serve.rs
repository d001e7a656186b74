//! The server side: one small web server that answers on every address.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

/// Serves until it is killed.
pub(crate) fn run() -> Result<ExitCode, Box<dyn Error>> {
    // An IPv6 socket on the unspecified address accepts IPv4 connections too.
    for stream in TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))?.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A visitor who leaves early does not matter to the server.
            let _ = answer(&stream);
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Echoes to every visitor what it receives, until it is killed.
pub(crate) fn echo() -> Result<ExitCode, Box<dyn Error>> {
    for stream in TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))?.incoming() {
        let stream = stream?;
        thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = format!("hello from {}\n", stream.local_addr()?.ip().to_canonical());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
