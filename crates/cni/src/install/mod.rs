//! `margay-cni install` and `uninstall`: the plugin and its configuration, where the runtime looks for them.
//!
//! The order is the runtime's: a configuration that names a plugin which isn't there, or one whose agent does not serve
//! yet, makes pods fail that would have waited. So the plugin comes first, then the agent, then the configuration; and
//! they go the other way round. Every file appears by a rename inside its own folder: no one ever sees half of it, a
//! plugin that is running can be replaced, and containerd notices (it does not hear of files that are moved in from
//! elsewhere).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::cni::{Request, Response, Verb, code};

use crate::agent::{Deadline, ask};

mod conflist;
mod options;
mod stay;

pub(crate) use options::{Options, Part, Task, USAGE};

/// Between two questions to an agent that is starting.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two lines about an agent that does not come.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// A plugin is a program.
const PROGRAM: u32 = 0o755;
/// A configuration is for everybody to read.
const TEXT: u32 = 0o644;

/// Does it, and tells `say` of every step.
///
/// # Errors
/// In words for the operator: which path, what is wrong with it, and what to do.
pub(crate) fn run(options: &Options, mut say: impl FnMut(String)) -> Result<(), String> {
    if options.stay {
        stay::end_by_signal()?;
    }
    match options.task {
        Task::Install => install(options, &mut say),
        Task::Uninstall => uninstall(options, &mut say),
    }?;
    if options.stay {
        stay::for_ever()
    }
    Ok(())
}

fn install(options: &Options, say: &mut dyn FnMut(String)) -> Result<(), String> {
    let plugin = options.plugin();
    if options.part != Some(Part::Conflist) {
        let own =
            std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let content =
            fs::read(&own).map_err(|error| format!("{}: can't be read: {error}", own.display()))?;
        say(put(&plugin, &content, PROGRAM)?);
    }
    if options.part == Some(Part::Binary) {
        return Ok(());
    }
    if !plugin.is_file() {
        return Err(format!(
            "{}: is not there, and a configuration that names it would let every pod fail; install it first",
            plugin.display()
        ));
    }
    wait_for_agent(options, say)?;
    let conflist = options.conflist();
    let (text, remark) = conflist::compose(options);
    say(put(&conflist, text.as_bytes(), TEXT)?);
    remark.into_iter().for_each(&mut *say);
    for other in before(&conflist)? {
        say(format!(
            "warning: {} comes before {}, and containerd takes the first file alone: remove it, or choose an earlier name with --conf-name",
            other.display(),
            options.conf_name
        ));
    }
    Ok(())
}

fn uninstall(options: &Options, say: &mut dyn FnMut(String)) -> Result<(), String> {
    let parts = [
        (Part::Conflist, options.conflist()),
        (Part::Binary, options.plugin()),
    ];
    for (part, path) in parts {
        if options.part.is_some_and(|only| only != part) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => {
                sync_folder(&path);
                say(format!("removed {}", path.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                say(format!("{} is not there", path.display()));
            }
            Err(error) => return Err(cannot("be removed", &path, &error)),
        }
    }
    Ok(())
}

/// Waits until pods could be attached. That no address is free at the moment does not count: pods that are there need the
/// configuration too, to be detached.
fn wait_for_agent(options: &Options, say: &mut dyn FnMut(String)) -> Result<(), String> {
    let mut deadline = Deadline::after(options.wait);
    loop {
        let answer = Deadline::after(ANSWER);
        let reason = match ask(&options.socket, &Request::new(Verb::Status), &[], answer) {
            Ok(Response::Done) => return Ok(()),
            Ok(Response::Failed(failure)) if failure.code == code::UNAVAILABLE => return Ok(()),
            Ok(Response::Failed(failure)) => failure.message,
            Ok(Response::Later(reason)) => reason,
            Ok(Response::Attached(_)) => "it answers something else than it is asked".into(),
            Err(no_answer) => no_answer.to_string(),
        };
        if deadline.is_over() {
            let (socket, seconds) = (options.socket.display(), options.wait.as_secs());
            if options.stay {
                say(format!(
                    "{socket}: margayd does not serve yet: {reason}; waiting on"
                ));
                deadline = Deadline::after(options.wait.max(SAY_AGAIN));
                continue;
            }
            let conflist = options.conflist();
            return Err(format!(
                "{socket}: margayd does not serve after {seconds} s: {reason}. {} is as it was; see `margayctl status`, or margayd's log, and do this again",
                conflist.display()
            ));
        }
        deadline.pause(PAUSE);
    }
}

/// Puts a file where it isn't yet as it should be.
fn put(path: &Path, content: &[u8], mode: u32) -> Result<String, String> {
    let present = fs::read(path).is_ok_and(|present| present == content);
    let has_mode = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o777 == mode);
    if present && has_mode {
        return Ok(format!("{} is up to date", path.display()));
    }
    // Hidden, and of no kind that a runtime would read or run.
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    remove_stale_drafts(path);
    let written = write(&draft, content, mode).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        // It may not even have been made.
        fs::remove_file(&draft).ok();
        return Err(cannot("be written", path, &error));
    }
    sync_folder(path);
    Ok(format!("wrote {}", path.display()))
}

