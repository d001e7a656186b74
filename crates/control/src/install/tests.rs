use super::*;
use crate::objects;
use crate::testing::{Memory, Objects, driver_file};
use sluice_host::system::{CodeIntegrity, Trust};
use sluice_host::{Filter, FilterAction, Guid, ServiceConfig, Weight, code};
use sluice_protocol::object::CALLOUTS;
use std::path::PathBuf;

struct Setup {
    folder: tempfile::TempDir,
    driver: PathBuf,
    newer: PathBuf,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let (driver, newer) = (driver_file(folder.path(), 1), driver_file(folder.path(), 2));
    Setup { folder, driver, newer }
}

fn installed(setup: &Setup) -> Memory {
    let memory = Memory::new();
    install(&memory, &setup.driver).unwrap();
    memory.calls.borrow_mut().clear();
    memory
}

/// A machine whose driver has a policy in force.
fn with_policy(setup: &Setup) -> Memory {
    let memory = installed(setup);
    load_policy(&memory, b"an image");
    memory
}

fn load_policy(memory: &Memory, image: &[u8]) {
    let mut driver = memory.driver.lock().unwrap();
    driver.policies.push(image.to_vec());
    driver.status.policy_bytes = image.len() as u64;
}

/// Everything that a failed installation must leave unchanged.
#[derive(Debug, PartialEq)]
struct State {
    files: Vec<(String, Vec<u8>)>,
    service: Option<(ServiceConfig, ServiceState)>,
    objects: Objects,
    policy: Option<Vec<u8>>,
    parameters: Vec<(String, sluice_host::Parameter)>,
}

fn state(memory: &Memory) -> State {
    State {
        files: memory.files.borrow().clone().into_iter().collect(),
        service: memory.service.borrow().clone(),
        objects: memory.objects.borrow().clone(),
        policy: memory.driver.lock().unwrap().policies.last().cloned(),
        parameters: memory.parameters.borrow().clone().into_iter().collect(),
    }
}

/// The calls of one installation, and what each leaves when it fails.
fn failing_each(make: impl Fn() -> Memory, options: &Options<'_>) {
    let whole = {
        let memory = make();
        install_with(&memory, options).unwrap();
        memory.calls.take()
    };
    assert!(!whole.is_empty());
    for (call, name) in whole.iter().enumerate() {
        let memory = make();
        let before = state(&memory);
        memory.fail_at.set(Some(call));
        let error = match install_with(&memory, options) {
            Err(error) => error,
            // An old file that stays is reported, and the next installation deletes it.
            Ok(_) => {
                assert_eq!(*name, "DeleteFileW", "call {call}");
                assert_eq!(*memory.doomed.borrow(), [OLD]);
                assert_eq!(install_with(&memory, options).unwrap().steps[0], Step::DeleteLeftover { file: OLD });
                continue;
            }
        };
        let ControlError::Step { source, left, .. } = &error else { panic!("{error}") };
        assert_eq!((source.operation.as_str(), source.code), (*name, code::ERROR_NO_SYSTEM_RESOURCES));
        assert!(left.0.is_empty(), "call {call}, {name}: {left}");
        // The driver is already stopping when its service is deleted.
        memory.service_state(SERVICE_NAME).unwrap();
        assert_eq!(state(&memory), before, "call {call}, {name}");
    }
}

fn options<'a>(driver: &'a Path) -> Options<'a> {
    Options::of(driver)
}

