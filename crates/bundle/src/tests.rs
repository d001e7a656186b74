use super::*;

/// The secret key of RFC 8032, 7.1, test 1, as `openssl pkey -inform DER` writes it.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
/// Its public key, from there.
const PUBLIC: &str = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn key() -> SecretKey {
    SecretKey::from_pem(KEY).unwrap()
}

fn contents() -> Contents {
    Contents {
        version: 7,
        files: vec![
            ("office.toml".to_owned(), b"[default]\n".to_vec()),
            ("lists/bad.txt".to_owned(), b"192.0.2.1\n".to_vec()),
            ("empty.txt".to_owned(), Vec::new()),
        ],
        image: b"an image".to_vec(),
    }
}

#[test]
fn what_is_signed_is_read_again() {
    let bytes = contents().sign(&key()).unwrap();
    let bundle = Bundle::read(bytes.clone()).unwrap();
    assert_eq!((bundle.version(), bundle.policy()), (7, ("office.toml", &b"[default]\n"[..])));
    assert_eq!(bundle.files().len(), 3);
    assert_eq!(bundle.file("lists/bad.txt"), Some(&b"192.0.2.1\n"[..]));
    assert_eq!((bundle.file("empty.txt"), bundle.file("none")), (Some(&b""[..]), None));
    assert_eq!(bundle.image(), b"an image");
    assert_eq!(bundle.signer().to_string(), PUBLIC);
    assert_eq!(bundle.digest().len(), 64);
    assert_eq!(contents().sign(&key()).unwrap(), bytes, "the same content makes the same bytes");
    assert!(Bundle::read_trusted(bytes.clone(), &PUBLIC.parse().unwrap()).is_ok());
    let other = SecretKey::generate().unwrap().public();
    assert_eq!(Bundle::read_trusted(bytes, &other).unwrap_err(), InvalidBundle::Signer(Box::new(key().public())));
}

