//! What a run of random faults is made of: chance that a seed repeats, and a disk that can be full.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{daemon::unmount_below, testbed::Testbed};

/// Chance that is the same for the same seed (SplitMix64, as Steele, Lea and Flood give it).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.any() % end).unwrap_or_default()
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A time between the two.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let fraction = self.below(1_000) as f64 / 1_000.0;
        least + (most - least).mul_f64(fraction)
    }
}

/// A disk of a few pages, in memory, which can be filled to the last byte. Unmounted when dropped.
pub struct TinyDisk {
    mounted: PathBuf,
    folder: TempDir,
}

impl TinyDisk {
    /// Mounts one of `kib` KiB.
    ///
    /// # Panics
    /// It cannot be mounted: tests run as root.
    pub fn mount(kib: usize) -> Self {
        let folder = Testbed::get().scratch("disk");
        let mounted = folder.path().join("mounted");
        fs::create_dir(&mounted).expect("a folder of the testbed can be made");
        let options = format!("size={kib}k,mode=0700");
        let ran = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&mounted).status();
        assert!(ran.is_ok_and(|status| status.success()), "no tmpfs could be mounted");
        Self { mounted, folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }

    /// Leaves no byte free.
    ///
    /// # Panics
    /// The file that fills it cannot be made.
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file takes no room yet");
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    /// Gives the room back.
    pub fn clear(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        unmount_below(self.folder.path());
    }
}
