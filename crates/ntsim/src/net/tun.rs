//! A TUN device: a network interface whose packets this process reads and writes.

use super::error::NetError;
use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A layer 3 interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
}

impl Tun {
    /// Makes an interface called `name` (at most 15 bytes). Each read or write carries one bare IP packet and does not
    /// block.
    ///
    /// # Errors
    /// [`NetError::Tun`] when the device is absent or access is denied.
    pub fn open(name: &str) -> Result<Self, NetError> {
        let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).map_err(
            |error| {
                let advice = match error {
                    rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
                        "load the kernel module `tun` and check that /dev/net/tun exists"
                    }
                    _ => "run as root, or make /dev/net/tun readable and writable for this user",
                };
                NetError::Tun { source: error.into(), advice }
            },
        )?;
        // SAFETY: ifreq consists of integers, arrays and a union of these; all zeros is a valid value of each.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if answer < 0 {
            let advice = "making an interface needs CAP_NET_ADMIN in its network namespace";
            return Err(NetError::Tun { source: io::Error::last_os_error(), advice });
        }
        Ok(Self { fd })
    }

    /// Another handle of the same interface.
    ///
    /// # Errors
    /// The error of dup.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Reads one packet that the kernel sends through the interface.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none now.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Hands one packet to the kernel as if it had arrived at the interface.
    ///
    /// # Errors
    /// The kernel's error, e.g. when this is not an IP packet or the interface is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