#[test]
fn an_installation_makes_everything_and_a_removal_leaves_nothing() {
    let setup = setup();
    let memory = Memory::new();
    let report = install(&memory, &setup.driver).unwrap();
    assert_eq!(
        report.steps,
        [
            Step::CopyDriver { file: NEW, bytes: 0x80 },
            Step::PlaceDriver { path: r"C:\Windows\System32\drivers\sluice.sys".into() },
            Step::CreateService { image_path: IMAGE_PATH, start: StartType::System },
            Step::LoadDriver,
            Step::AddFilters { changed: Vec::new() },
        ]
    );
    assert_eq!(report.filters.len(), CALLOUTS.len());
    assert!(report.filters.iter().all(|filter| filter.id > 1000));
    assert_eq!(memory.objects.borrow().callouts.len(), CALLOUTS.len());
    {
        let objects = memory.objects.borrow();
        for filter in &objects.filters {
            let keeps_its_network = match filter.action {
                FilterAction::CalloutInspection(_) => PERSISTENT, // cannot block, with or without its callout
                _ => PERSISTENT | PERMIT_IF_CALLOUT_UNREGISTERED,
            };
            assert_eq!(filter.flags, keeps_its_network, "{}", filter.name);
        }
    }
    let (config, state) = memory.service.borrow().clone().unwrap();
    assert_eq!((config.name.as_str(), state), (SERVICE_NAME, ServiceState::Running));
    assert_eq!(config.driver, r"\SystemRoot\System32\drivers\sluice.sys");
    assert_eq!(memory.files.borrow().keys().collect::<Vec<_>>(), [FILE]);

    let report = uninstall(&memory).unwrap();
    assert_eq!(report.objects_removed, 2 + 2 * CALLOUTS.len());
    assert!(report.driver_unloaded && report.service_deleted && !report.waiting);
    assert_eq!((&report.files_deleted[..], &report.left[..]), (&[FILE.to_owned()][..], &[][..]));
    assert!(memory.is_clean());
}

/// FWPM_FILTER_FLAG_PERSISTENT.
const PERSISTENT: u32 = 0x1;
/// FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED.
const PERMIT_IF_CALLOUT_UNREGISTERED: u32 = 0x10;

#[test]
fn a_failure_at_any_step_undoes_the_steps_before_it() {
    let setup = setup();
    failing_each(Memory::new, &options(&setup.driver));
}

#[test]
fn a_failed_repair_leaves_what_was_there() {
    let setup = setup();
    let damaged = || {
        let memory = with_policy(&setup);
        memory.objects.borrow_mut().filters.pop();
        memory
    };
    failing_each(damaged, &options(&setup.driver));
}

#[test]
fn another_driver_replaces_the_one_that_is_there_and_keeps_filters_and_policy() {
    let setup = setup();
    let memory = with_policy(&setup);
    let before = state(&memory);
    let report = install(&memory, &setup.newer).unwrap();
    assert_eq!(
        report.steps,
        [
            Step::CopyDriver { file: NEW, bytes: 0x80 },
            Step::KeepOld { file: OLD },
            Step::UnloadDriver,
            Step::PlaceDriver { path: r"C:\Windows\System32\drivers\sluice.sys".into() },
            Step::LoadDriver,
            Step::LoadPolicy { from: PolicySource::Running, bytes: 8 },
            Step::DeleteOld { file: OLD },
        ]
    );
    let files = vec![(FILE.to_owned(), std::fs::read(&setup.newer).unwrap())];
    assert_eq!(state(&memory), State { files, ..before });
    failing_each(|| with_policy(&setup), &options(&setup.newer));
}

#[test]
fn a_driver_that_does_not_take_the_policy_in_force_is_taken_away_again() {
    let setup = setup();
    let memory = with_policy(&setup);
    let before = state(&memory);
    memory.driver.lock().unwrap().reply = sluice_protocol::status::PolicyReply::refused(0, &"a newer format");
    let error = install(&memory, &setup.newer).unwrap_err();
    // Here the old driver refuses it too.
    assert!(error.to_string().contains("cannot be kept") && error.to_string().contains("a newer format"), "{error}");
    let after = state(&memory);
    assert_eq!((after.files, after.service), (before.files, before.service));
}

#[test]
fn a_driver_that_cannot_say_what_it_enforces_is_not_replaced() {
    let setup = setup();
    let memory = with_policy(&setup);
    memory.driver.lock().unwrap().status.protocol_version = 99;
    let error = install(&memory, &setup.newer).unwrap_err();
    assert!(error.advice().unwrap().contains("--policy"), "{error}");
    assert!(memory.calls.borrow().iter().all(|call| !call.contains("File")), "{:?}", memory.calls);
}

