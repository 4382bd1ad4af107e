//! `image pull`: fetched here, with the rights and the network of whoever wants the image, and then imported like any
//! other. The agent speaks to no registry.

use std::fs::{self, DirBuilder};
use std::io::{IsTerminal, Write, stderr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use secovia_agent_api::client::Client;
use secovia_registry::{Progress, Pull, pull, usual_name};
use serde::Deserialize;

use super::image;
use crate::args::{Mib, PullArgs};
use crate::failure::Failure;
use crate::output::human;

/// What a pull has to know of the agent's configuration. All else in it is the agent's to judge.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    images: Images,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Images {
    insecure_registries: Vec<String>,
    image_max: String,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            image_max: "8G".into(),
        }
    }
}

/// `secovia image pull`.
pub(super) async fn pull_image(client: &Client, args: PullArgs) -> Result<u8, Failure> {
    let reference = &args.reference;
    let failed = |problem: String| Failure::other(format!("image pull {reference}: {problem}"));
    let images = settings(&args.config).map_err(&failed)?;
    let name = args.name.or_else(|| usual_name(reference));
    let name = name.ok_or_else(|| failed("what is to be its name? say it with --name".into()))?;
    let size_max: Mib = images.image_max.parse().map_err(&failed)?;
    let dir = cache().map_err(&failed)?.join(file_name(reference));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|error| failed(format!("make directory {}: {error}", dir.display())))?;
    let wanted = Pull {
        reference,
        credentials: args.credentials_file.as_deref(),
        insecure: &images.insecure_registries,
        size_max: size_max.0 << 20,
        dir: &dir,
    };
    let mut meter = Meter::default();
    let fetched = pull(&wanted, |progress| meter.show(progress)).await;
    meter.end();
    fetched.map_err(|error| failed(error.to_string()))?;
    let status = image::import(client, Some(name), &dir).await?;
    // What was imported is not needed again.
    let _ = fs::remove_dir_all(&dir);
    Ok(status)
}

fn settings(config: &Path) -> Result<Images, String> {
    let text = match fs::read_to_string(config) {
        Ok(text) => text,
        // Whoever may not read it, or has none, has the usual settings.
        Err(_) => return Ok(Images::default()),
    };
    let config: Config = toml::from_str(&text)
        .map_err(|error| format!("{}: {}", config.display(), error.message().replace('\n', " ")))?;
    Ok(config.images)
}

/// Where one's own programs keep what they can fetch again. (Not a directory for temporary files: the agent has its own.)
fn cache() -> Result<PathBuf, String> {
    let var = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    var("XDG_CACHE_HOME")
        .or_else(|| Some(var("HOME")?.join(".cache")))
        .map(|cache| cache.join("secovia/pull"))
        .ok_or_else(|| "neither XDG_CACHE_HOME nor HOME is set; set one to a directory of yours".into())
}

/// A file's name for a reference. Two that share one share no bytes but those of the same digest.
fn file_name(reference: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    reference.chars().take(200).map(plain).collect()
}

/// Shows on a terminal how far it is.
#[derive(Debug, Default)]
struct Meter {
    shown: Option<u64>,
}

impl Meter {
    fn show(&mut self, progress: Progress) {
        let percent = progress.done * 100 / progress.total.max(1);
        if self.shown == Some(percent) || !stderr().is_terminal() {
            return;
        }
        self.shown = Some(percent);
        let (done, total) = (human::bytes(progress.done), human::bytes(progress.total));
        let _ = write!(stderr(), "\r{percent:3} %  {done} of {total}    ");
    }

    fn end(&self) {
        if self.shown.is_some() {
            let _ = writeln!(stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_one_name_below_the_cache() {
        assert_eq!(
            file_name("r.lan:5000/a/../b@sha256:0"),
            "r.lan-5000-a-..-b-sha256-0"
        );
        assert!(!file_name("../x").contains('/'));
        assert!(file_name(&"x".repeat(1000)).len() <= 200);
    }

    #[test]
    fn the_agents_configuration_is_read_as_far_as_it_matters() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        assert_eq!(settings(&file).unwrap().image_max, "8G", "none");
        fs::write(
            &file,
            "log_level = \"info\"\n[images]\nquota = \"1G\"\ninsecure_registries = [\"r:5000\"]",
        )
        .unwrap();
        assert_eq!(settings(&file).unwrap().insecure_registries, ["r:5000"]);
        fs::write(&file, "[images").unwrap();
        assert!(settings(&file).unwrap_err().contains("agent.toml"));
    }
}
