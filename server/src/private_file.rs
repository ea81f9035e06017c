//! Files that only their owner may read: made with mode 0600, whole or not at all.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

/// Writes a new file with mode 0600, through a temporary name, so that a crash leaves no half of it.
///
/// # Errors
/// Whatever the file system says.
pub fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// Takes a folder for this process until the answer is dropped.
///
/// # Errors
/// Whatever the file system says, and `WouldBlock` while another process holds it.
pub fn lock(folder: &Path) -> std::io::Result<std::fs::File> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(std::io::Error::new(
            std::io::ErrorKind::WouldBlock,
            "another purser-server serves from this folder",
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes an empty file with mode 0600 if it is absent, for whoever opens it by name afterwards.
///
/// # Errors
/// Whatever the file system says.
pub fn make(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// Makes a folder that only its owner may enter (mode 0700), if it is absent.
///
/// # Errors
/// Whatever the file system says.
pub fn make_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
