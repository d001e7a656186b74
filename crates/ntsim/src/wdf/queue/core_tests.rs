use super::*;

impl Item for u64 {
    fn id(&self) -> u64 {
        *self
    }
}

type Queue = Core<u64, &'static str>;

fn drive(queue: &mut Queue) -> Vec<Event<u64, &'static str>> {
    queue.enter();
    let mut events = Vec::new();
    while let Some(event) = queue.next() {
        let deleted = event == Event::Deleted;
        events.push(event);
        if deleted {
            break;
        }
    }
    events
}

#[test]
fn a_sequential_queue_presents_the_next_request_only_after_the_first_is_completed() {
    let mut queue = Queue::new(Dispatch::Sequential, 0);
    queue.insert(1);
    queue.insert(2);
    assert_eq!(drive(&mut queue), [Event::Present(1)]);
    assert_eq!(drive(&mut queue), []);
    queue.released(1);
    assert_eq!(drive(&mut queue), [Event::Present(2)]);
}

#[test]
fn a_parallel_queue_presents_up_to_its_limit() {
    let mut queue = Queue::new(Dispatch::Parallel, 2);
    for request in 1..=3 {
        queue.insert(request);
    }
    assert_eq!(drive(&mut queue), [Event::Present(1), Event::Present(2)]);
    queue.released(2);
    assert_eq!(drive(&mut queue), [Event::Present(3)]);

    let mut unlimited = Queue::new(Dispatch::Parallel, u32::MAX);
    (0..100).for_each(|request| unlimited.insert(request));
    assert_eq!(drive(&mut unlimited).len(), 100);
}

#[test]
fn a_manual_queue_gives_requests_to_whoever_asks_in_order() {
    let mut queue = Queue::new(Dispatch::Manual, 0);
    assert_eq!(queue.retrieve(|_| true), Err(NtStatus::NO_MORE_ENTRIES));
    for request in 1..=4 {
        queue.insert(request);
    }
    assert_eq!(drive(&mut queue), []);
    assert_eq!(queue.retrieve(|_| true), Ok(1));
    assert_eq!(queue.retrieve(|r| r % 2 == 0), Ok(2));
    assert_eq!(queue.find(None, |_| true), Ok(3));
    assert_eq!(queue.find(Some(3), |_| true), Ok(4));
    assert_eq!(queue.find(Some(4), |_| true), Err(NtStatus::NO_MORE_ENTRIES));
    assert_eq!(queue.find(Some(1), |_| true), Err(NtStatus::NOT_FOUND), "the driver has it");
    assert_eq!(queue.state(), (state::ACCEPT | state::DISPATCH, 2, 2));
}

#[test]
fn parallel_queues_refuse_retrieval_and_stopped_ones_say_paused() {
    let mut parallel = Queue::new(Dispatch::Parallel, 1);
    parallel.insert(1);
    assert_eq!(parallel.retrieve(|_| true), Err(NtStatus::INVALID_DEVICE_STATE));
    let mut manual = Queue::new(Dispatch::Manual, 0);
    manual.insert(1);
    manual.stop(false, None).unwrap();
    assert_eq!(manual.retrieve(|_| true), Err(status::WDF_PAUSED));
    manual.start();
    assert_eq!(manual.retrieve(|_| true), Ok(1));
}

#[test]
fn ready_notify_speaks_once_per_transition_from_empty() {
    let mut queue = Queue::new(Dispatch::Manual, 0);
    queue.ready_notify(Some("ready")).unwrap();
    assert_eq!(queue.ready_notify(Some("again")), Err(NtStatus::INVALID_DEVICE_REQUEST));
    assert_eq!(drive(&mut queue), []);
    queue.insert(1);
    assert_eq!(drive(&mut queue), [Event::Ready("ready")]);
    queue.insert(2);
    assert_eq!(drive(&mut queue), [], "it was not empty");
    queue.retrieve(|_| true).unwrap();
    queue.retrieve(|_| true).unwrap();
    queue.insert(3);
    assert_eq!(drive(&mut queue), [Event::Ready("ready")]);
    assert_eq!(queue.ready_notify(None), Err(NtStatus::INVALID_DEVICE_REQUEST), "not while it dispatches");
    queue.stop(false, None).unwrap();
    queue.ready_notify(None).unwrap();
    assert_eq!(Queue::new(Dispatch::Sequential, 0).ready_notify(Some("no")), Err(NtStatus::INVALID_DEVICE_REQUEST));
}

