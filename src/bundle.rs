//! `sluice bundle`, `sluice apply` and `sluice trust`.

use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use clap::Subcommand;
use serde_json::json;
use sluice_bundle::{Bundle, PublicKey, SecretKey};
use sluice_control::trust::{trust, trusted};
use sluice_control::{ApplyOptions, ApplyReport, LoadReport, make_bundle, read_bundle, write_secret};
use sluice_host::Host;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit statuses of these verbs, as the help shows them.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  a file cannot be written
  2  the command line is not valid
  4  the policy, the key or the bundle is not valid, or cannot be read; `verify`: the bundle is not what it should be";

/// The longest key file that is read.
const MAX_KEY: u64 = 64 << 10;
/// The exit status when the driver has the policy but it is not in force: the same as without the driver.
const NOT_IN_FORCE: u8 = 3;

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key pair to sign bundles with.
    Keygen {
        /// The file for the secret key (PEM, PKCS #8); the public key goes beside it, with the extension .pub. Neither may
        /// exist.
        secret: PathBuf,
    },
    /// Make a bundle of a policy, with its lists and its image, and sign it.
    Make {
        /// The policy file (TOML).
        policy: PathBuf,
        /// The bundle's version: machines refuse one that is lower than what they have.
        #[arg(long, value_name = "NUMBER")]
        version: u64,
        /// The file of the secret key.
        #[arg(long, value_name = "SECRET")]
        key: PathBuf,
        /// The bundle file to write.
        #[arg(short = 'o', long = "output", value_name = "BUNDLE")]
        output: PathBuf,
        /// Do not test the expectations written in the policy.
        #[arg(long)]
        no_test: bool,
    },
    /// Show what is in a bundle and who signed it.
    Show {
        /// The bundle.
        bundle: PathBuf,
        /// Print the policy, or another of its files, by its name.
        #[arg(long, value_name = "NAME")]
        file: Option<String>,
    },
    /// Check that a bundle is signed by a key, that its policy is valid and compiles to its image, and that its expectations
    /// hold.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// The public key: a file (PEM), or `ed25519:` and 64 hexadecimal digits.
        #[arg(long, value_name = "KEY", value_parser = public_key)]
        key: PublicKey,
    },
}

/// Reads a public key that a command line names: by its text, or by its file.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    if text.starts_with("ed25519:") {
        return text.parse().map_err(|error| format!("{error}"));
    }
    let bytes = sluice_files::read(Path::new(text), MAX_KEY).map_err(|error| error.to_string())?;
    String::from_utf8_lossy(&bytes).parse().map_err(|error| format!("{error}"))
}

/// Runs one of the commands.
pub(crate) fn run(command: &Command, output: &mut Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Keygen { secret } => keygen(secret, output),
        Command::Make { policy, version, key, output: file, no_test } => {
            make(policy, *version, key, file, !no_test, output)
        }
        Command::Show { bundle, file: None } => show(&read_bundle(bundle, None)?, output),
        Command::Show { bundle, file: Some(name) } => {
            let read = read_bundle(bundle, None)?;
            let problem = || format!("it has no file `{name}`: `sluice bundle show` lists them");
            let content = read.file(name).ok_or_else(|| Failure::Input { path: bundle.clone(), problem: problem() })?;
            output.text(content)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { bundle, key } => verify(bundle, key, output),
    }
}

