//! The arguments of `sluice policy`.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use sluice_policy::import::Source;
use sluice_policy::model::Moment;
use sluice_policy::text::Encoding;
use std::path::PathBuf;

/// The exit statuses of these verbs, as the help shows them.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  success; `test`: every expectation holds; `diff`: no difference was found
  1  `test`: an expectation fails; `diff`: flows are decided differently; a file cannot be written
  2  the command line is not valid
  4  the policy, the image or the file to import is not valid, or cannot be read, or `--deny-warnings` finds any";

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that a policy is valid, and list what in it is questionable.
    Check {
        /// The policy file (TOML).
        file: PathBuf,
        /// Fail if there are warnings.
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Compile a policy to an image.
    Compile {
        /// The policy file (TOML).
        file: PathBuf,
        /// The image file to write.
        #[arg(short = 'o', long = "output", value_name = "IMAGE")]
        image: PathBuf,
        /// The key of the image's hashes, 32 hexadecimal digits, for reproducible images [default: random].
        #[arg(long, value_name = "KEY", value_parser = key)]
        key: Option<[u8; 16]>,
        /// The device of a drive on the target machine, as in `C:=\Device\HarddiskVolume3`; once for each drive that
        /// the policy's program paths use.
        #[arg(long, value_name = "DRIVE=DEVICE", value_parser = drive)]
        drive: Vec<(char, String)>,
        /// The LUID that an interface has on the machine the image is for, as in `Ethernet 2=0x6008001000000`; once for
        /// each alias that rules name.
        #[arg(long, value_name = "ALIAS=LUID", value_parser = alias)]
        alias: Vec<(String, u64)>,
        #[command(flatten)]
        at: At,
    },
    /// Show the contents of a compiled image.
    Show {
        /// The image.
        image: PathBuf,
    },
    /// Find flows that two policies decide differently, or a policy and the one in force.
    Diff {
        /// One policy file; with --in-force the only one.
        old: PathBuf,
        /// The other policy file.
        #[arg(required_unless_present = "in_force", conflicts_with = "in_force")]
        new: Option<PathBuf>,
        /// Compare the policy in force on this machine with the file: needs the driver, and an administrator.
        #[arg(long)]
        in_force: bool,
        /// Report so many pairs of rules.
        #[arg(long, value_name = "COUNT", default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(1..=sluice_policy::diff::MOST_CHANGES as i64))]
        limit: u32,
        #[command(flatten)]
        at: At,
    },
    /// Show for every rule why it does or does not match a flow.
    Explain {
        /// The policy file (TOML).
        file: PathBuf,
        #[command(flatten)]
        flow: Box<Flow>,
        #[command(flatten)]
        at: At,
    },
    /// Test the expectations written in a policy.
    Test {
        /// The policy file (TOML).
        file: PathBuf,
    },
    /// Convert another firewall's rules to a policy and print it.
    Import {
        /// The file exported from the other firewall.
        file: PathBuf,
        /// Its format [default: detected from the text].
        #[arg(long, value_name = "KIND")]
        from: Option<From>,
        /// Its text encoding, as in cp850 or windows-1252; UTF-8 and UTF-16 are detected.
        #[arg(long, value_name = "ENCODING")]
        encoding: Option<Encoding>,
        /// The export is complete: no rule has a condition for which it has no column. Without this, a rule that
        /// permits is disabled if a condition that the export cannot show might narrow it.
        #[arg(long)]
        complete: bool,
    },
}

/// The moment for which rules with a schedule are evaluated.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct At {
    /// Evaluate schedules for this moment of the week, as in `mon 08:30`, or `now` [default: every schedule is active].
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) at: Option<Moment>,
}

