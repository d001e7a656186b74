//! Any bytes as queries and as whole messages: one answer however they are cut, and names that can be read.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use sluice_content::{
    Answer,
    dns::{self, Message, Query, Text, framed},
};

fuzz_target!(|input: &[u8]| {
    cuts::agree(input, Query::stream, |query, bytes| cuts::checked(query.push(bytes)));
    let Some((bytes, _)) = cuts::cut(input) else { return };
    let query = Query::datagram(bytes);
    assert!(query.answer().is_final());
    if let Ok(message) = Message::read(bytes) {
        let mut text = Text::new();
        let first = message
            .questions()
            .next()
            .map(|question| question.and_then(|question| question.name.read(&mut text).map(<[u8]>::to_vec)));
        // What the query finds is what the message has, and a message that is whole has been read to its end.
        if let Answer::Name(name, _) = query.answer() {
            assert_eq!(first, Some(Ok(name.to_vec())));
        }
        let (mut addresses, answers) = (0, usize::from(message.record_count(dns::Section::Answer)));
        let told = message.addresses(&mut |_, _| addresses += 1);
        assert!(addresses <= answers * 9 && (told.is_ok() || addresses == 0));
        if message.check().is_ok() {
            assert!(
                message.questions().all(|question| question.is_ok()) && message.records().all(|record| record.is_ok())
            );
        }
    }
    let mut rest = bytes;
    while let Some((_, behind)) = framed(rest) {
        assert!(behind.len() + 2 <= rest.len());
        rest = behind;
    }
});
