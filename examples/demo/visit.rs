//! The client side: runs curl against every target, then shows the driver's record.

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, TcpStream},
    ops::ControlFlow,
    path::Path,
    process::{Command, ExitCode, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use sluice_control::{EventLine, EventOptions, Item, device::Control, events};
use sluice_host::remote::RemoteHost;
use sluice_policy::Image;

use crate::{TARGETS, Target};

/// curl's exit status for "connection refused".
const REFUSED: i32 = 7;
/// A refusal that takes longer was in fact a timeout.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The outcome of curl.
struct Visit {
    pid: u32,
    output: Output,
    took: Duration,
}

/// Visits every target and prints the table. Fails when anything is not as expected.
pub(crate) fn run() -> Result<ExitCode, Box<dyn Error>> {
    let socket = env::var_os("NTSIM_SOCKET").ok_or("NTSIM_SOCKET is not set: run the demo without arguments")?;
    let machine = RemoteHost::connect(Path::new(&socket))?;
    let visits: Vec<_> = TARGETS.iter().map(visit).collect::<Result<_, _>>()?;

    let (control, _) = Control::open(&machine)?;
    let image = Image::validate(control.policy()?.ok_or("no policy is in force")?)?;
    drop(control);
    let mut decisions = Vec::new();
    events(&machine, &EventOptions::default(), &mut |item| {
        if let Item::Event(event) = item {
            decisions.push((**event).clone());
        }
        ControlFlow::Continue(())
    })?;

    println!("{:<34} {:<18} {:<8} {:<12} {:>8}  curl", "who", "where", "verdict", "rule", "filterId");
    let mut wrong = 0;
    for (target, visit) in TARGETS.iter().zip(&visits) {
        let address: IpAddr = target.address.parse()?;
        let decision = decisions
            .iter()
            .find(|event| event.remote_address == address && event.process_id == Some(visit.pid))
            .ok_or_else(|| format!("the driver reported no decision about {address}"))?;
        let rule = decision.rule.and_then(|rule| image.rule_name(rule)).unwrap_or("default");
        println!(
            "{:<34} {:<18} {:<8} {:<12} {:>8}  {}",
            who(decision),
            target.address,
            decision.verdict,
            rule,
            decision.filter_id,
            met(visit)
        );
        wrong += u32::from(!is_as_expected(target, visit, decision, rule));
    }
    if wrong > 0 {
        println!("\n{wrong} of {} verdicts are wrong", TARGETS.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The address from the command line, at the server's port.
fn server() -> Result<TcpStream, Box<dyn Error>> {
    let address: IpAddr = env::args().nth(2).ok_or("an address is missing")?.parse()?;
    Ok(TcpStream::connect((address, 80))?)
}

/// Gets one page without curl and prints it.
pub(crate) fn probe() -> Result<ExitCode, Box<dyn Error>> {
    let mut stream = server()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{}", answer.split_once("\r\n\r\n").ok_or("the answer has no body")?.1);
    Ok(ExitCode::SUCCESS)
}

/// Sends standard input to the server and its answer to standard output, concurrently.
pub(crate) fn exchange() -> Result<ExitCode, Box<dyn Error>> {
    let stream = server()?;
    thread::scope(|scope| {
        let sender =
            scope.spawn(|| io::copy(&mut io::stdin().lock(), &mut &stream).and(stream.shutdown(Shutdown::Write)));
        io::copy(&mut &stream, &mut io::stdout().lock())?;
        sender.join().expect("the sender does not panic")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn visit(target: &Target) -> Result<Visit, Box<dyn Error>> {
    let url = match target.address.parse()? {
        IpAddr::V4(address) => format!("http://{address}/"),
        IpAddr::V6(address) => format!("http://[{address}]/"),
    };
    let start = Instant::now();
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--globoff", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start curl: {error}"))?;
    let pid = curl.id();
    let output = curl.wait_with_output()?;
    Ok(Visit { pid, output, took: start.elapsed() })
}

fn who(decision: &EventLine) -> String {
    let path = decision.application.as_deref().unwrap_or("?");
    let program = path.rsplit('\\').next().unwrap_or(path);
    format!("{program} (pid {})", decision.process_id.unwrap_or(0))
}

fn met(visit: &Visit) -> String {
    let took = visit.took.as_millis();
    match visit.output.status.code() {
        Some(0) => format!("{:?} in {took} ms", String::from_utf8_lossy(&visit.output.stdout).trim()),
        Some(REFUSED) => format!("connection refused in {took} ms"),
        _ => format!("{} in {took} ms", String::from_utf8_lossy(&visit.output.stderr).trim()),
    }
}

fn is_as_expected(target: &Target, visit: &Visit, decision: &EventLine, rule: &str) -> bool {
    let answered = String::from_utf8_lossy(&visit.output.stdout).trim() == format!("hello from {}", target.address);
    let outcome = if target.permitted {
        decision.verdict == "permit" && visit.output.status.success() && answered
    } else {
        decision.verdict == "block" && visit.output.status.code() == Some(REFUSED) && visit.took < AT_ONCE
    };
    outcome && rule == target.rule && decision.layer.starts_with("ALE_AUTH_CONNECT")
}