#[test]
fn an_installation_from_where_the_driver_lay_is_moved() {
    let setup = setup();
    let elsewhere = || {
        let memory = installed(&setup);
        memory.service.borrow_mut().as_mut().unwrap().0.driver = r"C:\temp\sluice.sys".into();
        memory.files.borrow_mut().clear();
        load_policy(&memory, b"an image");
        memory
    };
    let memory = elsewhere();
    let report = install(&memory, &setup.driver).unwrap();
    let moved = Step::MoveService { from: r"C:\temp\sluice.sys".into(), image_path: IMAGE_PATH };
    assert!(report.steps.contains(&moved), "{:?}", report.steps);
    assert_eq!(memory.service_driver(SERVICE_NAME).unwrap().as_deref(), Some(IMAGE_PATH));
    failing_each(elsewhere, &options(&setup.driver));

    let left = uninstall(&elsewhere()).unwrap().left;
    assert!(left.len() == 1 && left[0].contains(r"C:\temp\sluice.sys"), "{left:?}");
}

#[test]
fn a_packages_driver_is_left_to_its_package() {
    let setup = setup();
    let memory = installed(&setup);
    let path = r"\SystemRoot\System32\DriverStore\FileRepository\sluice.inf_amd64_0123456789abcdef\sluice.sys";
    memory.service.borrow_mut().as_mut().unwrap().0.driver = path.into();
    let error = install(&memory, &setup.newer).unwrap_err();
    assert!(error.advice().unwrap().contains("pnputil"), "{error}");
}

#[test]
fn what_windows_would_refuse_is_refused_before_anything_changes() {
    let setup = setup();
    let mut memory = Memory::new();
    memory.system.integrity = CodeIntegrity(CodeIntegrity::ENABLED);
    memory.signature = Signature::Signed { by: Some("me".into()), trust: Trust::Nobody(0x800b_0109) };
    let error = install(&memory, &setup.driver).unwrap_err();
    assert!(matches!(&error, ControlError::Obstacles(obstacles) if obstacles.len() == 1), "{error}");
    assert!(error.advice().unwrap().contains("bcdedit"), "{error}");
    assert!(memory.is_clean());
    // A dry run shows all of it.
    let report = install_with(&memory, &Options { dry_run: true, ..options(&setup.driver) }).unwrap();
    assert_eq!((report.obstacles.len(), report.steps.len(), report.filters.len()), (1, 5, 0));
    assert!(memory.is_clean());
}

#[test]
fn a_dry_run_lists_what_an_installation_does() {
    let setup = setup();
    let memory = with_policy(&setup);
    let before = state(&memory);
    let planned = install_with(&memory, &Options { dry_run: true, ..options(&setup.newer) }).unwrap();
    assert_eq!(state(&memory), before);
    assert_eq!(install(&memory, &setup.newer).unwrap().steps, planned.steps);
}

#[test]
fn remains_of_an_interruption_are_found() {
    let setup = setup();
    for remains in [&[NEW][..], &[OLD], &[NEW, OLD], &[FILE], &[NEW, FILE, OLD], &[kept::NEW, kept::FILE]] {
        let interrupted = || {
            let memory = Memory::new();
            for file in remains {
                memory.files.borrow_mut().insert((*file).to_owned(), b"half".to_vec());
            }
            memory
        };
        let memory = interrupted();
        install(&memory, &setup.driver).unwrap();
        assert_eq!(memory.files.borrow().keys().collect::<Vec<_>>(), [FILE], "{remains:?}");
        let memory = interrupted();
        let report = uninstall(&memory).unwrap();
        assert_eq!((report.files_deleted.len(), &report.left[..]), (remains.len(), &[][..]));
        assert!(memory.is_clean() && report.changed());
    }
}

#[test]
fn installing_again_changes_nothing() {
    let setup = setup();
    let memory = installed(&setup);
    let before = state(&memory);
    let report = install(&memory, &setup.driver).unwrap();
    assert!(!report.changed());
    assert_eq!(report.filters.len(), CALLOUTS.len());
    assert!(memory.calls.borrow().iter().all(|call| *call == "FwpmEngineOpen0"), "{:?}", memory.calls);
    assert_eq!(state(&memory), before);
}

#[test]
fn after_a_restart_the_driver_is_loaded_again() {
    let setup = setup();
    let memory = installed(&setup);
    memory.stop_service(SERVICE_NAME).unwrap();
    memory.service_state(SERVICE_NAME).unwrap();
    assert_eq!(install(&memory, &setup.driver).unwrap().steps, [Step::LoadDriver]);
}

