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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::SocketOptions;
    use super::*;
    use crate::accumulator::arena::Arena;

    fn setup() -> Setup {
        Setup { arena: Arc::new(Arena::new(4096).expect("an arena")), sockets: SocketOptions::default() }
    }

    #[test]
    fn a_refused_ring_is_replaced() {
        for choice in [DriverChoice::Auto, DriverChoice::IoUring] {
            // ENOSYS, EPERM, ENOMEM.
            for errno in [38, 1, 12] {
                let refuse = |_: &Setup| Err(io::Error::from_raw_os_error(errno));
                let driver = choose_from(choice, &setup(), refuse).expect("epoll");
                assert_eq!(driver.name(), "epoll");
            }
        }
    }

    #[test]
    fn no_ring_is_made_when_epoll_is_asked_for() {
        let driver = choose_from(DriverChoice::Epoll, &setup(), |_| panic!("not asked for")).expect("epoll");
        assert_eq!(driver.name(), "epoll");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_ring_that_works_is_taken() {
        let Ok(ring) = uring(&setup()) else { return };
        assert_eq!(ring.name(), "io_uring");
        for choice in [DriverChoice::Auto, DriverChoice::IoUring] {
            assert_eq!(choose(choice, &setup()).expect("a driver").name(), "io_uring");
        }
    }
}
