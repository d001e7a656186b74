//! The addresses that an answer gives to the name that was asked about.

use core::net::IpAddr;

use super::{Data, Message, Section, Text};
use crate::answer::Reason;

/// The most names that stand for another, from the one asked about on.
const MOST_ALIASES: usize = 8;
/// The most records that are looked at.
const MOST_RECORDS: usize = 64;

impl Message<'_> {
    /// Visits each address of the name in the message's one question, with the seconds that it holds: the least of its
    /// record's and of those that lead to it, by which the name stands for another one. Records that belong to other
    /// names say nothing about this one.
    ///
    /// # Errors
    /// What is broken first, anywhere in the message, and [`Reason::Questions`] if it has not one: nothing is visited.
    pub fn addresses(&self, visit: &mut dyn FnMut(IpAddr, u32)) -> Result<(), Reason> {
        self.check()?;
        let mut questions = self.questions();
        let (Some(question), None) = (questions.next(), questions.next()) else { return Err(Reason::Questions) };
        let (mut name, mut owner) = (Text::new(), Text::new());
        question?.name.read(&mut name)?;
        let mut least = u32::MAX;
        for _ in 0..=MOST_ALIASES {
            let mut alias = None;
            for record in self.records().take(MOST_RECORDS) {
                let record = record?;
                if record.section != Section::Answer {
                    break;
                }
                if record.name.read(&mut owner)? != name.as_bytes() {
                    continue;
                }
                let ttl = least.min(record.ttl);
                match record.data {
                    Data::A(address) => visit(address.into(), ttl),
                    Data::Aaaa(address) => visit(address.into(), ttl),
                    Data::Cname(target) => alias = Some((target, ttl)),
                    Data::Other(_) => {}
                }
            }
            let Some((target, ttl)) = alias else { break };
            target.read(&mut name)?;
            least = ttl;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use crate::testing::sized;

    fn name(text: &str) -> Vec<u8> {
        let labels: Vec<u8> = text.split('.').flat_map(|label| sized(1, label.as_bytes())).collect();
        [labels, vec![0]].concat()
    }

    fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        [name(owner), kind.to_be_bytes().into(), vec![0, 1], ttl.to_be_bytes().into(), sized(2, data)].concat()
    }

    fn answer(asked: &str, records: &[Vec<u8>]) -> Vec<u8> {
        let header = [0, 7, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        [header.into(), name(asked), vec![0, 1, 0, 1], records.concat()].concat()
    }

    fn read(message: &[u8]) -> Result<Vec<(IpAddr, u32)>, Reason> {
        let mut found = Vec::new();
        Message::read(message)?.addresses(&mut |address, ttl| found.push((address, ttl)))?;
        Ok(found)
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_name_that_was_asked_about_has_its_addresses() {
        let message = answer(
            "A.example",
            &[
                record("a.example", 1, 60, &[192, 0, 2, 1]),
                record("b.example", 1, 60, &[192, 0, 2, 2]),
                record("a.EXAMPLE", 28, 30, &[0; 16]),
                record("a.example", 16, 5, b"\x01x"),
            ],
        );
        assert_eq!(read(&message), Ok(vec![(v4(1), 60), (IpAddr::from([0; 16]), 30)]));
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_the_least_time_counts() {
        let mut records = vec![
            record("a.example", 5, 300, &name("b.example")),
            record("b.example", 5, 20, &name("c.example")),
            record("c.example", 1, 100, &[192, 0, 2, 3]),
        ];
        for _ in 0..3 {
            assert_eq!(read(&answer("a.example", &records)), Ok(vec![(v4(3), 20)]));
            records.rotate_left(1);
        }
        let circle = [record("a.example", 5, 9, &name("b.example")), record("b.example", 5, 9, &name("a.example"))];
        assert_eq!(read(&answer("a.example", &circle)), Ok(vec![]));
    }

    #[test]
    fn what_is_broken_anywhere_says_nothing() {
        let whole = answer("a.example", &[record("a.example", 1, 60, &[192, 0, 2, 1])]);
        assert!(read(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        assert_eq!(read(&[whole.clone(), vec![0]].concat()), Err(Reason::Length));
        let mut two = whole;
        two[5] = 0;
        assert!(read(&two).is_err());
    }
}
