//! Property: no input panics, and every flow that begins ends.

use super::*;
use proptest::prelude::*;

proptest! {
    /// Whatever comes, nothing panics, and when all is over every flow that began has ended.
    #[test]
    fn flows_balance(
        steps in proptest::collection::vec(
            (0u8..64, 0u32..40, 0u32..40, proptest::collection::vec(any::<u8>(), 0..8), any::<bool>(), 0u64..20, any::<bool>()),
            1..60,
        ),
        block in proptest::sample::subsequence(Layer::ALL.to_vec(), 0..3),
        pick_up: bool,
        v6: bool,
    ) {
        let mut b = Bench::with(v6, Config { pick_up });
        b.script.block = block;
        for (flags, sequence, acknowledgment, data, outbound, seconds, udp) in steps {
            b.now += Duration::from_secs(seconds);
            let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
            let bytes = if udp {
                b.udp(direction, &data)
            } else {
                b.segment(direction, flags, sequence, acknowledgment, &data)
            };
            b.pass(direction, &bytes);
        }
        b.stack.finish(&mut b.script);
        b.script.ended.sort_unstable();
        prop_assert_eq!(&b.script.ended, &(1..=b.script.flows).collect::<Vec<_>>());
        prop_assert!(b.stack.ledger.binds.is_empty());
    }
}
