//! Rules on services and users: looks up a token's SIDs one by one and finds rules by the sets they are in, compared
//! with a scan of all rules.

use crate::{
    data::{self, Random},
    timing::{contender, measure, print},
};
use sluice_policy::{Direction, Flow, Identities, Sid, model::SidBuf};
use std::{fmt::Write, net::IpAddr};

const KEYS: usize = 1 << 10;
/// Different services that rules name: a policy has no more than 1024 sets of identities.
const SERVICES: usize = 1000;

/// A token: the user and its groups.
#[derive(Debug)]
struct Token(Vec<SidBuf>);

impl Identities for Token {
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        self.0.iter().for_each(|sid| visit(Sid(sid.bytes())));
    }
}

pub(crate) fn run() {
    for rules in [0, 10, 1000, 10_000] {
        for sids in [10, 50, 200] {
            one(rules, sids);
        }
    }
}

/// `rules` that each name a service, and tokens of `sids` groups; every other token has one of these services.
fn one(rules: usize, sids: usize) {
    let mut random = Random(7);
    let mut text = String::new();
    for rule in 0..rules {
        write!(text, "[[rule]]\naction = \"block\"\nservice = \"service{}\"\n", rule % SERVICES).unwrap();
    }
    text.push_str("[[rule]]\naction = \"permit\"\nremote = \"203.0.113.0/24\"\n");
    let built = data::build(&text, "");
    let service = |number: usize| SidBuf::of_service(&format!("service{number}")).unwrap();
    let named: Vec<SidBuf> = (0..rules).map(|rule| service(rule % SERVICES)).collect();
    let tokens: Vec<Token> = (0..KEYS)
        .map(|key| {
            let stranger = |n| SidBuf::parse(&format!("S-1-5-21-1-2-3-{}", 1000 * key + n)).unwrap();
            let mut token: Vec<SidBuf> = (0..sids).map(stranger).collect();
            if key % 2 == 0 && rules > 0 {
                token[sids / 2] = service(random.below(rules.min(SERVICES)));
            }
            Token(token)
        })
        .collect();
    let keys: Vec<u32> = (0..KEYS as u32).collect();
    let (local, remote): (IpAddr, IpAddr) = ("10.0.0.5".parse().unwrap(), "203.0.113.9".parse().unwrap());
    let flow = |token| Flow::new(Direction::Outbound, 6, local, 50000, remote, 443).with_others(token);
    let (image, tokens, named) = (&built.image, &tokens[..], &named[..]);
    let contenders = [
        contender("sluice decide", &keys, move |key: u32| {
            image.decide(&flow(&tokens[key as usize])).rule.unwrap_or(u32::MAX)
        }),
        contender("over all rules", &keys, move |key: u32| {
            let token = &tokens[key as usize].0;
            named.iter().position(|sid| token.contains(sid)).unwrap_or(named.len()) as u32
        }),
    ];
    for index in 0..KEYS {
        assert_eq!((contenders[0].once)(index), (contenders[1].once)(index), "key {index}");
    }
    let title = format!("{rules} rules on services, tokens of {sids} SIDs");
    print(&title, &contenders, &measure(&contenders), &built.summary(rules + 1));
}
