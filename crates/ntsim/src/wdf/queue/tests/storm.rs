//! Requests from many threads at once.

use super::*;

/// Many threads send, cancel and close while the driver completes from others, the queue stops and starts: every
/// request ends once, and nothing is left.
#[test]
fn a_storm_of_requests_loses_none() {
    static OWNED: Mutex<Vec<Handle>> = Mutex::new(Vec::new());
    extern "win64" fn cancel(request: Handle) {
        let mut owned = OWNED.lock();
        if let Some(position) = owned.iter().position(|other| *other == request) {
            owned.swap_remove(position);
            drop(owned);
            complete(request, NtStatus::CANCELLED, 0);
        }
    }
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        let callback: crate::wdf::request::CancelCallback = cancel;
        // Under the list's lock, as a driver must do it: who finds the request in the list finds it marked. When this
        // driver once put it there first, WdfRequestUnmarkCancelable stopped the machine from time to time, with
        // reason; it was taken for a race of the framework's.
        let mut owned = OWNED.lock();
        let marked = wdf!(NO_RIG, WdfRequestMarkCancelableEx(
            request => Handle, Some(callback) => Option<crate::wdf::request::CancelCallback>) -> NtStatus);
        if marked.is_success() {
            owned.push(request);
            return;
        }
        drop(owned);
        complete(request, NtStatus::CANCELLED, 0);
    }
    let setup = setup(QueueConfig { io_read: Some(read), ..queue_config(2) });
    let (answered, cancelled) = (AtomicU32::new(0), AtomicU32::new(0));
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (setup, answered, cancelled, done) = (&setup, &answered, &cancelled, &done);
            scope.spawn(move || {
                for round in 0..150_u64 {
                    let patience = Duration::from_micros((thread * 37 + round * 53) % 400);
                    match setup.file.read(8, Some(patience)).unwrap().0 {
                        NtStatus::SUCCESS => answered.fetch_add(1, Ordering::Relaxed),
                        NtStatus::CANCELLED => cancelled.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
        let (setup, done) = (&setup, &done);
        scope.spawn(move || {
            let mut turn = 0_u32;
            while done.load(Ordering::Acquire) < 3 {
                turn += 1;
                let candidate = OWNED.lock().first().copied();
                setup
                    .rig
                    .run(|| {
                        if turn.is_multiple_of(40) {
                            wdf!(NO_RIG, WdfIoQueueStop(
                                setup.queue => Handle, None => Option<QueueStateCallback>, 0 => usize) -> ());
                            wdf!(NO_RIG, WdfIoQueueStart(setup.queue => Handle) -> ());
                        }
                        let Some(request) = candidate else { return };
                        // Whoever takes the request off the list completes it; unmarking needs it alive, so it is
                        // asked under the list's lock, as a driver does.
                        let mut owned = OWNED.lock();
                        let Some(position) = owned.iter().position(|other| *other == request) else { return };
                        let unmarked = wdf!(NO_RIG, WdfRequestUnmarkCancelable(request => Handle) -> NtStatus);
                        if unmarked.is_success() {
                            owned.swap_remove(position);
                            drop(owned);
                            complete(request, NtStatus::SUCCESS, 8);
                        }
                    })
                    .unwrap();
            }
        });
    });
    assert_eq!(answered.load(Ordering::Relaxed) + cancelled.load(Ordering::Relaxed), 450);
    assert!(answered.load(Ordering::Relaxed) > 0 && cancelled.load(Ordering::Relaxed) > 0);
    setup.end();
}
