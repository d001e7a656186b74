//! Where a policy comes from, noted in its image when it is loaded: `sluice status` shows it, also after a restart.

use jiff::Timestamp;
use sluice_policy::image::Origin;
use std::path::Path;

/// The origin of what is loaded from `file` now.
pub(crate) fn of(file: &Path) -> Origin {
    let file = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).to_string_lossy().into_owned()
    };
    let loaded = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Origin { file, loaded, by: caller(), image: None }
}

/// Who runs this program, as far as the system says.
fn caller() -> String {
    #[cfg(windows)]
    let name = crate::windows::user_name();
    #[cfg(not(windows))]
    let name = std::env::var("USER").ok();
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".to_owned())
}
