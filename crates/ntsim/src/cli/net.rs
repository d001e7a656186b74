//! `ntsim net`.

use super::rig::{Driver, Record, Rig, record};
use super::{Failure, exit, trace};
use ntsim::net::namespace::gain_privilege;
use ntsim::net::{NetError, Network, Prefix, Running};
use ntsim::tcpip::verdicts::{Detail, Verdicts};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use sluice_host::remote::{SOCKET_VARIABLE, serve};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Run a command on a network whose every packet passes the driver
///
/// COMMAND runs on the client side, the simulated machine: a network namespace with the addresses 10.77.0.2 and
/// fd77::2. On the other side a second namespace answers for 10.77.0.1, fd77::1, the prefixes set aside for
/// documentation (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32), and what --address adds. What programs
/// of the client side send to each other passes the driver too, at both ends. Nothing reaches the real network. COMMAND
/// finds the machine's administration socket in NTSIM_SOCKET, so that `sluice status` works inside.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    driver: Driver,
    #[command(flatten)]
    record: Record,
    /// A server to run on the server side while COMMAND runs: a shell command line that stays in the foreground; may
    /// be given more than once. COMMAND starts when every server has a listening or bound socket
    #[arg(long, value_name = "CMD")]
    server: Vec<String>,
    /// A further address or prefix for which the server side answers; may be given more than once
    #[arg(long, value_name = "PREFIX")]
    address: Vec<Prefix>,
    /// Write one JSON object for each connection that was authorized and each packet that did not travel
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// Print a table of the verdicts to standard error at the end
    #[arg(long)]
    summary: bool,
    /// Where to make the administration socket (default: in the folder for temporary files)
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args, traced: Option<&trace::Options>) -> Result<ExitCode, Failure> {
    gain_privilege().map_err(Failure::new)?; // while there is one thread
    let network = Network::new(&args.address).map_err(Failure::new)?;
    let rig = Rig::start(&args.driver, &args.record, traced)?;
    let result = run_inside(args, &network, &rig);
    let ended = rig.end();
    // A driver's violation takes precedence over the command's exit status.
    match ended {
        Ok(()) => result,
        Err(failure) => {
            if let Err(first) = result
                && first.code != failure.code
            {
                super::report(&first);
            }
            Err(failure)
        }
    }
}

fn run_inside(args: &Args, network: &Network, rig: &Rig) -> Result<ExitCode, Failure> {
    let socket =
        args.socket.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("ntsim-{}.sock", std::process::id())));
    let remote = serve(rig.host.clone(), &socket).map_err(Failure::context(socket.display()))?;
    let _servers = network.spawn_servers(&args.server).map_err(Failure::new)?;
    let json = args.verdicts.as_deref().map(record).transpose()?.map(|writer| (writer, Detail::Decisions));
    let running = network.start(rig.machine.clone(), Verdicts::new(json)).map_err(Failure::new)?;

    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).env(SOCKET_VARIABLE, remote.path());
    let status = network.spawn_client(&mut command).map(|child| wait(child, &running));
    let stopped = running.stop().map_err(Failure::new)?;
    let status = match (status, stopped) {
        (_, Err(bugcheck)) => return Err(Failure::stopped(&bugcheck)),
        (Err(error), _) => return Err(cannot_run(&error)),
        (Ok(status), Ok(mut verdicts)) => {
            verdicts.finish().map_err(Failure::context("writing the verdicts"))?;
            if args.summary {
                let mut table = Vec::new();
                let _ = verdicts.write_table(&mut table, usize::MAX); // writing to memory
                let _ = io::stderr().write_all(&table);
            }
            status.map_err(Failure::context("waiting for the command"))?
        }
    };
    let code = status.code().map(|code| code as u8).or_else(|| Some(exit::SIGNAL + status.signal()? as u8));
    Ok(ExitCode::from(code.unwrap_or(exit::FAILED)))
}

fn cannot_run(error: &NetError) -> Failure {
    let code = match error {
        NetError::Spawn { source, .. } if source.kind() == ErrorKind::NotFound => exit::NOT_FOUND,
        NetError::Spawn { .. } => exit::CANNOT_RUN,
        _ => exit::FAILED,
    };
    Failure::with(code, error)
}

/// Waits for the command. It is ended when the machine stops, and gets SIGTERM and SIGHUP passed on; SIGINT reaches it
/// from the terminal, and ntsim survives it to clean up.
fn wait(mut child: Child, running: &Running) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let handle = signals.handle();
    let forwarding = {
        let ended = ended.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                let forwarded = match signal {
                    SIGTERM => Signal::TERM,
                    SIGHUP => Signal::HUP,
                    _ => continue,
                };
                if !ended.load(std::sync::atomic::Ordering::Acquire) {
                    let _ = kill_process(pid, forwarded); // it may have ended by now
                }
            }
        })
    };
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) => {}
            Err(error) => break Err(error),
        }
        if running.has_ended() {
            let _ = child.kill();
            break child.wait();
        }
        thread::sleep(Duration::from_millis(5));
    };
    ended.store(true, std::sync::atomic::Ordering::Release);
    handle.close();
    let _ = forwarding.join();
    status
}
