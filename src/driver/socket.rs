//! TCP sockets with their options set before they connect, and one write of many slices. Linux only.
//!
//! *Why this is sound*: (a) every call gets a descriptor that the caller owns or borrows for the call's length; (b)
//! pointers lead to locals or to borrowed slices that outlive the call, with their true lengths; (c) a descriptor that
//! a call returned is new, so whoever wraps it is its only owner; (d) std says that `IoSlice` has the layout of
//! `iovec` on Unix.

#![allow(unsafe_code, reason = "argued above")]

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SocketOptions;
use crate::sender::transmit::Transmit;

/// Send buffer of a connection within this machine, when the user names none. The kernel would let it grow to megabytes,
/// which then leave the cache before the peer reads them: 1 MiB requests went at 3 to 4 GB/s then and at 7 to 10 with
/// this (2 cores, Linux 6.18, November 2026; 64 KiB requests do not care). Across a network the kernel's own choice
/// stays, because there the buffer bounds what one round trip carries.
const LOOPBACK_SEND_BUFFER: u32 = 128 * 1024;

/// The same for a peer that reads late, because it is at work on the request before: the kernel is to have most of the next one
/// by then. (`net.core.wmem_max` may allow less.)
const SLOW_SEND_BUFFER: u32 = 4 << 20;

/// A transmit is larger than this only where answers are slow, or where `max.request.size` is.
const LARGE_TRANSMIT: usize = 2 << 20;

/// Whether a socket's send buffer is ours to choose.
#[derive(Debug)]
pub struct SendBuffer {
    is_small: bool,
}

impl SendBuffer {
    /// As [`open`] sets it.
    pub fn new(address: SocketAddr, options: &SocketOptions) -> Self {
        Self { is_small: address.ip().is_loopback() && options.send_buffer.is_none() }
    }

    /// To be called before the transmit is written. If the kernel refuses, the buffer stays small.
    pub fn fit(&mut self, socket: BorrowedFd<'_>, transmit: &Transmit) {
        if self.is_small && transmit.bytes() > LARGE_TRANSMIT {
            self.is_small = false;
            let _ = set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SLOW_SEND_BUFFER as i32);
        }
    }
}

/// A socket address as the kernel reads it.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    /// Where the kernel finds it, and its length.
    pub fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.storage).cast(), self.len)
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let len = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: clause (b): `sockaddr_storage` is made to hold any address, in size and alignment.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
                mem::size_of_val(&raw)
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
                mem::size_of_val(&raw)
            }
        };
        Self { storage, len: len as libc::socklen_t }
    }
}

/// Makes a TCP socket, closed on exec, with its options set before the handshake, which fixes the window's scale.
pub fn open(address: SocketAddr, options: &SocketOptions, nonblocking: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mode = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, mode, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: clause (c).
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // A request is written whole: to hold back its last segment until the one before is acknowledged gains nothing.
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // As the Java client has it. It matters only with connections.max.idle.ms=-1: probes begin after two hours.
    set(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    // A host that vanished acknowledges nothing, and the kernel would retransmit for a quarter of an hour. A request's
    // own timeout ends that where there is an answer to wait for; with acks=0 nobody else would notice.
    if let Some(timeout) = options.user_timeout {
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        set(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis)?;
    }
    let loopback = || address.ip().is_loopback().then_some(LOOPBACK_SEND_BUFFER);
    if let Some(bytes) = options.send_buffer.or_else(loopback) {
        set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes.min(i32::MAX as u32) as i32)?;
    }
    if let Some(bytes) = options.receive_buffer {
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes.min(i32::MAX as u32) as i32)?;
    }
    Ok(socket)
}

/// Sets one socket option to a number.
fn set(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: clauses (a) and (b).
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts connecting a non-blocking socket; writability tells the end of it.
pub fn start_connect(socket: &OwnedFd, address: &RawAddress) -> io::Result<()> {
    let (start, len) = address.parts();
    // SAFETY: clauses (a) and (b).
    if unsafe { libc::connect(socket.as_raw_fd(), start, len) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        error => Err(error),
    }
}

/// Writes slices in their order, as much as there is room for. Never raises SIGPIPE, whatever the program does with
/// that signal (`writev` would).
pub fn write(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    // SAFETY: clauses (a), (b) and (d); sending only reads what the message leads to.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// An eventfd, for waking a ring. Blocking, because io_uring answers reads of a non-blocking one with EAGAIN instead of
/// waiting; writers never block, the counter holds 2^64 - 2 rings.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: clause (c).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends both directions at once: what waits in the kernel for this socket returns, the peer sees the end even if a
/// forked child still holds a copy of the descriptor. What was sent before still arrives.
pub fn shut_down(socket: BorrowedFd<'_>) {
    // SAFETY: clause (a); the result does not matter, the descriptor is closed soon after.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn get(socket: &OwnedFd, level: i32, name: i32) -> i32 {
        let mut value = 0_i32;
        let mut len = mem::size_of_val(&value) as libc::socklen_t;
        // SAFETY: clauses (a) and (b).
        let result =
            unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        value
    }

    #[test]
    fn options_are_set_before_the_socket_is_used() {
        let options = SocketOptions { user_timeout: Some(Duration::from_secs(30)), ..SocketOptions::default() };
        for address in ["127.0.0.1:1", "192.0.2.1:1", "[::1]:1"] {
            let Ok(socket) = open(address.parse().unwrap(), &options, true) else {
                assert!(address.starts_with('['), "only IPv6 may be switched off");
                continue;
            };
            assert_eq!(get(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
            assert_eq!(get(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
            assert_eq!(get(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 30_000);
        }
    }
}
