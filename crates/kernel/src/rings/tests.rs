extern crate std;
use super::*;
use crate::doubles;
use std::{sync::Arc, sync::atomic::AtomicBool, sync::mpsc, thread, time::Duration, vec, vec::Vec};

impl<const P: usize, const W: usize> Rings<P, W> {
    fn put(&self, processor: usize, fill: impl FnOnce(u64) -> Option<[u64; W]>) -> bool {
        let mut record = None;
        self.push_from(processor, |time| {
            record = fill(time);
            record.as_ref()
        })
    }
}

fn all<const P: usize, const W: usize>(rings: &Rings<P, W>, cursor: &mut Cursor) -> Vec<Seen<W>> {
    let mut merge = rings.merge();
    let mut found = Vec::new();
    while let Some(seen) = merge.next(cursor) {
        cursor.pass(&seen);
        found.push(seen);
    }
    found
}

#[test]
fn a_reader_finds_the_latest_of_each_ring_and_knows_what_it_has_lost() {
    let rings = Rings::<128, 2>::new();
    rings.split(64); // two places each
    let mut slow = rings.oldest();
    for value in 0..5 {
        rings.put(7, |_| Some([0, value]));
    }
    rings.put(9, |_| Some([0, 5]));
    let found = |cursor: &mut Cursor| {
        let seen = all(&rings, cursor).into_iter();
        seen.map(|seen| (seen.ring, seen.record[1], seen.lost, seen.number)).collect::<Vec<_>>()
    };
    assert_eq!(found(&mut slow), [(7, 3, 3, 4), (7, 4, 0, 5), (9, 5, 0, 6)]);
    assert_eq!(found(&mut slow), []);
    assert_eq!(found(&mut rings.oldest()), [(7, 3, 0, 4), (7, 4, 0, 5), (9, 5, 0, 6)], "who comes later lost nothing");
}

#[test]
fn what_is_not_made_takes_no_place() {
    let rings = Rings::<128, 2>::new();
    assert!(!rings.put(0, |_| None));
    assert!(!rings.has_news(&Cursor::START));
    assert!(rings.put(0, |_| Some([0, 3])));
    let found = all(&rings, &mut rings.oldest());
    assert_eq!(found.iter().map(|seen| (seen.number, seen.record[1])).collect::<Vec<_>>(), [(1, 3)]);
}

#[test]
fn a_ring_that_is_being_written_to_is_passed_over_for_the_next() {
    let rings = Rings::<128, 2>::new();
    rings.split(2);
    rings.put(1, |_| {
        rings.put(1, |_| Some([0, 2]));
        Some([0, 1])
    });
    // The outer one has read the clock first.
    let found = all(&rings, &mut rings.oldest());
    assert_eq!(found.iter().map(|seen| (seen.ring, seen.record[1])).collect::<Vec<_>>(), [(1, 1), (0, 2)]);
}

#[test]
fn a_record_that_is_still_being_written_holds_later_ones_back() {
    let rings = Arc::new(Rings::<128, 2>::new());
    rings.split(2);
    let (claimed, is_claimed) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let first = {
        let rings = rings.clone();
        thread::spawn(move || {
            rings.put(0, |_| {
                claimed.send(()).unwrap();
                may_go_on.recv().unwrap();
                Some([0, 1])
            })
        })
    };
    is_claimed.recv().unwrap();
    rings.put(1, |_| Some([0, 2]));
    let reader = {
        let rings = rings.clone();
        thread::spawn(move || rings.merge().next(&Cursor::START).map(|seen| seen.record[1]))
    };
    thread::sleep(Duration::from_millis(20)); // for a reader that would not wait
    go_on.send(()).unwrap();
    assert!(first.join().unwrap());
    assert_eq!(reader.join().unwrap(), Some(1));
}

/// What [`Rings`] does, without any care for time or space.
struct Naive {
    size: usize,
    /// All records of each ring, by time and value.
    rings: Vec<Vec<(u64, u64)>>,
}

impl Naive {
    /// The next record of a reader that has come so far in each ring: its ring, position and content.
    fn next(&self, at: &[usize]) -> Option<(usize, usize, (u64, u64))> {
        let held = self.rings.iter().enumerate().flat_map(|(ring, records)| {
            let from = at[ring].max(records.len().saturating_sub(self.size));
            records.iter().enumerate().skip(from).map(move |(position, record)| (ring, position, *record))
        });
        held.min_by_key(|(ring, position, (time, _))| (*time, *ring, *position))
    }
}

