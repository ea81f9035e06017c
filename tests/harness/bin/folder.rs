//! The one folder of a testbed, and the certainty that it goes away.

use std::{
    env, fs,
    io::{self, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The first argument that makes this program the janitor of the folder in the second.
pub(crate) const JANITOR: &str = "--janitor";

/// All folders are named so, in the system's folder for temporary files.
const PREFIX: &str = "purser-testbed-";

/// A fresh folder with its janitor; removed on drop.
pub(crate) struct Folder {
    path: PathBuf,
    janitor: Child,
    // Held, never written to: the janitor waits for it to close.
    _alive: Option<ChildStdin>,
}

impl Folder {
    pub(crate) fn create() -> Result<Self, String> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(|error| error.to_string())?;
        let path = made.keep();
        let mut janitor = Command::new(env::current_exe().map_err(|error| error.to_string())?)
            .arg(JANITOR)
            .arg(&path)
            .stdin(Stdio::piped())
            // Out of reach of a terminal's Ctrl-C, and of whoever waits for our output to close.
            .process_group(0)
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let alive = janitor.stdin.take();
        let folder = Self { path, janitor, _alive: alive };
        folder.furnish().map_err(|error| format!("{}: {error}", folder.path.display()))?;
        Ok(folder)
    }

    fn furnish(&self) -> io::Result<()> {
        fs::write(self.path.join("pid"), std::process::id().to_string())?;
        // PostgreSQL runs as another user and has its folder below.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711))?;
        fs::create_dir(self.path.join("logs"))?;
        fs::create_dir(self.path.join("scratch"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The log file of the part `name`.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
        self._alive = None;
        let _ = self.janitor.wait();
    }
}

/// The janitor: waits until the testbed is gone, then for its children, then removes `folder`.
pub(crate) fn clean_after_end_of_input(folder: &Path) {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    remove(folder);
}

/// Removes folders of testbeds that are no more.
pub(crate) fn sweep_stale() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let path = entry.path();
        let pid = fs::read_to_string(path.join("pid")).ok();
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && pid.is_some_and(|pid| !is_testbed(pid.trim()))
        {
            remove(&path);
        }
    }
}

/// Whether `pid` runs, and runs this program: numbers are used again.
fn is_testbed(pid: &str) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end() == "testbed"
}

/// Unmounts what an engine left and removes the folder, as soon as nobody works in it.
fn remove(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_in_use(folder) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    while folder.exists() {
        unmount_below(folder);
        match fs::remove_dir_all(folder) {
            Err(error) if Instant::now() >= deadline => {
                eprintln!("testbed: {} stays: {error}", folder.display());
                return;
            }
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether a process other than the janitor and the testbed has the folder in its arguments.
fn is_in_use(folder: &Path) -> bool {
    let name = folder.as_os_str().as_encoded_bytes();
    let in_arguments = |pid: &str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_janitor = line.windows(JANITOR.len()).any(|window| window == JANITOR.as_bytes());
        !is_janitor && line.windows(name.len()).any(|window| window == name)
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok()).any(|pid| in_arguments(&pid))
}

/// An engine mounts its data folder onto itself, and overlays and shared memory below.
fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(folder));
    let points: Vec<_> = points.collect();
    // The innermost are mounted last.
    for point in points.into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).stderr(Stdio::null()).status();
    }
}