#[test]
fn a_restarted_manual_queue_speaks_again_about_what_still_waits() {
    let mut queue = Queue::new(Dispatch::Manual, 0);
    queue.ready_notify(Some("ready")).unwrap();
    queue.insert(1);
    assert_eq!(drive(&mut queue), [Event::Ready("ready")]);
    queue.stop(false, None).unwrap();
    queue.start();
    assert_eq!(drive(&mut queue), [Event::Ready("ready")]);
}

#[test]
fn stop_ends_when_the_driver_owns_nothing_and_keeps_what_waits() {
    let mut queue = Queue::new(Dispatch::Sequential, 0);
    queue.insert(1);
    queue.insert(2);
    assert_eq!(drive(&mut queue), [Event::Present(1)]);
    queue.stop(false, Some("stopped")).unwrap();
    assert_eq!(queue.stop(false, Some("twice")), Err(NtStatus::INVALID_DEVICE_REQUEST));
    assert_eq!(drive(&mut queue), []);
    assert!(queue.accepts());
    queue.released(1);
    assert_eq!(drive(&mut queue), [Event::Stopped("stopped")]);
    queue.start();
    assert_eq!(drive(&mut queue), [Event::Present(2)]);
}

#[test]
fn stop_is_not_announced_while_another_thread_still_delivers() {
    let mut queue = Queue::new(Dispatch::Parallel, u32::MAX);
    queue.insert(1);
    queue.enter();
    assert_eq!(queue.next(), Some(Event::Present(1)), "the first thread is inside EvtIo now");
    queue.released(1);
    queue.stop(false, Some("stopped")).unwrap();
    assert_eq!(drive(&mut queue), [], "a second thread completed the request");
    assert_eq!(queue.next(), Some(Event::Stopped("stopped")), "the first thread came back");
    assert_eq!(queue.next(), None);
    assert!(!queue.is_active());
}

#[test]
fn purge_returns_what_waits_and_drain_lets_it_through() {
    let mut purged = Queue::new(Dispatch::Sequential, 0);
    purged.insert(1);
    purged.insert(2);
    assert_eq!(drive(&mut purged), [Event::Present(1)]);
    assert_eq!(purged.purge(true, true, Some("purged")), Ok(vec![2]));
    assert!(!purged.accepts());
    assert_eq!(drive(&mut purged), []);
    purged.released(1);
    assert_eq!(drive(&mut purged), [Event::Purged("purged")]);

    let mut drained = Queue::new(Dispatch::Sequential, 0);
    drained.insert(1);
    drained.insert(2);
    assert_eq!(drained.purge(false, false, Some("drained")), Ok(vec![]));
    assert_eq!(drive(&mut drained), [Event::Present(1)]);
    drained.released(1);
    assert_eq!(drive(&mut drained), [Event::Present(2)]);
    drained.released(2);
    assert_eq!(drive(&mut drained), [Event::Purged("drained")]);
}

#[test]
fn a_purged_queue_takes_nothing_back_until_it_starts_or_is_quiet() {
    let mut queue = Queue::new(Dispatch::Manual, 0);
    queue.insert(1);
    queue.retrieve(|_| true).unwrap();
    queue.purge(true, true, None).unwrap();
    assert_eq!(queue.requeue(1), Err(1));
    let mut older = Queue::new(Dispatch::Manual, 0);
    older.insert(1);
    older.retrieve(|_| true).unwrap();
    older.purge(true, false, None).unwrap();
    assert_eq!(older.requeue(1), Ok(()), "clients before KMDF 1.11");
    assert_eq!(older.find(None, |_| true), Ok(1));
}