#[test]
fn what_is_no_driver_is_not_installed() {
    let setup = setup();
    let memory = Memory::new();
    let text = setup.folder.path().join("text.sys");
    std::fs::write(&text, "MZ and no more").unwrap();
    for path in [Path::new("/nowhere/sluice.sys"), setup.folder.path(), &text] {
        let error = install(&memory, path).unwrap_err();
        assert!(matches!(error, ControlError::DriverFile { .. }), "{error}");
    }
    assert!(memory.calls.borrow().is_empty());
}

#[test]
fn a_removal_that_fails_half_way_can_be_finished() {
    let setup = setup();
    let whole = {
        let memory = installed(&setup);
        uninstall(&memory).unwrap();
        memory.calls.into_inner()
    };
    for (call, name) in whole.iter().enumerate() {
        let memory = installed(&setup);
        memory.fail_at.set(Some(call));
        match uninstall(&memory) {
            Err(_) => assert!(*name == "FwpmEngineOpen0" || !memory.is_clean(), "call {call}, {name}"),
            Ok(report) => {
                assert_eq!((*name, report.left.len()), ("DeleteFileW", 1), "call {call}");
            }
        }
        memory.fail_at.set(None);
        uninstall(&memory).unwrap();
        assert!(memory.is_clean(), "call {call}, {name}: {memory:?}");
    }
}

#[test]
fn a_policy_named_at_the_installation_is_kept_or_nothing_changes() {
    let setup = setup();
    let policy = crate::policy::tests::file("[default]\noutbound = \"permit\"\ninbound = \"permit\"\n");
    let options = |driver| Options { policy: Some(policy.path()), ..options(driver) };
    let kept = |memory: &Memory| memory.files.borrow().get(kept::FILE).cloned();
    let memory = Memory::new();
    install_with(&memory, &options(&setup.driver)).unwrap();
    assert_eq!(kept(&memory), memory.driver.lock().unwrap().policies.last().cloned());
    assert!(kept(&memory).is_some());
    // Another driver takes over what is in force; what is kept stays.
    load_policy(&memory, b"loaded once");
    let before = kept(&memory);
    install(&memory, &setup.newer).unwrap();
    assert_eq!(
        (kept(&memory), memory.driver.lock().unwrap().policies.last().unwrap().as_slice()),
        (before, &b"loaded once"[..])
    );
    // Whatever somebody has put in its place.
    memory.unreadable.set(Some(kept::FILE));
    assert_eq!(uninstall(&memory).unwrap().files_deleted, [kept::FILE, FILE]);
    assert!(memory.is_clean());

    failing_each(Memory::new, &options(&setup.driver));
    let with_another = || {
        let memory = with_policy(&setup);
        memory.files.borrow_mut().insert(kept::FILE.to_owned(), b"an image".to_vec());
        memory
    };
    failing_each(with_another, &options(&setup.newer));
}

fn closed() -> Fail {
    Fail::Closed { management: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()] }
}

#[test]
fn a_machine_that_fails_closed_is_declared_so_or_nothing_changes() {
    let setup = setup();
    let fail = closed();
    let options = |driver| Options { fail: Some(&fail), start: Some(StartType::Boot), ..options(driver) };
    let memory = Memory::new();
    install_with(&memory, &options(&setup.driver)).unwrap();
    assert_eq!(Fail::declared(&memory).unwrap(), fail);
    assert_eq!(memory.service_start(SERVICE_NAME).unwrap(), Some(StartType::Boot));
    let status = crate::status(&memory).unwrap();
    assert!(status.filters_complete && status.fail == fail, "{:?}", status.changed);
    // What is not named stays as it is.
    assert!(!install(&memory, &setup.driver).unwrap().changed());
    let open = Options { fail: Some(&Fail::Open), ..Options::of(&setup.driver) };
    let steps = install_with(&memory, &open).unwrap().steps;
    assert!(matches!(
        &steps[..],
        [Step::UnloadDriver, Step::Declare { .. }, Step::LoadDriver, Step::AddFilters { .. }]
    ));
    assert_eq!(memory.objects.borrow().filters.len(), CALLOUTS.len());
    assert!(memory.parameters.borrow().is_empty());
    uninstall(&memory).unwrap();
    assert!(memory.is_clean());

    failing_each(Memory::new, &options(&setup.driver));
    failing_each(|| with_policy(&setup), &options(&setup.driver));
}

