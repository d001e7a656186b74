//! How long a name takes to be found, from a parser's making to its answer.
//!
//! `cargo bench -p sluice-content --bench names` prints a table. Contenders take turns, as in the policy's benchmark,
//! whose clockwork this is; each looks at 64 requests of one kind, whose names differ.

mod data;
#[path = "../../../policy/benches/lookup/timing.rs"]
mod timing;

use sluice_content::{
    Answer,
    dns::{Message, Query},
    flow::Stream,
    http1, http2,
    quic::{Connection, Window},
    tls::ClientHello,
};
use timing::{contender, measure, print};

/// A way to find a name, and what it is called.
type Reader = (&'static str, fn(&[u8]) -> u32);

/// Something of an answer, so that it must be found. The name must be there.
fn of(answer: Answer<'_>) -> u32 {
    let Answer::Name(name, _) = answer else { panic!("{answer:?}") };
    name.len() as u32
}

fn main() {
    let table = |title: &str, make: &dyn Fn(usize) -> Vec<u8>, readers: &[Reader]| {
        let made: Vec<Vec<u8>> = (0..64).map(make).collect();
        let requests: Vec<&[u8]> = made.iter().map(Vec::as_slice).collect();
        let contenders: Vec<_> = readers.iter().map(|(name, read)| contender(name, &requests, read)).collect();
        print(title, &contenders, &measure(&contenders), &format!("({} bytes)", made[0].len()));
    };
    let hello = ("ClientHello", (|bytes| of(ClientHello::new().push(bytes))) as fn(&[u8]) -> u32);
    table(
        "TLS, a hello of one segment",
        &|at| data::tls(at, 32),
        &[
            hello,
            ("as a flow", |bytes| matches!(Stream::new().push(bytes), sluice_content::flow::Decided::Name(..)).into()),
        ],
    );
    table(
        "TLS, post-quantum, two segments",
        &|at| data::tls(at, 1216),
        &[("ClientHello", |bytes| {
            let mut parser = ClientHello::new();
            let (one, two) = bytes.split_at(1460.min(bytes.len()));
            parser.push(one);
            of(parser.push(two))
        })],
    );
    let request = ("Request", (|bytes| of(http1::Request::new().push(bytes))) as fn(&[u8]) -> u32);
    let httparse = ("httparse, first Host", httparse_host as fn(&[u8]) -> u32);
    table("HTTP/1, curl", &|at| data::curl(at), &[request, httparse]);
    table("HTTP/1, a browser", &|at| data::browser(at), &[request, httparse]);
    table("HTTP/2", &|at| data::http2(at), &[("Connection", |bytes| of(http2::Connection::new().push(bytes)))]);
    table(
        "DNS, a question",
        &|at| data::question(at),
        &[
            ("Query", |bytes| of(Query::datagram(bytes).answer())),
            ("Message, all of it", |bytes| Message::read(bytes).map(|message| message.check().is_ok()).unwrap().into()),
        ],
    );
    table(
        "DNS, an answer of a CNAME and four addresses",
        &|at| data::answer(at),
        &[("Message, all of it", |bytes| {
            let message = Message::read(bytes).unwrap();
            assert!(message.check().is_ok());
            message.records().count() as u32
        })],
    );
    table(
        "QUIC, a hello in one Initial",
        &|at| data::initial(at),
        &[("Connection", |bytes| {
            let mut connection = Connection::new();
            WINDOW.with_borrow_mut(|window| of(connection.push(bytes, window)))
        })],
    );
}

thread_local! {
    static WINDOW: std::cell::RefCell<Window> = const { std::cell::RefCell::new(Window::new()) };
}

fn httparse_host(bytes: &[u8]) -> u32 {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    assert!(request.parse(bytes).unwrap().is_complete());
    let host = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("host")).unwrap();
    host.value.len() as u32
}
