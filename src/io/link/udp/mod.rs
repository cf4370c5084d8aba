//! fake
use crate::io::Full;
use crate::io::datagram::{Arrival, Carrier};
use crate::io::reactor::Reactor;
use crate::types::Time;
use std::net::{SocketAddr, UdpSocket};
/// o
#[derive(Debug)]
pub struct Options {
    /// m
    pub mtu_bytes: usize,
    /// p
    pub peers: usize,
}
/// c
#[derive(Debug)]
pub struct UdpCarrier;
impl UdpCarrier {
    /// n
    pub fn new(_: &Options, _: UdpSocket, _: Reactor) -> std::io::Result<UdpCarrier> {
        Ok(UdpCarrier)
    }
    /// n
    pub fn notes(&self) -> &[String] {
        &[]
    }
}
impl Carrier for UdpCarrier {
    type Address = SocketAddr;
    const RELIABLE: bool = false;
    fn datagram_bytes_max(&self) -> usize {
        1400
    }
    fn window(&self) -> usize {
        64
    }
    fn poll(&mut self, _now: Time, _sink: &mut impl FnMut(Arrival<'_, SocketAddr>)) -> usize {
        0
    }
    fn send(&mut self, _to: SocketAddr, _parts: &[&[u8]]) -> Result<(), Full<()>> {
        Ok(())
    }
    fn flush(&mut self) {}
}