/// What stays when the engine is stopped would block.
#[test]
fn a_machine_that_fails_closed_is_not_half_removed() {
    let setup = setup();
    let fail = closed();
    let memory = Memory::new();
    install_with(&memory, &Options { fail: Some(&fail), ..options(&setup.driver) }).unwrap();
    let before = state(&memory);
    memory.engine_stopped.set(true);
    let error = uninstall(&memory).unwrap_err();
    assert!(error.advice().unwrap().contains("sc start BFE"), "{error}");
    assert_eq!(state(&memory), before);
    memory.engine_stopped.set(false);
    uninstall(&memory).unwrap();
    assert!(memory.is_clean());
}

#[test]
fn removing_from_an_empty_machine_is_no_error() {
    let memory = Memory::new();
    assert!(!uninstall(&memory).unwrap().changed());
}

#[test]
fn filters_of_another_build_go_too() {
    let setup = setup();
    let memory = installed(&setup);
    let mut other = objects::filter(&CALLOUTS[0], &Fail::Open);
    other.key = Some(Guid(0x1234));
    memory.objects.borrow_mut().filters.push(other);
    assert_eq!(uninstall(&memory).unwrap().objects_removed, 3 + 2 * CALLOUTS.len());
    assert!(memory.is_clean());
}

#[test]
fn another_products_filter_in_our_sublayer_is_not_destroyed() {
    let setup = setup();
    let foreign = Filter {
        key: Some(Guid(0x99)),
        name: "another product".into(),
        description: String::new(),
        flags: 0,
        provider: None,
        layer: Guid(CALLOUTS[0].layer),
        sublayer: objects::SUBLAYER,
        weight: Weight::Auto,
        conditions: Vec::new(),
        action: FilterAction::Block,
    };
    let memory = installed(&setup);
    memory.objects.borrow_mut().filters.push(foreign.clone());
    let before: Objects = memory.objects.borrow().clone();
    let status = crate::status(&memory).unwrap();
    assert!(status.filters_complete, "it is not ours to repair");
    assert_eq!((status.foreign[0].name.as_str(), status.foreign[0].action.as_str()), ("another product", "block"));
    let error = uninstall(&memory).unwrap_err();
    assert!(error.advice().unwrap().contains("another product"), "{error}");
    assert_eq!(*memory.objects.borrow(), before, "the transaction was aborted");
    // A repair keeps the sublayer that the foreign filter is in.
    memory.objects.borrow_mut().filters.remove(0);
    assert_eq!(install(&memory, &setup.driver).unwrap().steps, [Step::AddFilters { changed: Vec::new() }]);
    assert!(memory.objects.borrow().filters.contains(&foreign));
    assert_eq!(memory.objects.borrow().filters.len(), 1 + CALLOUTS.len());
}

#[test]
fn a_driver_that_takes_its_time_to_unload_is_waited_for() {
    let setup = setup();
    let memory = installed(&setup);
    memory.stop_polls.set(3);
    assert!(!uninstall(&memory).unwrap().waiting);
    assert!(memory.is_clean());
}

#[test]
fn an_installation_over_a_waiting_unload_is_refused() {
    let setup = setup();
    let memory = installed(&setup);
    memory.stop_service(SERVICE_NAME).unwrap();
    memory.stop_polls.set(usize::MAX);
    let error = install(&memory, &setup.driver).unwrap_err();
    assert!(matches!(error, ControlError::Unloading), "{error}");
}

#[test]
fn the_file_of_a_driver_that_stays_loaded_goes_at_the_next_start() {
    let setup = setup();
    let memory = installed(&setup);
    memory.stop_polls.set(usize::MAX);
    let report = uninstall(&memory).unwrap();
    assert!(report.waiting);
    assert_eq!(*memory.doomed.borrow(), [OLD]);
    assert_eq!(memory.files.borrow().keys().collect::<Vec<_>>(), [OLD], "its name is free for another driver");
    assert!(report.left.iter().any(|what| what.contains(OLD)), "{:?}", report.left);
}

