//! Files of the state folder: private, locked, written whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::error::AgentError;

const LOCK: &str = "lock";
/// The end of a file's name while it is being written, until it is whole.
const UNFINISHED: &str = "unfinished";
const PRIVATE: u32 = 0o600;
/// More than what is kept of the host itself.
pub(super) const MAX_BYTES: u64 = 64 * 1024;

/// The folder.
#[derive(Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens the folder, or makes it for its owner only. An existing folder keeps its mode: it may be
    /// a mount that others own, and every file in it is private by itself.
    pub(super) fn open(path: &Path) -> Result<Self, AgentError> {
        let folder = Self(path.to_owned());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| AgentError::State {
            doing: "make the state folder",
            path: path.to_owned(),
            source,
        })?;
        Ok(folder)
    }

    /// A file's path.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the folder for this agent, until the answer is dropped.
    pub(super) fn lock(&self) -> Result<File, AgentError> {
        let failed = |source| self.failed("lock", LOCK, source);
        let file = open_private(&self.path(LOCK)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(AgentError::StateInUse(self.0.clone())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// A file's content; `None` when there is none. A file that others may read is closed to them, and one
    /// longer than `max_bytes` is not read.
    pub(super) fn read(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, AgentError> {
        let path = self.path(name);
        let read = || -> io::Result<Vec<u8>> {
            let metadata = fs::metadata(&path)?;
            if metadata.len() > max_bytes {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is far too long"));
            }
            if metadata.permissions().mode() & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "the file was open to others; closing it");
                fs::set_permissions(&path, Permissions::from_mode(PRIVATE))?;
            }
            fs::read(&path)
        };
        match read() {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", name, source)),
        }
    }

    /// Writes a file so that after a crash either the old or the new content is there.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), AgentError> {
        let unfinished = self.path(&format!("{name}.{UNFINISHED}"));
        let write = || -> io::Result<()> {
            let mut file = open_private(&unfinished)?;
            file.set_len(0)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&unfinished, self.path(name))?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| {
            // On a full disk, what could not be finished is in the way of others.
            let _ = fs::remove_file(&unfinished);
            self.failed("write", name, source)
        })
    }

    /// Removes a file, if there is one.
    pub(super) fn remove(&self, name: &str) -> Result<(), AgentError> {
        match fs::remove_file(self.path(name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", name, source))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, doing: &'static str, name: &str, source: io::Error) -> AgentError {
        AgentError::State { doing, path: self.path(name), source }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(path)
}
