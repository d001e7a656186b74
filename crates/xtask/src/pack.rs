//! The verb `package`: builds the products, finds out what is linked into them, and packs them.

use std::{env, fs, path::PathBuf, process::Command, time::Duration};

use clap::Args;
use xtask::{
    inf::Architecture,
    package::{
        self, Inputs, PackageError,
        dependencies::{Component, Linked},
        sign::Signer,
    },
    process,
};

use crate::{
    Error,
    build::{self, COMMAND_TARGET, Product},
    places::Places,
    toolchain,
};

/// The key and certificate to sign with.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The private key, in PEM [default: made once with a certificate in target/sluice/signing]
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The certificate of the key, in PEM; on Windows a .pfx file that holds both
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The time stamping authority (RFC 3161) to ask; without it a signature expires with its certificate
    #[arg(long, value_name = "URL")]
    timestamp: Option<String>,
}

/// Makes both packages and prints their paths.
pub(crate) fn run(places: &Places, options: Options) -> Result<(), Error> {
    if options.certificate.is_some() && options.key.is_none() != cfg!(windows) {
        return Err(Error::Credentials);
    }
    for product in Product::SHIPPED {
        build::one(places, product)?;
    }
    let signer = match options.certificate {
        Some(certificate) => Signer::own(options.key, certificate, options.timestamp),
        None => Signer::made_in(&places.products.join("signing"), options.timestamp)?,
    };
    let (time, linked) = (time_of_source(places)?, linked(places)?);
    let folder = places.products.join("package");
    let command = places.products.join("x86_64/sluice.exe");
    for (architecture, products) in [(Architecture::X64, "x86_64"), (Architecture::Arm64, "aarch64")] {
        let zip = package::make(&Inputs {
            root: &places.root,
            architecture,
            version: env!("CARGO_PKG_VERSION"),
            time,
            driver: &places.products.join(products).join("sluice.sys"),
            command: &command,
            linked: &linked,
            signer: &signer,
            folder: &folder,
        })?;
        eprintln!("{}", zip.display());
    }
    Ok(())
}

/// SOURCE_DATE_EPOCH, or the time of the last commit.
fn time_of_source(places: &Places) -> Result<Duration, Error> {
    let seconds = match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(_) => {
            let mut git = Command::new("git");
            process::output(git.current_dir(&places.root).args(["log", "-1", "--format=%ct"]))?
        }
    };
    let seconds = seconds.trim();
    seconds.parse().map(Duration::from_secs).map_err(|_| Error::SourceTime(seconds.to_owned()))
}

/// Third-party code linked into the products.
fn linked(places: &Places) -> Result<Linked, Error> {
    let mut linked = Linked::default();
    let driver = process::output(&mut toolchain::metadata(places, "x86_64-pc-windows-msvc", true))?;
    linked.add(&driver, "sluice-driver", "sluice.sys")?;
    let command = process::output(&mut toolchain::metadata(places, COMMAND_TARGET, false))?;
    linked.add(&command, "sluice", "sluice.exe")?;

    let library = Component {
        name: "rust-std".to_owned(),
        version: rust_version()?,
        licence: "MIT OR Apache-2.0".to_owned(),
        url: "pkg:github/rust-lang/rust".to_owned(),
        products: Default::default(),
        text: "The standard library of Rust, by its contributors, under the licences of LICENSE-APACHE.txt and \
            LICENSE-MIT.txt at your choice.\n"
            .to_owned(),
    };
    linked.insert(library.clone(), "sluice.sys");
    linked.insert(library, "sluice.exe");
    if cfg!(target_os = "linux") {
        let runtime = "LicenseRef-mingw-w64-runtime";
        linked.insert(debian("mingw-w64-x86-64-dev", runtime)?, "sluice.exe");
        linked.insert(debian("gcc-mingw-w64-x86-64-win32", "GPL-3.0-or-later WITH GCC-exception-3.1")?, "sluice.exe");
    }
    Ok(linked)
}

fn rust_version() -> Result<String, Error> {
    let version = process::output(Command::new("rustc").arg("--version"))?;
    Ok(version.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// A library from a Debian package that the linker adds: the C runtime and compiler support routines.
fn debian(package: &str, licence: &str) -> Result<Component, Error> {
    let version = process::output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]))?;
    let path = PathBuf::from("/usr/share/doc").join(package).join("copyright");
    let text = fs::read(&path).map_err(PackageError::file(path))?;
    Ok(Component {
        name: package.to_owned(),
        url: format!("pkg:deb/debian/{package}@{version}"),
        version,
        licence: licence.to_owned(),
        products: Default::default(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}