fn keygen(secret: &Path, output: &mut Output) -> Result<ExitCode, Failure> {
    let public = secret.with_extension("pub");
    if public == secret {
        return Err(Failure::Usage("the public key would get the name of the secret one".to_owned()));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::Write { path, source }
    };
    if std::fs::symlink_metadata(&public).is_ok() {
        return Err(failed(&public)(std::io::ErrorKind::AlreadyExists.into()));
    }
    let random = |error: sluice_bundle::KeyError| Failure::Output(std::io::Error::other(error.to_string()));
    let key = SecretKey::generate().map_err(random)?;
    write_secret(secret, key.to_pem().as_bytes()).map_err(failed(secret))?;
    sluice_files::replace(&public, key.public().to_pem().as_bytes(), &[secret.to_owned()]).map_err(failed(&public))?;
    let report = json!({ "secret": secret, "public": public, "key": key.public().to_string() });
    output.report(&report, |out| {
        writeln!(out, "{GOOD}made{GOOD:#}: {}, to be kept where bundles are made", secret.display())?;
        writeln!(out, "  {} is for the machines: `sluice install --trust`, `sluice trust`", public.display())?;
        writeln!(out, "  {LABEL}key{LABEL:#} {}", key.public())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn make(
    policy: &Path,
    version: u64,
    key: &Path,
    file: &Path,
    test: bool,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let unusable = |problem: String| Failure::Input { path: key.to_owned(), problem };
    let text = sluice_files::read(key, MAX_KEY).map_err(|error| unusable(error.to_string()))?;
    let secret = SecretKey::from_pem(&String::from_utf8_lossy(&text)).map_err(|error| unusable(error.to_string()))?;
    let (bytes, mut making) = make_bundle(policy, version, &secret, test)?;
    making.read.push(key.to_owned());
    sluice_files::replace(file, &bytes, &making.read)
        .map_err(|source| Failure::Write { path: file.to_owned(), source })?;
    if sluice_files::is_stdout(file) {
        output.report_aside();
    }
    output.warnings(&making.warnings)?;
    output.report(&making, |out| {
        let (rules, bytes, lists) = (making.rules, making.bytes, making.files.len() - 1);
        writeln!(
            out,
            "{GOOD}signed{GOOD:#}: {}, version {version}, with {rules} rules and {lists} lists, {bytes} bytes",
            file.display()
        )?;
        if making.expectations > 0 {
            writeln!(out, "  what its {} expectations say holds", making.expectations)?;
        }
        writeln!(out, "  {LABEL}signer{LABEL:#} {}", making.signer)?;
        writeln!(out, "  {LABEL}SHA-256{LABEL:#} {}", making.digest)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn show(bundle: &Bundle, output: &mut Output) -> Result<ExitCode, Failure> {
    let files: Vec<_> = bundle.files().map(|(name, content)| json!({ "name": name, "bytes": content.len() })).collect();
    let report = json!({
        "version": bundle.version(), "signer": bundle.signer().to_string(), "digest": bundle.digest(),
        "bytes": bundle.as_bytes().len(), "image_bytes": bundle.image().len(), "files": files,
    });
    output.report(&report, |out| {
        writeln!(out, "{LABEL}version{LABEL:#}  {}", bundle.version())?;
        writeln!(out, "{LABEL}signer{LABEL:#}   {}", bundle.signer())?;
        writeln!(out, "{LABEL}SHA-256{LABEL:#}  {}", bundle.digest())?;
        for (place, (name, content)) in bundle.files().enumerate() {
            let label = if place == 0 { "policy" } else { "list" };
            writeln!(out, "{LABEL}{label:8}{LABEL:#} {name}, {} bytes", content.len())?;
        }
        writeln!(out, "{LABEL}image{LABEL:#}    {} bytes", bundle.image().len())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn verify(file: &Path, key: &PublicKey, output: &mut Output) -> Result<ExitCode, Failure> {
    let bundle = read_bundle(file, Some(key)).map_err(|error| match error {
        // It is no machine that refuses.
        sluice_control::ControlError::Untrusted { signer: Some(signer), .. } => {
            Failure::Input { path: file.to_owned(), problem: format!("it is signed by {signer}") }
        }
        error => Failure::Control(error),
    })?;
    let checked = sluice_control::check_bundle(&bundle)?;
    let report = json!({
        "version": bundle.version(), "signer": bundle.signer().to_string(), "digest": bundle.digest(),
        "compiles_to_its_image": checked.compiles_to_its_image, "expectations": checked.expectations,
    });
    output.report(&report, |out| {
        writeln!(out, "{GOOD}signed{GOOD:#} by this key: version {} of {}", bundle.version(), bundle.policy().0)?;
        if checked.compiles_to_its_image {
            writeln!(out, "  its policy compiles to its image")
        } else {
            writeln!(
                out,
                "  {BAD}its policy compiles to another image{BAD:#}: it was made by another version of sluice"
            )
        }
    })?;
    if checked.compiles_to_its_image { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::from(4)) }
}

/// `sluice apply`.
pub(crate) fn apply(
    host: &dyn Host,
    bundle: &Path,
    options: ApplyOptions,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let report = sluice_control::apply(host, bundle, options)?;
    output.report(&report, |out| {
        if report.changed {
            let done = if options.check { "would apply" } else { "applied" };
            writeln!(out, "{GOOD}{done}{GOOD:#} {}", line(&report))?;
        }
        if !report.lacks.is_empty() {
            let what = report.lacks.join("; ");
            writeln!(out, "{BAD}not in force{BAD:#}: the driver is not asked about everything: {what}")?;
        }
        Ok(())
    })?;
    Ok(match (&report.lacks[..], report.changed && options.check) {
        (_, true) => ExitCode::FAILURE,
        ([], false) => ExitCode::SUCCESS,
        (_, false) => ExitCode::from(NOT_IN_FORCE),
    })
}

/// What changed, in one line.
fn line(report: &ApplyReport) -> String {
    let ApplyReport { policy, version, changes, .. } = report;
    let mut line = format!("version {version} of {policy}: {}", changes.join(", "));
    if let Some(LoadReport { rules, missing_programs, missing_interfaces, .. }) = &report.load {
        line.push_str(&format!("; {rules} rules in force"));
        for missing in missing_interfaces.iter().chain(missing_programs) {
            line.push_str(&format!("; not on this machine: {missing}"));
        }
    }
    if !report.trusted {
        line.push_str("; this machine trusts no key (`sluice trust`)");
    }
    line
}

/// `sluice trust`.
pub(crate) fn trust_key(
    host: &dyn Host,
    key: Option<&PublicKey>,
    remove: bool,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let said = |key: &Option<String>| match key {
        Some(key) => format!("only bundles that {key} has signed are put in force here"),
        None => "any policy that an administrator loads is put in force here".to_owned(),
    };
    if key.is_none() && !remove {
        let now = trusted(host)?.map(|key| key.to_string());
        output.report(&json!({ "now": now }), |out| writeln!(out, "{}", said(&now)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = trust(host, key)?;
    output.report(&report, |out| {
        let style = if report.now.is_some() { GOOD } else { WARNING };
        writeln!(out, "{style}from now on{style:#} {}", said(&report.now))
    })?;
    Ok(ExitCode::SUCCESS)
}
