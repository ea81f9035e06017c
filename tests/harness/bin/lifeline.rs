//! A socket that every test process holds open: it closes when the testbed dies.

use std::path::Path;

use tokio::{io::AsyncReadExt as _, net::UnixListener, runtime::Runtime};

/// Accepts on `path` for as long as `runtime` lives.
pub(crate) fn start(runtime: &Runtime, path: &Path) -> Result<(), String> {
    let _guard = runtime.enter();
    let listener = UnixListener::bind(path).map_err(|error| format!("{}: {error}", path.display()))?;
    runtime.spawn(async move {
        while let Ok((mut held, _)) = listener.accept().await {
            tokio::spawn(async move { held.read(&mut [0]).await });
        }
    });
    Ok(())
}
