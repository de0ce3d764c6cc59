//! Which driver runs here: io_uring where the kernel allows it, readiness everywhere else. Said once per start.

use std::io;

use super::epoll::Epoll;
use super::{Driver, Setup};
use crate::config::DriverChoice;

/// Makes the driver on the thread that is to own it.
pub fn choose(choice: DriverChoice, setup: &Setup) -> io::Result<Box<dyn Driver>> {
    choose_from(choice, setup, uring)
}

/// The same with another way to make the ring.
fn choose_from(
    choice: DriverChoice,
    setup: &Setup,
    uring: impl FnOnce(&Setup) -> io::Result<Box<dyn Driver>>,
) -> io::Result<Box<dyn Driver>> {
    if choice != DriverChoice::Epoll {
        match uring(setup) {
            Ok(driver) => {
                tracing::info!(driver = driver.name(), "driver chosen");
                return Ok(driver);
            }
            Err(error) if choice == DriverChoice::IoUring => {
                tracing::warn!(%error, "driver=io_uring was asked for but cannot be used here; epoll is used instead");
            }
            Err(error) => tracing::info!(%error, "io_uring cannot be used here; epoll is used instead"),
        }
    }
    let driver: Box<dyn Driver> = Box::new(Epoll::new(setup)?);
    if choice == DriverChoice::Epoll {
        tracing::info!(driver = driver.name(), "driver chosen");
    }
    Ok(driver)
}

/// A ring, or why there is none.
#[cfg(target_os = "linux")]
fn uring(setup: &Setup) -> io::Result<Box<dyn Driver>> {
    Ok(Box::new(super::uring::Uring::new(setup)?))
}

/// A ring, or why there is none.
#[cfg(not(target_os = "linux"))]
fn uring(_: &Setup) -> io::Result<Box<dyn Driver>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring exists on Linux only"))
}