/// Readers of random pace behind random writers, some of them on more processors than there are rings.
#[test]
fn readers_find_what_a_naive_model_finds() {
    let mut random = doubles::Random(0x5EED);
    for processors in [1, 2, 3, 4, 7, 8, 33, 64, 65, 200, 512] {
        doubles::script_clock();
        let rings = Rings::<128, 2>::new();
        rings.split(processors);
        let count = processors.min(64);
        let mut naive = Naive { size: 128 / count.next_power_of_two(), rings: vec![Vec::new(); count] };
        let mut readers: [_; 3] = core::array::from_fn(|_| (rings.oldest(), vec![0; count], 0));
        for value in 0..4000 {
            // Bursts on one processor, so that some rings overflow and others do not.
            let among = if random.below(4) == 0 { processors } else { 1.max(processors / 8) };
            let processor = random.below(among);
            let mut at = 0;
            rings.put(processor, |time| {
                at = time;
                Some([0, value])
            });
            naive.rings[processor % count].push((at, value));
            let (cursor, places, number) = &mut readers[random.below(3)];
            let mut merge = rings.merge();
            for _ in 0..[0, 0, 1, 3, 40][random.below(5)] {
                let expected = naive.next(places);
                assert_eq!(expected.is_some(), rings.has_news(cursor));
                let found = merge.next(cursor);
                assert_eq!(found.is_some(), expected.is_some(), "{processors} processors, {value}");
                let (Some(found), Some((ring, position, (time, value)))) = (found, expected) else { break };
                let lost = (position - places[ring]) as u64;
                *number += lost + 1;
                places[ring] = position + 1;
                assert_eq!(
                    (found.ring, found.record, found.lost, found.number),
                    (ring, [time, value], lost, *number),
                    "{processors} processors"
                );
                if random.below(8) != 0 {
                    cursor.pass(&found);
                } else {
                    // Asked for again, it is the same.
                    assert_eq!(merge.next(cursor), Some(found));
                    cursor.pass(&found);
                }
            }
        }
    }
}

/// Records of a writer, its number and both mixed: a torn one shows. Threads of this test change their processor
/// ([`doubles`]), so they meet in rings.
#[test]
fn readers_lose_only_what_they_know_of_and_read_nothing_torn_or_out_of_order() {
    const EACH: u64 = if cfg!(miri) { 100 } else { 20_000 };
    const WRITERS: u64 = 3;
    for processors in [1, 2, 5, 64] {
        let rings = Arc::new(Rings::<256, 4>::new());
        rings.split(processors);
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = [0, 3]
            .map(|pauses| {
                let (rings, done) = (rings.clone(), done.clone());
                thread::spawn(move || {
                    let (mut cursor, mut read, mut lost, mut last) = (Cursor::START, 0, 0, (0, 0));
                    let mut lost_in = [0; SLOTS];
                    let mut before = [(0, 0); WRITERS as usize];
                    loop {
                        let ended = done.load(Ordering::SeqCst);
                        let mut merge = rings.merge();
                        while let Some(seen) = merge.next(&cursor) {
                            let [time, writer, number, check] = seen.record;
                            assert_eq!(check, writer ^ number);
                            assert!((time, seen.ring) >= last, "in the order of time");
                            let (then, next) = before[writer as usize];
                            assert!(number >= next || time == then, "in the order of its writer, if not at one time");
                            before[writer as usize] = (time, next.max(number + 1));
                            last = (time, seen.ring);
                            (read, lost) = (read + 1, lost + seen.lost);
                            lost_in[seen.ring] += seen.lost;
                            assert_eq!(seen.number, read + lost);
                            cursor.pass(&seen);
                            (0..pauses).for_each(|_| thread::yield_now());
                        }
                        if ended {
                            break;
                        }
                        thread::yield_now();
                    }
                    assert_eq!(read + lost, WRITERS * EACH, "exactly");
                    assert_eq!(lost_in.iter().sum::<u64>(), lost);
                    read
                })
            })
            .into();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let rings = rings.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        let record = [0, writer, number, writer ^ number];
                        rings.push(&AtDispatch::raise(), |_| Some(&record));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    }
}