/// What an attacker puts in place of our objects, and the text that reports it.
#[test]
fn a_condition_that_says_something_else_is_seen() {
    let setup = setup();
    let memory = Memory::new();
    let fail = Fail::Closed { management: vec!["192.0.2.0/24".parse().unwrap()] };
    install_with(&memory, &Options { fail: Some(&fail), ..Options::of(&setup.driver) }).unwrap();
    assert!(crate::status(&memory).unwrap().filters_complete);
    for filter in &mut memory.objects.borrow_mut().filters {
        for condition in &mut filter.conditions {
            if let sluice_host::ConditionValue::V4AddrMask { mask, .. } = &mut condition.value {
                *mask = 0; // everybody administers
            }
        }
    }
    let changed = crate::status(&memory).unwrap().changed;
    assert!(changed.len() > 1 && changed.iter().all(|one| one.what.contains("filterCondition")), "{changed:?}");
}

#[test]
fn what_is_not_as_we_add_it_is_seen_and_mended() {
    type Damage = (&'static str, fn(&mut Objects));
    let damages: [Damage; 12] = [
        ("action is \"permit\"", |objects| objects.filters[0].action = FilterAction::Permit),
        ("layerKey", |objects| objects.filters[1].layer = Guid(7)),
        ("subLayerKey", |objects| objects.filters[2].sublayer = Guid(7)),
        ("providerKey is None", |objects| objects.filters[3].provider = None),
        ("flags", |objects| objects.filters[4].flags = 0),
        ("weight", |objects| objects.filters[5].weight = Weight::Range(0)),
        ("filterCondition is not as added", |objects| {
            objects.filters[6].conditions.push(sluice_host::Condition {
                field: Guid(1),
                match_type: sluice_host::MatchType::Equal,
                value: sluice_host::ConditionValue::Uint8(1),
            });
        }),
        ("weight is 1", |objects| objects.sublayers[0].weight = 1),
        ("the sublayer: persistent", |objects| objects.sublayers[0].persistent = false),
        ("serviceName", |objects| objects.providers[0].service = Some("other".into())),
        ("applicableLayer", |objects| objects.callouts[0].layer = Guid(7)),
        ("this build adds no such filter", |objects| {
            let other = Filter { key: Some(Guid(7)), ..objects.filters[0].clone() };
            objects.filters.push(other);
        }),
    ];
    let setup = setup();
    for (word, damage) in damages {
        let memory = installed(&setup);
        let before = state(&memory);
        damage(&mut memory.objects.borrow_mut());
        let status = crate::status(&memory).unwrap();
        assert!(!status.filters_complete, "{word}");
        let changed: Vec<String> = status.changed.iter().map(ToString::to_string).collect();
        assert!(changed.iter().any(|change| change.contains(word)), "{word}: {changed:?}");
        let report = install(&memory, &setup.driver).unwrap();
        assert!(matches!(&report.steps[..], [Step::AddFilters { changed }] if *changed == status.changed), "{word}");
        assert_eq!(state(&memory), before, "{word}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let setup = setup();
    for (what, damage) in [
        ("the provider", (|objects| objects.providers.clear()) as fn(&mut Objects)),
        ("the sublayer", |objects| objects.sublayers.clear()),
        ("the callout ALE_AUTH_CONNECT_V4", |objects| drop(objects.callouts.remove(0))),
        ("the filter ALE_AUTH_CONNECT_V4", |objects| drop(objects.filters.remove(0))),
    ] {
        let memory = installed(&setup);
        let before = state(&memory);
        damage(&mut memory.objects.borrow_mut());
        assert_eq!(crate::status(&memory).unwrap().missing, [what]);
        install(&memory, &setup.driver).unwrap();
        let (mut after, mut before) = (state(&memory), before);
        for state in [&mut before, &mut after] {
            state.objects.callouts.sort_by_key(|callout| callout.key);
            state.objects.filters.sort_by_key(|filter| filter.key);
        }
        assert_eq!(after, before, "{what}");
    }
}

#[test]
fn a_stopped_filter_engine_keeps_neither_driver_nor_service() {
    let setup = setup();
    let memory = installed(&setup);
    memory.engine_stopped.set(true);
    let report = uninstall(&memory).unwrap();
    assert!(report.engine_stopped && report.driver_unloaded && report.service_deleted);
    assert!(report.left.len() == 1 && report.left[0].contains("sc start BFE"), "{:?}", report.left);
    assert!(memory.service.borrow().is_none() && memory.files.borrow().is_empty());
    memory.engine_stopped.set(false);
    assert_eq!(uninstall(&memory).unwrap().left, [""; 0]);
    assert!(memory.is_clean());
}
