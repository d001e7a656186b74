//! Any bytes are accepted or refused, and an accepted image decides every flow. The magic, version, length, checksum and
//! step counts are corrected first, or nothing would get past them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{AppId, Direction, Flow, Image, Name, Sid, image::put_right};
use std::net::IpAddr;

fuzz_target!(|input: &[u8]| {
    if let Ok(image) = Image::validate(input) {
        decide(&image, input);
    }
    let mut bytes = input.to_vec();
    put_right(&mut bytes);
    if let Ok(image) = Image::validate(&bytes[..]) {
        decide(&image, input);
    }
});

fn decide(image: &Image<&[u8]>, input: &[u8]) {
    let addresses: [IpAddr; 6] = ["203.0.113.9", "10.0.0.5", "0.0.0.0", "2001:db8::9", "::", "ffff::ffff"]
        .map(|text| text.parse().expect("an address"));
    let path: Vec<u8> = r"\device\harddiskvolume3\tools\a.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for direction in Direction::ALL.into_iter().filter(|direction| direction.is_local()) {
        for local in addresses {
            let decision = image.decide(&Flow::of_endpoint(direction, 6, local, 443).with_application(AppId(&path)));
            assert!(decision.rule.is_none_or(|rule| image.rule_name(rule).is_some()));
        }
    }
    for remote in addresses {
        for local in addresses {
            for name in [Name::Unknown, Name::Undecidable, Name::Known(b"www.example.com"), Name::Known(input)] {
                let flow = Flow::new(Direction::Outbound, 6, local, 50000, remote, 443)
                    .with_application(AppId(&path))
                    .with_user(Sid(input))
                    .with_interface(71 << 48)
                    .with_name(name);
                let decision = image.decide(&flow);
                assert!(decision.rule.is_none_or(|rule| image.rule_name(rule).is_some()));
            }
        }
    }
}