/// A flow to explain.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("protocols").required(true).args(["tcp", "udp", "icmp", "protocol", "listen", "bind"])))]
pub(crate) struct Flow {
    /// A TCP flow: LOCAL and REMOTE, each ADDRESS:PORT.
    #[arg(long, num_args = 2, value_names = ["LOCAL", "REMOTE"])]
    pub(crate) tcp: Option<Vec<String>>,
    /// A UDP flow.
    #[arg(long, num_args = 2, value_names = ["LOCAL", "REMOTE"])]
    pub(crate) udp: Option<Vec<String>>,
    /// An ICMP flow: LOCAL is ADDRESS:TYPE, REMOTE is ADDRESS:CODE.
    #[arg(long, num_args = 2, value_names = ["LOCAL", "REMOTE"])]
    pub(crate) icmp: Option<Vec<String>>,
    /// A flow of another protocol, by name or number.
    #[arg(long, num_args = 3, value_names = ["PROTOCOL", "LOCAL", "REMOTE"])]
    pub(crate) protocol: Option<Vec<String>>,
    /// A program asks to listen on this ADDRESS:PORT of TCP; 0.0.0.0 or [::] is every address.
    #[arg(long, value_name = "LOCAL", conflicts_with_all = ["inbound", "forward", "interface", "name"])]
    pub(crate) listen: Option<String>,
    /// A program asks for this ADDRESS:PORT; with port 0, for one that the system chooses.
    #[arg(long, num_args = 2, value_names = ["PROTOCOL", "LOCAL"], conflicts_with_all = ["inbound", "forward", "interface", "name"])]
    pub(crate) bind: Option<Vec<String>>,
    /// The flow is inbound: the remote machine opens it.
    #[arg(long, conflicts_with = "forward")]
    pub(crate) inbound: bool,
    /// The packet is forwarded: LOCAL is its source, REMOTE its destination.
    #[arg(long)]
    pub(crate) forward: bool,
    /// The program, as in rules.
    #[arg(long, value_name = "PATH")]
    pub(crate) app: Option<String>,
    /// A SID of the token, the user's own or a group's; repeatable.
    #[arg(long, value_name = "SID")]
    pub(crate) user: Vec<String>,
    /// A service whose SID the token has; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Vec<String>,
    /// The package, by its family name or SID.
    #[arg(long, value_name = "PACKAGE")]
    pub(crate) package: Option<String>,
    /// The interface: a type such as wireless, or luid:NUMBER.
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) interface: Option<String>,
    /// The name that its content asks for, or `undecidable`.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Where rules come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum From {
    /// A simplewall profile (XML).
    Simplewall,
    /// The text of netsh advfirewall.
    Netsh,
    /// Get-NetFirewallRule as CSV.
    Csv,
    /// Get-NetFirewallRule as JSON.
    Json,
    /// A Little Snitch rule group.
    Lsrules,
}

impl std::convert::From<From> for Source {
    fn from(from: From) -> Self {
        match from {
            From::Simplewall => Self::Simplewall,
            From::Netsh => Self::Netsh,
            From::Csv => Self::WindowsCsv,
            From::Json => Self::WindowsJson,
            From::Lsrules => Self::LittleSnitch,
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if text == "now" {
        return Ok(sluice_control::local_moment());
    }
    Moment::parse(text).ok_or_else(|| "expected a day and time, as in `mon 08:30`, or `now`".to_owned())
}

fn key(text: &str) -> Result<[u8; 16], String> {
    let number = (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten();
    number.map(u128::to_be_bytes).ok_or_else(|| "expected 32 hexadecimal digits".to_owned())
}

fn drive(text: &str) -> Result<(char, String), String> {
    let wrong = || r"expected a drive and its device, as in `C:=\Device\HarddiskVolume3`".to_owned();
    let (drive, device) = text.split_once('=').ok_or_else(wrong)?;
    let letter = match drive.as_bytes() {
        [letter, b':'] | [letter] if letter.is_ascii_alphabetic() => char::from(letter.to_ascii_lowercase()),
        _ => return Err(wrong()),
    };
    let device = device.trim_end_matches('\\');
    let known = device.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(r"\device\")) && device.len() > 8;
    if known { Ok((letter, device.to_owned())) } else { Err(wrong()) }
}

fn alias(text: &str) -> Result<(String, u64), String> {
    let luid = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let found = text.rsplit_once('=').and_then(|(alias, number)| Some((alias.to_owned(), luid(number)?)));
    let known = found.filter(|(alias, luid)| !alias.is_empty() && *luid != 0);
    known.ok_or_else(|| "an alias and its LUID are expected, as in `Ethernet 2=0x6008001000000`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_32_digits() {
        assert_eq!(key("000102030405060708090a0b0c0d0e0f"), Ok(std::array::from_fn(|index| index as u8)));
        for wrong in ["", "00", "zz0102030405060708090a0b0c0d0e0f", "+00102030405060708090a0b0c0d0e0f"] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn aliases_have_luids() {
        assert_eq!(alias("Ethernet 2=0x6008001000000"), Ok(("Ethernet 2".to_owned(), 0x6_0080_0100_0000)));
        assert_eq!(alias("a=b=7"), Ok(("a=b".to_owned(), 7)));
        for wrong in ["", "Ethernet", "=7", "Ethernet=0", "Ethernet=x"] {
            assert!(alias(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn drives_lie_on_devices() {
        let device = r"\Device\HarddiskVolume3".to_owned();
        assert_eq!(drive(r"C:=\Device\HarddiskVolume3\"), Ok(('c', device.clone())));
        assert_eq!(drive(r"c=\Device\HarddiskVolume3"), Ok(('c', device)));
        for wrong in ["", "C:", r"=\Device\X", r"CD:=\Device\X", r"C:=D:\", r"C:=\Device\"] {
            assert!(drive(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_are_days_and_times() {
        assert_eq!(moment("tue 24:00").map(|at| (at.day, at.minute)), Ok((2, 0)), "the beginning of Wednesday");
        assert!(moment("now").is_ok());
        assert!(moment("noon").is_err());
    }
}