#[test]
fn requeue_goes_to_the_head() {
    let mut queue = Queue::new(Dispatch::Manual, 0);
    queue.insert(1);
    queue.insert(2);
    assert_eq!(queue.retrieve(|_| true), Ok(1));
    queue.requeue(1).unwrap();
    assert_eq!(queue.retrieve(|_| true), Ok(1));
    assert_eq!(queue.retrieve(|_| true), Ok(2));
}

#[test]
fn cancellations_come_before_everything_else() {
    let mut queue = Queue::new(Dispatch::Parallel, u32::MAX);
    queue.insert(1);
    assert_eq!(drive(&mut queue), [Event::Present(1)]);
    queue.insert(2);
    queue.cancelled(1);
    queue.cancelled_on_queue(9);
    assert_eq!(drive(&mut queue), [Event::Cancel(1), Event::CanceledOnQueue(9), Event::Present(2)]);
    assert_eq!(queue.state().2, 3, "the driver owns all three");
}

#[test]
fn deletion_waits_for_the_driver() {
    let mut queue = Queue::new(Dispatch::Parallel, u32::MAX);
    queue.insert(1);
    drive(&mut queue);
    queue.purge(true, true, None).unwrap();
    queue.dispose();
    assert_eq!(drive(&mut queue), []);
    queue.released(1);
    assert_eq!(drive(&mut queue), [Event::Deleted]);
    assert!(queue.is_deleted());
    assert_eq!(queue.purge(true, true, None), Err(NtStatus::DELETE_PENDING));
    assert_eq!(queue.stop(true, None), Err(NtStatus::DELETE_PENDING));
    queue.start();
    assert!(!queue.accepts(), "a deleted queue does not start again");
}

#[test]
fn abandoning_lets_deletion_end_and_names_what_the_driver_kept() {
    let mut queue = Queue::new(Dispatch::Parallel, u32::MAX);
    queue.insert(5);
    drive(&mut queue);
    queue.dispose();
    assert_eq!(queue.abandon(), [5]);
    assert_eq!(drive(&mut queue), [Event::Deleted]);
}

/// Random histories: every request ends exactly once, in order where order is promised, and the limits hold.
#[test]
fn no_history_loses_or_repeats_a_request() {
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..300 {
        let (dispatch, limit) =
            [(Dispatch::Sequential, 1), (Dispatch::Parallel, 3), (Dispatch::Manual, usize::MAX)][round % 3];
        let mut queue = Queue::new(dispatch, limit as u32);
        let (mut inserted, mut owned, mut ended, mut presented) = (0u64, Vec::new(), Vec::new(), Vec::new());
        for _ in 0..200 {
            match random(7) {
                0..=2 if queue.accepts() => {
                    inserted += 1;
                    queue.insert(inserted);
                }
                3 if !owned.is_empty() => {
                    let request = owned.swap_remove(random(owned.len() as u64) as usize);
                    queue.released(request);
                    ended.push(request);
                }
                4 if dispatch == Dispatch::Manual => {
                    if let Ok(request) = queue.retrieve(|_| true) {
                        presented.push(request);
                        owned.push(request);
                    }
                }
                5 => queue.start(),
                6 => match random(3) {
                    0 => drop(queue.stop(false, None)),
                    1 => ended.extend(queue.stop(true, None).unwrap()),
                    _ => ended.extend(queue.purge(true, true, None).unwrap()),
                },
                _ => {}
            }
            for event in drive(&mut queue) {
                match event {
                    Event::Present(request) => {
                        presented.push(request);
                        owned.push(request);
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert!(owned.len() <= limit, "{dispatch:?}");
            assert_eq!(queue.state().2, owned.len());
        }
        assert!(presented.is_sorted(), "{dispatch:?} presents in order of arrival");
        ended.extend(queue.purge(true, true, None).unwrap());
        ended.extend(&owned);
        ended.sort_unstable();
        assert_eq!(ended, (1..=inserted).collect::<Vec<_>>(), "{dispatch:?}: each request ended exactly once");
    }
}