#[test]
fn every_bit_that_is_changed_is_found() {
    let bytes = contents().sign(&key()).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(Bundle::read(changed).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_length_but_its_own_is_refused() {
    let bytes = contents().sign(&key()).unwrap();
    for length in 0..bytes.len() {
        assert!(Bundle::read(bytes[..length].to_vec()).is_err(), "{length}");
    }
    assert_eq!(Bundle::read([&bytes[..], b"x"].concat()).unwrap_err(), InvalidBundle::Signature);
}

/// What its own key has signed may still be no bundle.
#[test]
fn what_is_signed_and_no_bundle_is_refused() {
    let signed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = contents().sign(&key()).unwrap();
        bytes.truncate(bytes.len() - SIGNATURE);
        change(&mut bytes);
        let signature = key().sign(&[DOMAIN, &bytes].concat());
        bytes.extend(signature);
        Bundle::read(bytes).map(drop)
    };
    assert_eq!(signed(&|_| {}), Ok(()));
    assert_eq!(signed(&|bytes| bytes[0] = 0), Err(InvalidBundle::Magic));
    assert_eq!(signed(&|bytes| bytes[at::FORMAT] = 9), Err(InvalidBundle::Format(9)));
    assert_eq!(signed(&|bytes| bytes[at::FILES] = 0), Err(InvalidBundle::Files(0)));
    assert_eq!(signed(&|bytes| bytes[at::FILES + 3] = 0x80), Err(InvalidBundle::Files(0x8000_0003)));
    assert_eq!(signed(&|bytes| bytes[at::FILES] = 200), Err(InvalidBundle::Short));
    for byte in at::IMAGE..at::KEY {
        assert_eq!(signed(&|bytes| bytes[byte] = 0xff), Err(InvalidBundle::Short), "{byte}");
    }
    assert_eq!(signed(&|bytes| bytes[at::IMAGE] = 1), Err(InvalidBundle::Long));
    for byte in HEADER..HEADER + ROW {
        assert!(signed(&|bytes| bytes[byte] = 0xff).is_err(), "{byte}");
    }
    assert_eq!(signed(&|bytes| bytes.push(0)), Err(InvalidBundle::Long));
    let name = HEADER + 3 * ROW;
    assert_eq!(signed(&|bytes| bytes[name] = 0xff), Err(InvalidBundle::File(0, "has a name that is not UTF-8")));
    assert!(matches!(signed(&|bytes| bytes[HEADER + 4] = 0), Err(InvalidBundle::Long)));
}

#[test]
fn what_does_not_fit_is_not_signed() {
    let named = |name: &str| Contents { files: vec![(name.to_owned(), Vec::new())], ..contents() }.sign(&key());
    assert!(named("a").is_ok() && named("").is_err() && named(&"a".repeat(1025)).is_err());
    let none = Contents { files: Vec::new(), ..contents() };
    assert_eq!(none.sign(&key()), Err(TooLarge::Files(0)));
    let twice = Contents { files: vec![("a".to_owned(), Vec::new()); 2], ..contents() };
    assert_eq!(twice.sign(&key()), Err(TooLarge::Name("a".to_owned())));
    let many = Contents { files: (0..=MAX_FILES).map(|n| (n.to_string(), Vec::new())).collect(), ..contents() };
    assert_eq!(many.sign(&key()), Err(TooLarge::Files(MAX_FILES + 1)));
    let large = Contents { image: vec![0; MAX_BYTES], ..contents() };
    assert_eq!(large.sign(&key()), Err(TooLarge::Bytes));
}

#[test]
fn keys_are_read_in_their_forms_and_nothing_else() {
    assert_eq!(key().public().to_string(), PUBLIC);
    assert_eq!(*key().to_pem(), *KEY);
    let pem = key().public().to_pem();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    assert_eq!(pem.parse::<PublicKey>().unwrap(), key().public());
    assert_eq!(format!(" {PUBLIC}\r\n").parse::<PublicKey>().unwrap(), key().public());
    assert_eq!(KEY.parse::<PublicKey>(), Err(KeyError::SecretForPublic));
    for wrong in ["", "ed25519:", &PUBLIC[..71], &format!("{PUBLIC}0"), &PUBLIC.replace("d7", "+7"), "ed25519:é"] {
        assert_eq!(wrong.parse::<PublicKey>(), Err(KeyError::Public), "{wrong}");
    }
    let weak = format!("ed25519:01{}", "00".repeat(31));
    assert_eq!(weak.parse::<PublicKey>(), Err(KeyError::Weak));
    assert!(matches!(SecretKey::from_pem(&pem), Err(KeyError::Secret)));
    let (one, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    assert_ne!(one.public(), other.public());
}

/// A key that OpenSSL made signs here, and OpenSSL reads what is made here; skipped where there is no OpenSSL.
#[test]
fn openssl_reads_and_writes_these_keys() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let run = |arguments: &[&str]| Command::new("openssl").args(arguments).current_dir(folder.path()).output();
    let Ok(made) = run(&["genpkey", "-algorithm", "ed25519", "-out", "secret.pem"]) else {
        return eprintln!("SKIPPED: no openssl");
    };
    assert!(made.status.success(), "{made:?}");
    let theirs = SecretKey::from_pem(&std::fs::read_to_string(file("secret.pem")).unwrap()).unwrap();
    assert!(run(&["pkey", "-in", "secret.pem", "-pubout", "-out", "public.pem"]).unwrap().status.success());
    let public: PublicKey = std::fs::read_to_string(file("public.pem")).unwrap().parse().unwrap();
    assert_eq!(theirs.public(), public);
    std::fs::write(file("ours.pem"), &*SecretKey::generate().unwrap().to_pem()).unwrap();
    let read = run(&["pkey", "-in", "ours.pem", "-noout", "-text"]).unwrap();
    assert!(read.status.success(), "{read:?}");
}