/// Drafts of installers that were killed. Whoever is at it still has its process.
fn remove_stale_drafts(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".new"))
            .and_then(|process| process.parse::<u32>().ok());
        let ended = |process: &u32| !Path::new(&format!("/proc/{process}")).exists();
        if process.as_ref().is_some_and(ended) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

fn write(draft: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(mode);
    let mut file = open.open(draft)?;
    // The mode at its making is less the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    // A name must not come to stand for less than the whole, should the machine stop here.
    file.sync_all()
}

/// Makes a change in a folder last. Some file systems can't, and the change is there all the same.
fn sync_folder(path: &Path) {
    let folder = path.parent().map(File::open);
    if let Some(Ok(folder)) = folder {
        folder.sync_all().ok();
    }
}

/// Configurations that a runtime would take before ours.
fn before(conflist: &Path) -> Result<Vec<PathBuf>, String> {
    let Some(folder) = conflist.parent() else {
        return Ok(Vec::new());
    };
    let entries = fs::read_dir(folder).map_err(|error| cannot("be listed", folder, &error))?;
    let is_config = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("conf" | "conflist" | "json"))
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = paths
        .filter(|path| is_config(path) && path.file_name() < conflist.file_name())
        .collect();
    found.sort();
    Ok(found)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    let kind = error.kind();
    let hint = if kind == io::ErrorKind::NotFound {
        "; make the folder, or name the runtime's own with --bin-dir or --conf-dir"
    } else if kind == io::ErrorKind::PermissionDenied {
        "; run this as root"
    } else if kind == io::ErrorKind::ReadOnlyFilesystem {
        "; mount the host's folder writable"
    } else {
        ""
    };
    format!("{}: can't {what}: {error}{hint}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_it_differs() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("margay");
        let inode = || fs::metadata(&path).unwrap().ino();
        assert!(put(&path, b"one", PROGRAM).unwrap().starts_with("wrote"));
        let first = inode();
        assert!(put(&path, b"one", PROGRAM).unwrap().contains("up to date"));
        assert_eq!(inode(), first);
        // Somebody runs it: its file stays what it was.
        let running = File::open(&path).unwrap();
        put(&path, b"two", PROGRAM).unwrap();
        assert_eq!(io::read_to_string(running).unwrap(), "one");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        put(&path, b"two", PROGRAM).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PROGRAM);
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "no draft is left"
        );
        let error = put(&folder.path().join("no/margay"), b"", TEXT).unwrap_err();
        assert!(
            error.contains("no/margay") && error.contains("--bin-dir"),
            "{error}"
        );
    }

    #[test]
    fn configurations_that_come_first_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "05-x.conflist",
            "10-margay.conf",
            "10-margay.conflist",
            "20-y.json",
            "00-readme",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = before(&folder.path().join("10-margay.conflist")).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["05-x.conflist", "10-margay.conf"]);
    }
}
